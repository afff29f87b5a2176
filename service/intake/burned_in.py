"""Text that is part of the pixels: no attribute that is dropped takes it away.

The detector looks for what annotations have in common: thin strokes much brighter than what is
around them, as separate marks of one height in one line. It finds most printed lines of six
characters and more; it misses short marks (a laterality letter is none of its business), dark
text on a bright ground, and handwriting. Measured in docs/pacs.md.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from specialists.prediction import Pixels

Grey = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # top, bottom, left, right

_LONGEST_SIDE = 1400
_STROKE = 9  # no stroke of a letter is wider
_BRIGHTER = 60  # than what is around it, of 255
_NOISE = 0.2  # text covers less of an image; speckle covers more
_HEIGHT = range(6, 49)
_LETTERS = 6
_MARKS_MAX = 20_000


def has_text(pixels: Pixels) -> bool:
    """Whether an image seems to have a line of bright text burned into it."""
    strokes = _strokes(_reduced(pixels))
    if not 0 < strokes.mean() < _NOISE:
        return False
    return _longest_line(_letters(strokes)) >= _LETTERS


def _reduced(pixels: Pixels) -> Grey:
    """Grey, and at most so long that letters keep their gaps and large images their speed."""
    image = Pillow.fromarray(pixels).convert("L")
    return np.asarray(image.reduce(-(-max(image.size) // _LONGEST_SIDE)))


def _strokes(grey: Grey) -> NDArray[np.bool_]:
    """Where the image is brighter than its morphological opening: a white top-hat."""
    opened = _spread(_spread(grey, np.minimum, 255), np.maximum, 0)
    strokes: NDArray[np.bool_] = grey - opened > _BRIGHTER
    return strokes


def _spread(grey: Grey, choose: Callable[[Grey, Grey], Grey], outside: int) -> Grey:
    """The lowest or highest value within a square of `_STROKE` pixels around each pixel."""
    for _ in ("along columns", "along rows"):
        grey = _along_columns(grey, choose, outside).T
    return grey


def _along_columns(grey: Grey, choose: Callable[[Grey, Grey], Grey], outside: int) -> Grey:
    reach = _STROKE // 2
    found = np.pad(grey, ((reach, reach), (0, 0)), constant_values=outside)
    covered = 1
    while covered < _STROKE:  # 1, 2, 4, 8, 9 pixels: doubling is fast
        shift = min(covered, _STROKE - covered)
        found = choose(found[:-shift], found[shift:])
        covered += shift
    return found


def _letters(strokes: NDArray[np.bool_]) -> list[Box]:
    """Separate marks as high as letters and no wider than those, from left to right."""
    from scipy import (
        ndimage,  # takes half a second to import, and images of other formats need none
    )

    marks, count = ndimage.label(strokes, structure=np.ones((3, 3)))
    if count > _MARKS_MAX:
        return []
    places: list[Any] = ndimage.find_objects(marks)
    boxes = [(y.start, y.stop, x.start, x.stop) for y, x in places]
    return sorted((box for box in boxes if _is_letter(box)), key=lambda box: box[2])


def _is_letter(box: Box) -> bool:
    height, width = box[1] - box[0], box[3] - box[2]
    return height in _HEIGHT and width <= 1.6 * height


def _longest_line(letters: list[Box]) -> int:
    """How many letters the longest line has."""
    lines: list[list[Box]] = []
    for letter in letters:
        line = next((line for line in reversed(lines) if _continues(line[-1], letter)), None)
        if line is None:
            lines.append(line := [])
        line.append(letter)
    return max(map(len, lines), default=0)


def _continues(last: Box, letter: Box) -> bool:
    """Whether a letter stands beside another one, as high and nearly as large."""
    height, other = last[1] - last[0], letter[1] - letter[0]
    shared = min(last[1], letter[1]) - max(last[0], letter[0])
    gap = letter[2] - last[3]
    beside = -2 <= gap <= 1.2 * max(height, other)
    return beside and shared >= 0.6 * min(height, other) and 0.5 <= height / other <= 2
