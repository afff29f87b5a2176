"""What the vision tower learns from before it learns any words: images with targets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from service.generalist.training.augment import EVERYDAY, Images, varied


@dataclass(frozen=True, eq=False)
class Lesson:
    """Images (n, size, size, 3) and targets (n, labels) of 0 and 1.

    `exclusive`: exactly one label holds. `mirrored`: left and right may be exchanged, because
    nothing that is asked names a side. `weight`: how often it is drawn, compared with others.
    """

    name: str
    images: Images
    targets: NDArray[np.float32]
    exclusive: bool = True
    mirrored: bool = True
    weight: float = 1.0
    _rows: tuple[NDArray[np.int64], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.exclusive:
            rows = [np.flatnonzero(column) for column in self.targets.T]
        else:
            rows = [np.arange(len(self.images))]
        object.__setattr__(self, "_rows", tuple(group for group in rows if len(group)))

    def draw(self, rng: np.random.Generator) -> int:
        """The row of a random image; where labels exclude each other, each is as likely."""
        return int(rng.choice(self._rows[rng.integers(len(self._rows))]))


@dataclass(frozen=True, eq=False)
class Draw:
    """Images for one step, in the order of the lessons they belong to."""

    images: Images
    parts: tuple[tuple[int, slice, Tensor], ...]  # lesson, its rows, its targets


def draw(lessons: Sequence[Lesson], count: int, rng: np.random.Generator) -> Draw:
    """`count` augmented images, as many of each lesson as its weight says."""
    weights = np.array([lesson.weight for lesson in lessons])
    shares = rng.multinomial(count, weights / weights.sum())
    images: list[Images] = []
    parts: list[tuple[int, slice, Tensor]] = []
    for number, (lesson, share) in enumerate(zip(lessons, shares.tolist(), strict=True)):
        rows = [lesson.draw(rng) for _ in range(share)]
        how = EVERYDAY.scaled(1.0, mirrored=lesson.mirrored)
        targets = torch.from_numpy(lesson.targets[rows])
        parts.append((number, slice(len(images), len(images) + share), targets))
        images += [varied(lesson.images[row], how, rng) for row in rows]
    return Draw(np.stack(images), tuple(parts))


def heads(lessons: Sequence[Lesson], width: int) -> nn.ModuleList:
    """One linear head per lesson; thrown away once the tower has learned."""
    return nn.ModuleList(nn.Linear(width, lesson.targets.shape[1]) for lesson in lessons)


def marked(
    lessons: Sequence[Lesson], drawn: Draw, heads: nn.ModuleList, seen: Tensor
) -> tuple[Tensor, float]:
    """Mean loss over the images (images, width), and the share of right targets."""
    losses, right = zip(*_marks(lessons, drawn, heads, seen), strict=True)
    return torch.stack(losses).sum() / len(seen), sum(right) / len(seen)


def _marks(
    lessons: Sequence[Lesson], drawn: Draw, heads: nn.ModuleList, seen: Tensor
) -> Iterator[tuple[Tensor, float]]:
    for number, rows, targets in drawn.parts:
        if not len(targets):
            continue
        targets = targets.to(seen.device)
        logits = heads[number](seen[rows]).float()
        if lessons[number].exclusive:
            loss = functional.cross_entropy(logits, targets.argmax(1), reduction="sum")
            yield loss, float((logits.argmax(1) == targets.argmax(1)).sum())
        else:
            loss = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            yield (
                2 * loss.mean(1).sum(),
                float(((logits > 0) == targets.bool()).float().mean(1).sum()),
            )
