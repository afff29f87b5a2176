"""A heat map laid over its image. Free of torch."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from specialists.prediction import Heat, Pixels

OPACITY = 0.65
"""Of the hottest place; cold places show the image as it is."""

_ANCHORS = (0.0, 0.25, 0.5, 0.75, 1.0)
_COLOURS = ((60, 0, 120), (170, 20, 110), (235, 80, 40), (250, 170, 20), (255, 255, 120))
"""From violet over red to yellow: brighter is hotter, also for eyes that confuse red and green."""

ROWS_AT_ONCE = 512


def enlarge(heat: Heat, height: int, width: int) -> Heat:
    """The map (height, width), interpolated between the centres of its cells."""
    size = (width, height)
    larger = Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(larger, dtype=np.float32).clip(0, 1)


def overlay(pixels: Pixels, heat: Heat) -> Pixels:
    """(height, width, 3) uint8 RGB: the image, the hotter the more covered by colour.

    Raises ValueError where the map is not of the image's size.
    """
    if heat.shape != pixels.shape[:2]:
        raise ValueError(f"a map of {heat.shape} does not cover an image of {pixels.shape[:2]}")
    blended = np.empty_like(pixels)
    for first in range(0, len(pixels), ROWS_AT_ONCE):  # bounds the memory of large radiographs
        rows = slice(first, first + ROWS_AT_ONCE)
        blended[rows] = _blend(pixels[rows], heat[rows])
    return blended


def within(pixels: Pixels, longest: int) -> Pixels:
    """The image, made smaller where a side is longer than `longest` pixels."""
    factor = longest / max(pixels.shape[:2])
    if factor >= 1:
        return pixels
    height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))


def _blend(pixels: Pixels, heat: Heat) -> NDArray[np.uint8]:
    share = (OPACITY * heat)[..., None]
    mixed = (1 - share) * pixels + share * _coloured(heat)
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def _coloured(heat: Heat) -> NDArray[np.float32]:
    bands = [np.interp(heat, _ANCHORS, band) for band in zip(*_COLOURS, strict=True)]
    return np.stack(bands, axis=-1).astype(np.float32)
