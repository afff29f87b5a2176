"""Easy and hard cases, by how much the specialists agree; and what each system gains there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.evaluation import intervals
from service.evaluation.intervals import Interval
from specialists.task import Task, TaskKind

LEAST = 1e-12
NAMES = ("easiest third", "middle third", "hardest third")


@dataclass(frozen=True, slots=True)
class Gain:
    """A system's accuracy in one stratum, and how much of it the generalist alone lacks."""

    stratum: str
    system: str
    cases: int
    accuracy: float
    gain: float
    interval: Interval


def difficulty(task: Task, panel: NDArray[np.float64]) -> NDArray[np.float64]:
    """(specialists, cases, labels) → (cases,): how divided, then how unsure, the panel is.

    The entropy of the specialists' mean probability: it is high both where they disagree and where
    each of them is unsure. Where several labels may hold, each is a question of its own, and the
    entropies of yes and no are added up.
    """
    mean = panel.mean(axis=0)
    if task.kind is TaskKind.SINGLE_LABEL:
        return _entropy(mean / mean.sum(axis=1, keepdims=True).clip(LEAST))
    return _entropy(mean) + _entropy(1 - mean)


def gains(
    task: Task,
    panel: NDArray[np.float64],
    right: Mapping[str, NDArray[np.float64]],
    groups: Sequence[int],
    baseline: str,
) -> tuple[Gain, ...]:
    """Every system's accuracy less that of `baseline`, from the easiest third to the hardest."""
    order = np.argsort(difficulty(task, panel), kind="stable")
    found = []
    for name, places in zip(NAMES, np.array_split(order, len(NAMES)), strict=True):
        if not len(places):
            continue
        weights = intervals.resamples([groups[place] for place in places])
        for system, hits in right.items():
            more = hits[places] - right[baseline][places]
            spread = intervals.of_values(intervals.means(more, weights))
            found.append(
                Gain(
                    name,
                    system,
                    len(places),
                    float(hits[places].mean()),
                    float(more.mean()),
                    spread,
                )
            )
    return tuple(found)


def _entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-(shares * np.log(shares.clip(LEAST))).sum(axis=1))
