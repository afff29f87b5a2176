"""Accuracy, macro-F1 and AUC of probability tables, with MedMNIST's semantics.

One label per case: accuracy of the likeliest, AUC one-vs-rest (of two labels: the last one's).
Several labels: everything per label, then the mean.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

from service.domain import labels_of
from service.evaluation.intervals import Interval, Marks
from specialists.task import Task, TaskKind

Probabilities = NDArray[np.float64]  # (cases, labels)


@dataclass(frozen=True, slots=True)
class Score:
    """How one system did; `auc` is None where no label both holds and does not hold."""

    system: str
    cases: int
    accuracy: float
    macro_f1: float
    auc: float | None
    macro_f1_interval: Interval | None = None


def marks(task: Task, probabilities: Probabilities) -> Marks:
    """(cases, labels): what is named, as the service would."""
    named = [labels_of(task, tuple(map(float, row))) for row in probabilities]
    return np.array([[name in row for name in task.label_names] for row in named])


def score(
    task: Task,
    system: str,
    truth: Marks,
    probabilities: Probabilities,
    interval: Interval | None = None,
) -> Score:
    """The figures of one system on `truth` (cases, labels)."""
    named = marks(task, probabilities)
    single = task.kind is TaskKind.SINGLE_LABEL
    right = (named == truth).all(axis=1) if single else named == truth
    return Score(
        system=system,
        cases=len(truth),
        accuracy=float(right.mean()),
        macro_f1=float(f1_score(truth, named, average="macro", zero_division=0)),
        auc=_auc(truth, probabilities, last_only=single and truth.shape[1] == 2),
        macro_f1_interval=interval,
    )


def _auc(truth: Marks, probabilities: Probabilities, *, last_only: bool) -> float | None:
    columns = [truth.shape[1] - 1] if last_only else range(truth.shape[1])
    told = [column for column in columns if 0 < truth[:, column].sum() < len(truth)]
    if not told:
        return None
    areas = [roc_auc_score(truth[:, column], probabilities[:, column]) for column in told]
    return float(np.mean(areas))
