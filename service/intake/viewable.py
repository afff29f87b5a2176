"""One frame as a person looks at it: all its grey levels, and how to turn them into a picture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PADDING = 65535
"""The unit of a grey pixel where nothing was measured (PS3.3 C.7.5.1.1.2): always black."""


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI window; `function` is LINEAR, LINEAR_EXACT or SIGMOID (PS3.3 C.11.2.1)."""

    centre: float
    width: float
    function: str


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A frame of an image, with nothing of its file but what is needed to show it.

    Grey pixels are (height, width) uint16, and stand for `lowest + step * pixel`, such as
    Hounsfield units; colour is (height, width, 3) uint8. The first window shows what the models
    see. A pixel is `height_to_width` times as high as wide. `number` counts from 1 among `count`
    frames. `cautions` are reasons for which a person must look.
    """

    pixels: NDArray[np.uint16] | NDArray[np.uint8]
    windows: tuple[Window, ...]
    lowest: float = 0.0
    step: float = 1.0
    unit: str = ""
    is_inverse: bool = False
    height_to_width: float = 1.0
    modality: str | None = None
    number: int = 1
    count: int = 1
    notes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()

    @property
    def is_grey(self) -> bool:
        return self.pixels.ndim == 2
