"""How large the pixels of an image are, and square ones of those that are not."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from PIL import Image as Pillow

from service.intake.dataset import several
from service.intake.limits import Limits
from specialists.prediction import Pixels

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_SQUARE = 0.01  # a difference of one per cent is nothing that a viewer would correct
_OBLONG = 10.0  # beyond it a ratio is a mistake


@dataclass(frozen=True, slots=True)
class Spacing:
    """Distances in mm between the centres of neighbouring rows and of neighbouring columns.

    `keyword` names the attribute that says so: PixelSpacing holds in the patient (PS3.3 10.7.1.3),
    ImagerPixelSpacing at the detector, which magnifies.
    """

    rows_mm: float
    columns_mm: float
    keyword: str


def spacing_of(view: Any) -> Spacing | None:
    """The pixel spacing of a frame; None where the file has none that can be used."""
    for keyword in _SPACINGS:
        pair = _positive_pair(view, keyword)
        if pair is not None:
            return Spacing(*pair, keyword)
    return None


def height_to_width(view: Any, spacing: Spacing | None) -> float:
    """How much higher than wide a pixel is; PixelAspectRatio counts where spacing is not known."""
    pair = (spacing.rows_mm, spacing.columns_mm) if spacing else None
    pair = pair or _positive_pair(view, "PixelAspectRatio") or (1.0, 1.0)
    return pair[0] / pair[1]


def usable(ratio: float) -> float:
    """The ratio of `height_to_width`; 1 where it is as good as that, or a mistake."""
    is_square, is_mistaken = abs(ratio - 1.0) <= _SQUARE, not 1 / _OBLONG <= ratio <= _OBLONG
    return 1.0 if is_square or is_mistaken else ratio


def made_square(pixels: Pixels, ratio: float, limits: Limits) -> tuple[Pixels, str]:
    """The image with square pixels, none of them lost, and a note where anything was done."""
    if abs(ratio - 1.0) <= _SQUARE:
        return pixels, ""
    if not 1 / _OBLONG <= ratio <= _OBLONG:
        return pixels, "The pixel aspect ratio of the file is not usable and was not applied."
    height, width = pixels.shape[:2]
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    limits.check_size(*size)
    square = np.array(Pillow.fromarray(pixels).resize(size, Pillow.Resampling.BILINEAR))
    return square, f"Oblong pixels were made square: {width} × {height} became {_by(size)}."


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"


def _positive_pair(view: Any, keyword: str) -> tuple[float, float] | None:
    values = [float(value) for value in several(view.get(keyword))]
    if len(values) != 2 or not all(isfinite(value) and value > 0 for value in values):
        return None
    return values[0], values[1]
