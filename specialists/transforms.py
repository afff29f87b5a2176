"""Pixels → what a backbone sees. Deterministic, and shared by specialists that see alike."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from specialists.prediction import Pixels

VERSION = "squeeze-bicubic-1"
"""Names the steps below, and changes with them: specialists trained otherwise see otherwise.

The whole image is squeezed to a square (as MedMNIST does, and GSCo's generalist), with Pillow's
bicubic filter, which smooths when it shrinks.
"""


def resize(pixels: Pixels, size: int) -> Pixels:
    """The image (height, width, 3) squeezed to (size, size, 3); ValueError on another shape."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(f"pixels are (height, width, 3) uint8, not {pixels.shape} {pixels.dtype}")
    if pixels.shape[:2] == (size, size):
        return pixels
    squeezed = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(squeezed)


def resize_all(images: Sequence[Pixels], size: int) -> NDArray[np.uint8]:
    """(images, size, size, 3) uint8."""
    resized = np.empty((len(images), size, size, 3), dtype=np.uint8)
    for place, pixels in enumerate(images):
        resized[place] = resize(pixels, size)
    return resized


def normalise(images: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(batch, size, size, 3) uint8 → (batch, 3, size, size) float32 around zero."""
    return centre(scale(images), mean, std)


def scale(images: NDArray[np.uint8]) -> Tensor:
    """(batch, size, size, 3) uint8 → (batch, 3, size, size) float32 from 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float().div_(255)


def centre(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(batch, 3, size, size) from 0 to 1 → the same around zero."""
    return images.sub(_per_channel(mean)).div_(_per_channel(std))


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)
