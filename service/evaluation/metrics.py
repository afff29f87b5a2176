"""Accuracy, macro-F1 and AUC of probability tables, with MedMNIST's semantics."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

Probabilities = NDArray[np.float64]  # (cases, labels)
Targets = NDArray[np.int64]  # (cases,) label indices


@dataclass(frozen=True, slots=True)
class Score:
    """How one system did; `auc` is None where the truth holds fewer than two labels."""

    system: str
    cases: int
    accuracy: float
    macro_f1: float
    auc: float | None


def score(system: str, targets: Targets, probabilities: Probabilities) -> Score:
    """The label named is the likeliest; AUC is one-vs-rest macro (binary: the last label's)."""
    named = probabilities.argmax(axis=1)
    labels = np.arange(probabilities.shape[1])
    return Score(
        system=system,
        cases=len(targets),
        accuracy=float(accuracy_score(targets, named)),
        macro_f1=float(f1_score(targets, named, labels=labels, average="macro", zero_division=0)),
        auc=_auc(targets, probabilities),
    )


def _auc(targets: Targets, probabilities: Probabilities) -> float | None:
    present = np.unique(targets)
    if len(present) < 2:
        return None
    areas = [_area(targets == label, probabilities[:, label]) for label in present]
    return areas[-1] if probabilities.shape[1] == 2 else float(np.mean(areas))


def _area(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    return float(roc_auc_score(truth, scores))
