"""Where training images come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from specialists.prediction import Pixels
from specialists.task import Task


@dataclass(frozen=True, eq=False)
class Source:
    """Labelled images of one task, already at the model's size.

    `images` are (n, size, size, 3) uint8, `targets` (n,) label indices; `weight` is how often the
    source is drawn compared with the others.
    """

    task: Task
    images: NDArray[np.uint8]
    targets: NDArray[np.int64]
    weight: float = 1.0

    @cached_property
    def rows(self) -> list[tuple[int, NDArray[np.int64]]]:
        """Every label index that occurs, with the rows that have it."""
        return [(int(t), np.flatnonzero(self.targets == t)) for t in np.unique(self.targets)]

    def draw(self, rng: np.random.Generator) -> tuple[Pixels, int]:
        """A random image and its label index; every label is equally likely."""
        target, rows = self.rows[rng.integers(len(self.rows))]
        return self.images[rng.choice(rows)], target


def source(
    task: Task, images: Sequence[Pixels], targets: Sequence[int], size: int, weight: float = 1.0
) -> Source:
    """A source of images of any size, resized once as the generalist itself resizes them."""
    resized = np.stack([resize(pixels, size) for pixels in images])
    return Source(task, resized, np.asarray(targets, dtype=np.int64).reshape(-1), weight)


def resize(pixels: Pixels, size: int) -> Pixels:
    """RGB pixels squeezed to (size, size, 3), bicubic, aspect ratio not kept (as MedDr does)."""
    image = Pillow.fromarray(pixels).convert("RGB")
    return np.asarray(image.resize((size, size), Pillow.Resampling.BICUBIC))
