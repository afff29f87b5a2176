"""A map of probabilities → what it says in words: where, how large, how certain. Free of torch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from specialists.prediction import Heat, Mask, Segmentation

MOST_PLACES = 3
HALF = 0.5
"""A place more likely than this belongs to the segment."""

SPECK = 0.05
"""Areas smaller than this share of the largest are not counted."""

ROWS, COLUMNS = ("upper", "", "lower"), ("left", "", "right")


@dataclass(frozen=True, slots=True)
class Said:
    """What a map says; the fields are those of Segmentation."""

    share: float
    areas: int
    places: tuple[str, ...]
    certainty: float


def told(chances: Heat) -> Said:
    """Share, areas, places and certainty of a map (rows, columns) of probabilities.

    Places are thirds of the image, as it is seen: its left is a chest's right.
    """
    outlined = chances > HALF
    sizes, places = _areas(outlined)
    return Said(float(outlined.mean()), len(sizes), places[:MOST_PLACES], certainty(chances))


def certainty(chances: Heat) -> float:
    """The Dice to be expected if the probabilities are honest, 0 to 1.

    The soft Dice of the outline and its own map (Borges et al. 2024, "Soft Dice Confidence").
    Where nothing is outlined: the probability that the likeliest place belongs to nothing.
    """
    outlined = chances > HALF
    if not outlined.any():
        return float(1 - chances.max())
    return float(2 * chances[outlined].sum() / (chances.sum() + outlined.sum()))


def mask(segmentation: Segmentation, height: int, width: int) -> Mask:
    """(height, width), True where the segment is; for an image of that size, in this request.

    Raises ValueError for a segmentation that was read from the store, which keeps no masks.
    """
    if segmentation.map is None:
        raise ValueError("a stored segmentation has no mask: ask for the diagnosis again")
    return enlarged(segmentation.map, height, width)


def enlarged(chances: Heat, height: int, width: int) -> Mask:
    """The mask of a map at another size, its border interpolated between the map's cells."""
    bytes_ = np.rint(255 * chances).astype(np.uint8)  # a quarter of the memory that floats need
    larger = Image.fromarray(bytes_).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(larger) > 127


def _areas(outlined: Mask) -> tuple[list[int], tuple[str, ...]]:
    """Sizes and places of the connected areas that are no specks, the largest first."""
    numbered, count = ndimage.label(outlined, structure=np.ones((3, 3)))
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
    kept = [
        area for area in np.argsort(-sizes, kind="stable") if sizes[area] >= SPECK * sizes.max()
    ]
    centres = ndimage.center_of_mass(outlined, numbered, [area + 1 for area in kept])
    return [int(sizes[area]) for area in kept], tuple(_place(c, outlined) for c in centres)


def _place(centre: tuple[float, float], outlined: NDArray[np.bool_]) -> str:
    row, column = (
        min(2, int(3 * (at + 0.5) / side)) for at, side in zip(centre, outlined.shape, strict=True)
    )
    return " ".join(filter(None, (ROWS[row], COLUMNS[column]))) or "centre"
