"""How well outlines match what was drawn: Dice and intersection over union, image by image."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from specialists import transforms
from specialists.errors import InvalidDataset, InvalidSpecialist
from specialists.prediction import Mask, MissingSpecialist
from specialists.segmentation import evidence, models, network
from specialists.segmentation.masks import MaskedSplit
from specialists.segmentation.network import Segmenter
from specialists.task import Task

BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Overlap:
    """Means over images, 0 to 1; None where there is no image of the kind.

    `dice` and `iou` are of the images that show the segment, `left_alone` is the share of the
    others on which nothing is outlined.
    """

    dice: float | None
    iou: float | None
    left_alone: float | None
    images: float

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Honesty:
    """What was promised of the outlines that were made, and what they reached; None without any.

    `certainty` and `reached`, a Dice, are means over the images on which something is outlined,
    rightly or not; `rank_correlation` is Spearman's.
    """

    certainty: float | None = None
    reached: float | None = None
    rank_correlation: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Measured:
    """One specialist on a split."""

    specialist: str
    weights_sha256: str
    overlap: Overlap
    honesty: Honesty


@dataclass(frozen=True, slots=True)
class Evaluation:
    results: tuple[Measured, ...]
    missing: tuple[MissingSpecialist, ...]


def evaluate(folder: Path, task: Task, split: MaskedSplit, *, device: str = "cpu") -> Evaluation:
    """Every segmentation specialist in `folder/MODEL`, at the masks' own size.

    Raises InvalidDataset on a split without images, InvalidSpecialist where nobody can answer.
    """
    if not len(split):
        raise InvalidDataset(f"nothing to evaluate task {task.name!r} on: the split has no images")
    found, missing = load_all(folder, task, device=device)
    if not found:
        reason = missing[0].reason if missing else f"task {task.name!r} has no segment"
        raise InvalidSpecialist(f"no segmentation specialist for task {task.name!r}: {reason}")
    return Evaluation(tuple(measured(one, split) for one in found), missing)


def load_all(
    folder: Path, task: Task, *, device: str = "cpu"
) -> tuple[tuple[Segmenter, ...], tuple[MissingSpecialist, ...]]:
    """A task's segmentation specialists: who can answer, and who is missing with the reason."""
    found: list[Segmenter] = []
    missing: list[MissingSpecialist] = []
    for key in models.models_of(task):
        try:
            found.append(network.load(folder / key, task, device))
        except InvalidSpecialist as error:
            missing.append(MissingSpecialist(key, str(error)))
    return tuple(found), tuple(missing)


def overlap(outlined: Sequence[Mask], drawn: Sequence[Mask]) -> Overlap:
    """Means over pairs of masks of equal size."""
    pairs = list(zip(outlined, drawn, strict=True))
    shown = [(ours, truth) for ours, truth in pairs if truth.any()]
    others = [not ours.any() for ours, truth in pairs if not truth.any()]
    return Overlap(
        dice=_mean([dice(*pair) for pair in shown]),
        iou=_mean([iou(*pair) for pair in shown]),
        left_alone=_mean(others),
        images=float(len(pairs)),
    )


def dice(ours: Mask, truth: Mask) -> float:
    """Twice the intersection over the sum of both; 1 where both are empty."""
    total = int(ours.sum()) + int(truth.sum())
    return 2 * int((ours & truth).sum()) / total if total else 1.0


def iou(ours: Mask, truth: Mask) -> float:
    """Intersection over union; 1 where both are empty."""
    union = int((ours | truth).sum())
    return int((ours & truth).sum()) / union if union else 1.0


def maps(segmenter: Segmenter, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """(images, size, size) probabilities of images of any size."""
    size = segmenter.manifest.preprocessing.input_size
    pieces = [
        network.forward(segmenter, transforms.resize_all(images[start : start + BATCH_SIZE], size))
        for start in range(0, len(images), BATCH_SIZE)
    ]
    return np.concatenate(pieces)


def measured(segmenter: Segmenter, split: MaskedSplit) -> Measured:
    """One specialist on a split, at the masks' own size."""
    drawn = list(split.masks())
    chances = maps(segmenter, split.images)
    outlined = [
        evidence.enlarged(one, *mask.shape) for one, mask in zip(chances, drawn, strict=True)
    ]
    told = [
        (evidence.certainty(one), dice(ours, truth))
        for one, ours, truth in zip(chances, outlined, drawn, strict=True)
        if ours.any()
    ]
    return Measured(
        segmenter.name,
        segmenter.manifest.weights_sha256,
        overlap(outlined, drawn),
        honesty([promised for promised, _ in told], [reached for _, reached in told]),
    )


def honesty(promised: Sequence[float], reached: Sequence[float]) -> Honesty:
    """Of outlines in parallel; without a correlation where one of the two is always the same."""
    varied = min(len(set(promised)), len(set(reached))) > 1
    correlation = float(spearmanr(promised, reached).statistic) if varied else None
    return Honesty(_mean(promised), _mean(reached), correlation)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
