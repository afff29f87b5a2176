"""Random changes of training images, on a whole batch at once."""

import math

import torch
import torch.nn.functional as F  # noqa: N812 the name torch's own documentation uses
from torch import Generator, Tensor

from specialists.catalogue import Augmentation


def augment(images: Tensor, limits: Augmentation, generator: Generator) -> Tensor:
    """(batch, 3, size, size) from 0 to 1 → the same, each moved and lit a little otherwise."""
    count = len(images)
    grid = F.affine_grid(_movements(count, limits, generator), list(images.shape), False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return _light(moved, limits, generator)


def _movements(count: int, limits: Augmentation, generator: Generator) -> Tensor:
    """(batch, 2, 3) affine matrices from output to input, in units of half the width."""
    angle = _uniform(count, math.radians(limits.rotation), generator)
    zoom = 1 + _uniform(count, limits.zoom, generator)
    shift = 2 * torch.stack([_uniform(count, limits.shift, generator) for _ in range(2)], dim=1)
    mirror = _mirrors(count, limits, generator)
    rotation = torch.stack(
        [angle.cos() * mirror, -angle.sin(), angle.sin() * mirror, angle.cos()], dim=1
    )
    return torch.cat([zoom.view(-1, 1, 1) * rotation.view(-1, 2, 2), shift.unsqueeze(2)], dim=2)


def _mirrors(count: int, limits: Augmentation, generator: Generator) -> Tensor:
    drawn = torch.rand(count, generator=generator)
    return torch.where(drawn < 0.5, -1.0, 1.0) if limits.flip else torch.ones(count)


def _light(images: Tensor, limits: Augmentation, generator: Generator) -> Tensor:
    count = len(images)
    contrast = 1 + _uniform(count, limits.contrast, generator).view(-1, 1, 1, 1)
    brightness = _uniform(count, limits.brightness, generator).view(-1, 1, 1, 1)
    middle = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - middle) * contrast + middle + brightness).clamp(0, 1)


def _uniform(count: int, limit: float, generator: Generator) -> Tensor:
    return (2 * torch.rand(count, generator=generator) - 1) * limit
