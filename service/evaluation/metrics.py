"""Figures of probability tables, by maintained libraries and with MedMNIST's semantics.

One label per case: accuracy of the likeliest, AUC one-vs-rest (of two labels: the last one's).
Several labels: everything per label, then the mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)

from service.domain import labels_of
from service.evaluation.intervals import Interval, Marks
from specialists.task import Task, TaskKind

BINS = 15
REVIEW_RATES = (0.0, 0.1, 0.2, 0.3, 0.5)

Probabilities = NDArray[np.float64]  # (cases, labels)


@dataclass(frozen=True, slots=True)
class Score:
    """How one system did; `auc` is None where no label both holds and does not hold."""

    system: str
    cases: int
    accuracy: float
    macro_f1: float
    auc: float | None
    calibration_error: float
    macro_f1_interval: Interval | None = None
    accuracy_interval: Interval | None = None
    auc_interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Selective:
    """Accuracy of the cases left when the share `review_rate` least sure of go to a person."""

    review_rate: float
    accuracy: float


def marks(task: Task, probabilities: Probabilities) -> Marks:
    """(cases, labels): what is named, as the service would."""
    named = [labels_of(task, tuple(map(float, row))) for row in probabilities]
    return np.array([[name in row for name in task.label_names] for row in named])


def score(
    task: Task,
    system: str,
    truth: Marks,
    probabilities: Probabilities,
    named: Marks | None = None,
) -> Score:
    """The figures of one system on `truth` (cases, labels), without intervals.

    `named` where the system names labels otherwise than the service does.
    """
    named = marks(task, probabilities) if named is None else named
    return Score(
        system=system,
        cases=len(truth),
        accuracy=float(right(task, truth, named).mean()),
        macro_f1=float(f1_score(truth, named, average="macro", zero_division=0)),
        auc=auc(task, truth, probabilities),
        calibration_error=calibration_error(task, truth, probabilities),
    )


def right(task: Task, truth: Marks, named: Marks) -> NDArray[np.float64]:
    """(cases,): 1 where the label is right; of several labels, the share of them."""
    same = named == truth
    share = same.all(axis=1) if task.kind is TaskKind.SINGLE_LABEL else same.mean(axis=1)
    return np.asarray(share, np.float64)


def auc(task: Task, truth: Marks, probabilities: Probabilities) -> float | None:
    columns = told_columns(task, truth)
    if not columns:
        return None
    areas = [roc_auc_score(truth[:, column], probabilities[:, column]) for column in columns]
    return float(np.mean(areas))


def told_columns(task: Task, truth: Marks) -> list[int]:
    """The labels whose AUC can be told: of a pair the last, and each both present and absent."""
    count = truth.shape[1]
    last_only = task.kind is TaskKind.SINGLE_LABEL and count == 2
    columns = [count - 1] if last_only else range(count)
    return [column for column in columns if 0 < truth[:, column].sum() < len(truth)]


def calibration_error(task: Task, truth: Marks, probabilities: Probabilities) -> float:
    """Expected calibration error in `BINS` bins; of several labels, the mean over them."""
    # One that is rounded to just above 1 would be taken for a logit.
    said, holds = torch.tensor(probabilities.clip(0, 1)), torch.tensor(truth)
    if task.kind is TaskKind.SINGLE_LABEL:
        classes = truth.shape[1]
        return float(multiclass_calibration_error(said, holds.int().argmax(1), classes, BINS))
    pairs = zip(said.T.contiguous(), holds.int().T, strict=True)
    return float(np.mean([float(binary_calibration_error(p, t, BINS)) for p, t in pairs]))


def selective(task: Task, truth: Marks, probabilities: Probabilities) -> tuple[Selective, ...]:
    """How accuracy grows as the least sure cases are left to people."""
    return tuple(_selective(task, truth, probabilities))


def _selective(task: Task, truth: Marks, probabilities: Probabilities) -> Iterator[Selective]:
    hits = right(task, truth, marks(task, probabilities))
    order = np.argsort(-sureness(task, probabilities), kind="stable")
    for rate in REVIEW_RATES:
        kept = order[: max(1, round((1 - rate) * len(order)))]
        yield Selective(rate, float(hits[kept].mean()))


def sureness(task: Task, probabilities: Probabilities) -> NDArray[np.float64]:
    """(cases,): the likeliest label's probability; of several, how far the closest is from even."""
    if task.kind is TaskKind.SINGLE_LABEL:
        return np.asarray(probabilities.max(axis=1))
    return np.asarray(np.abs(probabilities - 0.5).min(axis=1))
