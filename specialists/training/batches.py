"""Training and validation images as batches of tensors."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from specialists import transforms
from specialists.catalogue import Architecture, Augmentation
from specialists.prediction import Pixels
from specialists.training.augment import augment

KEPT_BYTES = 2 << 30
"""Resized images are kept up to this size, and resized again in every epoch beyond it."""


class ResizedImages:
    """Images at one size, taken by place as (count, size, size, 3) uint8."""

    def __init__(self, images: Sequence[Pixels], size: int, kept_bytes: int = KEPT_BYTES) -> None:
        self._images, self._size = images, size
        fits = len(images) * size * size * 3 <= kept_bytes
        self._kept = transforms.resize_all(images, size) if fits else None

    def __len__(self) -> int:
        return len(self._images)

    def take(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        if self._kept is not None:
            return self._kept[places]
        return transforms.resize_all([self._images[int(place)] for place in places], self._size)


def shuffled(
    images: ResizedImages,
    targets: Tensor,
    architecture: Architecture,
    augmentation: Augmentation,
    batch_size: int,
    generator: Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch: every image once, in batches of nearly equal size, changed a little at random."""
    order = torch.randperm(len(images), generator=generator)
    for places in order.tensor_split(-(-len(images) // batch_size)):
        pixels = transforms.scale(images.take(places.numpy()))
        changed = augment(pixels, augmentation, generator)
        yield transforms.centre(changed, architecture.mean, architecture.std), targets[places]


def in_order(
    images: ResizedImages, mean: Sequence[float], std: Sequence[float], batch_size: int
) -> Iterator[Tensor]:
    """All images, in order, as they are."""
    for start in range(0, len(images), batch_size):
        places = np.arange(start, min(start + batch_size, len(images)))
        yield transforms.normalise(images.take(places), mean, std)
