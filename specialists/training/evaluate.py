"""Trained specialists on many images: their predictions and embeddings, and how good they are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specialists import catalogue, loader
from specialists.errors import InvalidDataset, InvalidSpecialist
from specialists.forward import Arrays, forward
from specialists.loader import Specialist
from specialists.prediction import MissingSpecialist, Pixels
from specialists.task import Task
from specialists.training import batches
from specialists.training.batches import ResizedImages
from specialists.training.metrics import Metrics, Probabilities, choices, measure
from specialists.training.split import Split

BATCH_SIZE = 64


@dataclass(frozen=True, slots=True)
class Result:
    """How good one specialist is on a split."""

    specialist: str
    weights_sha256: str
    metrics: Metrics


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """How good the panel is on a split, each for itself and together, with what it said.

    `results`, `probabilities` by its first axis, and `embeddings` follow the panel's order.
    """

    results: tuple[Result, ...]
    majority_vote: Metrics  # its AUC ranks by the share of votes
    probability_average: Metrics
    missing: tuple[MissingSpecialist, ...]
    probabilities: NDArray[np.float32]  # (specialists, images, labels)
    embeddings: Mapping[str, NDArray[np.float32]]  # each (images, dimension), unit length


def evaluate(folder: Path, task: Task, split: Split, *, device: str = "cpu") -> Evaluation:
    """Metrics of every specialist in `folder/BACKBONE` and of two ways to combine them.

    Raises InvalidDataset on a split without images, InvalidSpecialist where nobody can answer.
    """
    if not len(split):
        raise InvalidDataset(f"nothing to evaluate task {task.name!r} on: the split has no images")
    specialists, missing = load_panel(folder, task, device=device)
    if not specialists:
        raise InvalidSpecialist(f"no specialist for task {task.name!r}: {missing[0].reason}")
    answers = run(specialists, split.images)
    stacked = np.stack([probabilities for probabilities, _ in answers.values()])
    results = (
        Result(one.name, one.manifest.weights_sha256, measure(task, predicted, split.targets))
        for one, predicted in zip(specialists, stacked, strict=True)
    )
    return Evaluation(
        results=tuple(results),
        majority_vote=_measure_votes(task, stacked, split),
        probability_average=measure(task, stacked.mean(axis=0), split.targets),
        missing=missing,
        probabilities=stacked,
        embeddings={name: embeddings for name, (_, embeddings) in answers.items()},
    )


def embed(
    folder: Path, task: Task, images: Sequence[Pixels], *, device: str = "cpu"
) -> dict[str, Arrays]:
    """Probabilities (images, labels) and embeddings (images, dimension) of each specialist.

    In the panel's order; who is missing or broken is left out.
    """
    specialists, _ = load_panel(folder, task, device=device)
    return run(specialists, images)


def load_panel(
    folder: Path, task: Task, *, device: str = "cpu"
) -> tuple[tuple[Specialist, ...], tuple[MissingSpecialist, ...]]:
    """A task's panel in `folder/BACKBONE`: who can answer, and who is missing with the reason."""
    found: list[Specialist] = []
    missing: list[MissingSpecialist] = []
    for key in catalogue.panel_of(task):
        try:
            found.append(loader.load(folder / key, task, device))
        except InvalidSpecialist as error:
            missing.append(MissingSpecialist(key, str(error)))
    return tuple(found), tuple(missing)


def run(specialists: Sequence[Specialist], images: Sequence[Pixels]) -> dict[str, Arrays]:
    """Every specialist over all images, in batches; each image is resized once per input size."""
    resized: dict[int, ResizedImages] = {}
    answers: dict[str, Arrays] = {}
    for specialist in specialists:
        size = specialist.manifest.preprocessing.input_size
        if size not in resized:
            resized[size] = ResizedImages(images, size)
        answers[specialist.name] = _concatenate(_forwards(specialist, resized[size]))
    return answers


def _forwards(specialist: Specialist, images: ResizedImages) -> Iterator[Arrays]:
    preprocessing = specialist.manifest.preprocessing
    for batch in batches.in_order(images, preprocessing.mean, preprocessing.std, BATCH_SIZE):
        yield forward(specialist, batch)


def _concatenate(parts: Iterator[Arrays]) -> Arrays:
    probabilities, embeddings = zip(*parts, strict=True)
    return np.concatenate(probabilities), np.concatenate(embeddings)


def votes(task: Task, probabilities: NDArray[np.float32]) -> Probabilities:
    """(specialists, images, labels) → (images, labels): the share of specialists naming each label.

    The earlier label wins a tie, as in the service's vote.
    """
    named = np.stack([choices(task, one) for one in probabilities])
    return np.asarray(named.mean(axis=0), dtype=np.float32)


def _measure_votes(task: Task, probabilities: NDArray[np.float32], split: Split) -> Metrics:
    """A majority is more than half, whatever the thresholds of the task's probabilities."""
    return measure(replace(task, thresholds=()), votes(task, probabilities), split.targets)
