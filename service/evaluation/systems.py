"""What every system says of the same cases, as tables of probabilities (cases, labels)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier

from service.evaluation import metrics, trials
from service.evaluation.intervals import Marks
from service.evaluation.record import CaseRecord
from specialists.task import Task, TaskKind

BEST_SINGLE = "best single (validation)"
AVERAGE = "probability average"
VOTE = "majority vote"
STACKED = "stacked regression (validation)"
NEIGHBOURS = "neighbours' vote"
TOGETHER = (BEST_SINGLE, VOTE, AVERAGE, STACKED, NEIGHBOURS)
GENERALIST = (trials.ALONE, trials.MOED_ONLY, trials.RAD_ONLY, trials.GSCO)
LEAST_PROBABILITY = 1e-4

Probabilities = NDArray[np.float64]  # (cases, labels)


@dataclass(frozen=True, eq=False)
class Systems:
    """Every system by its name, in the order of tables; `best_single` names that specialist."""

    tables: dict[str, Probabilities]
    specialists: tuple[str, ...]
    best_single: str | None


def truth_of(task: Task, records: Sequence[CaseRecord]) -> Marks:
    """(cases, labels): what holds."""
    return np.array([[name in one.labels for name in task.label_names] for one in records])


def marks(task: Task, system: str, table: Probabilities) -> Marks:
    """(cases, labels): what a system names; of votes, what more than half of them name."""
    voted = system in (VOTE, NEIGHBOURS)
    return metrics.marks(replace(task, thresholds=()) if voted else task, table)


def systems(
    task: Task,
    records: Sequence[CaseRecord],
    validation: Sequence[CaseRecord],
    accuracies: dict[str, float],
) -> Systems:
    """Specialists that answered every case, what can be made of them, and the generalist's.

    The best single one is chosen by `accuracies` on validation, the stacked regression is fitted
    there: nothing is chosen on these cases.
    """
    names = tuple(
        name for name in records[0].specialists if all(name in one.specialists for one in records)
    )
    tables = {name: np.array([one.specialists[name] for one in records]) for name in names}
    best = max(
        (name for name in names if name in accuracies), key=accuracies.__getitem__, default=None
    )
    if names:
        panel = np.stack(list(tables.values()))
        if best:
            tables[BEST_SINGLE] = tables[best]
        tables[VOTE] = _votes(task, panel)
        tables[AVERAGE] = panel.mean(axis=0)
        if validation:
            tables[STACKED] = _stacked(task, names, validation, panel)
    if all(one.neighbours for one in records):
        tables[NEIGHBOURS] = np.array([_neighbours(task, one) for one in records])
    for name in GENERALIST:
        if all(name in one.answers for one in records):
            tables[name] = np.array([one.answers[name] for one in records])
    return Systems(tables, names, best)


def _votes(task: Task, panel: Probabilities) -> Probabilities:
    """The share of specialists naming each label."""
    return np.asarray(np.mean([metrics.marks(task, one) for one in panel], axis=0))


def _neighbours(task: Task, one: CaseRecord) -> list[float]:
    count = len(one.neighbours)
    return [
        sum(name in known.labels for known in one.neighbours) / count for name in task.label_names
    ]


def _stacked(
    task: Task, names: Sequence[str], validation: Sequence[CaseRecord], panel: Probabilities
) -> Probabilities:
    """Logistic regression on the specialists' log-probabilities of the validation split."""
    learned = np.stack([[one.specialists[name] for one in validation] for name in names])
    learned = learned.reshape(len(names), len(validation), -1)
    truth = truth_of(task, validation)
    single = task.kind is TaskKind.SINGLE_LABEL
    model = LogisticRegression(C=0.1, max_iter=5000)
    if not single:
        return _several(model, learned, truth, panel)
    fitted = model.fit(_features(learned), truth.argmax(axis=1))
    found = np.zeros(panel.shape[1:])
    found[:, fitted.classes_] = fitted.predict_proba(_features(panel))
    return found


def _several(
    model: LogisticRegression, learned: Probabilities, truth: Marks, panel: Probabilities
) -> Probabilities:
    """One regression per label; a label that all or no validation cases bear keeps that share."""
    found = np.tile(truth.mean(axis=0), (panel.shape[1], 1))
    varied = np.flatnonzero((truth.mean(axis=0) > 0) & (truth.mean(axis=0) < 1))
    if len(varied):
        fitted = MultiOutputClassifier(model).fit(_features(learned), truth[:, varied])
        told = fitted.predict_proba(_features(panel))
        found[:, varied] = np.stack([one[:, 1] for one in told], axis=1)
    return found


def _features(panel: Probabilities) -> Probabilities:
    """(specialists, cases, labels) → (cases, specialists · labels)"""
    logs = np.log(np.clip(panel, LEAST_PROBABILITY, 1))
    return np.moveaxis(logs, 0, 1).reshape(panel.shape[1], -1)
