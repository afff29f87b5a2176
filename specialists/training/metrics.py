"""How well probabilities match targets, with MedMNIST's meaning of accuracy and AUC."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

from specialists.task import Task, TaskKind
from specialists.training.split import Targets, marked

Probabilities = NDArray[np.float32]  # (images, labels)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Shares from 0 to 1; `auc` is None where no label has both kinds of cases."""

    accuracy: float
    macro_f1: float
    auc: float | None

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


def measure(task: Task, probabilities: Probabilities, targets: Targets) -> Metrics:
    """Metrics of one set of predictions.

    As MedMNIST's evaluator: for several labels, the mean over labels of the accuracy at the
    threshold; for one, the share of right arg-maxes. AUC is the mean over labels of one against the
    rest, and for two exclusive labels that of the last. Source: MedMNIST v2, medmnist/evaluator.py.
    """
    marks, truth = choices(task, probabilities), marked(task, targets)
    if task.kind == TaskKind.MULTI_LABEL:
        accuracy = float((marks == truth).mean())
    else:
        accuracy = float((marks & truth).any(axis=1).mean())
    f1 = f1_score(truth, marks, average="macro", zero_division=0)
    return Metrics(accuracy, float(f1), _auc(task, probabilities, truth))


def choices(task: Task, probabilities: Probabilities) -> NDArray[np.bool_]:
    """(images, labels): the labels named, by arg-max or by the task's thresholds."""
    if task.kind == TaskKind.MULTI_LABEL:
        return np.asarray(probabilities > np.array(task.thresholds or 0.5))
    return marked(task, probabilities.argmax(axis=1))


def _auc(task: Task, probabilities: Probabilities, truth: NDArray[np.bool_]) -> float | None:
    columns = range(truth.shape[1])
    if task.kind != TaskKind.MULTI_LABEL and len(columns) == 2:
        columns = range(1, 2)
    defined = [column for column in columns if 0 < truth[:, column].sum() < len(truth)]
    if not defined:
        return None
    areas = [roc_auc_score(truth[:, column], probabilities[:, column]) for column in defined]
    return float(np.mean(areas))
