"""How far a figure could have been another with other cases: bootstrap intervals.

Groups (patients) are resampled, not images, where they are known. All resamples are weighed at
once: macro-F1 needs only three counts per label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
SEED = 20261121
LOW, HIGH = 2.5, 97.5

Marks = NDArray[np.bool_]  # (cases, labels): what holds, or what is named


@dataclass(frozen=True, slots=True)
class Interval:
    """The central 95 % of the resampled values."""

    low: float
    high: float


def resamples(groups: Sequence[str], count: int = RESAMPLES) -> NDArray[np.float64]:
    """(resamples, cases): how often each case is drawn when its group is."""
    names, members = np.unique(np.asarray(groups), return_inverse=True)
    rng = np.random.default_rng(SEED)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)
    return drawn[:, members].astype(np.float64)


def macro_f1s(truth: Marks, named: Marks, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(resamples,): macro-F1 over the labels of each resample; a label never met counts 0."""
    hits, said, there = (weights @ marks for marks in (truth & named, named, truth))
    total = said + there
    scores = np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(scores.mean(axis=1))


def of_values(values: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values, (LOW, HIGH))
    return Interval(float(low), float(high))


def intervals(
    truth: Marks, named: Mapping[str, Marks], groups: Sequence[str]
) -> dict[str, Interval]:
    """Of every system's macro-F1."""
    weights = resamples(groups)
    return {system: of_values(macro_f1s(truth, marks, weights)) for system, marks in named.items()}


def differences(
    truth: Marks, named: Mapping[str, Marks], groups: Sequence[str], best: str
) -> dict[str, Interval]:
    """Of macro-F1 of `best` less that of every other system, on the same resamples."""
    weights = resamples(groups)
    ours = macro_f1s(truth, named[best], weights)
    return {
        system: of_values(ours - macro_f1s(truth, marks, weights))
        for system, marks in named.items()
        if system != best
    }
