"""How far a figure could have been another with other cases: bootstrap intervals and tests.

Patients are resampled, not images, where they are known. All resamples are weighed at once:
macro-F1 needs only three counts per label, AUC only ranks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test

RESAMPLES = 2000
PERMUTATIONS = 9999
SEED = 20261121
LOW, HIGH = 2.5, 97.5
AT_ONCE = 500

Marks = NDArray[np.bool_]  # (cases, labels): what holds, or what is named
Groups = Sequence[str] | Sequence[int]  # of each case, its patient
Weights = NDArray[np.float64]  # (resamples, cases): how often each case was drawn


@dataclass(frozen=True, slots=True)
class Interval:
    """The central 95 % of the resampled values."""

    low: float
    high: float


def resamples(groups: Groups, count: int = RESAMPLES) -> Weights:
    """How often each case is drawn when its group is."""
    names, members = np.unique(np.asarray(groups), return_inverse=True)
    rng = np.random.default_rng(SEED)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)
    return drawn[:, members].astype(np.float64)


def macro_f1s(truth: Marks, named: Marks, weights: Weights) -> NDArray[np.float64]:
    """(resamples,): macro-F1 over the labels that each resample has, borne or named.

    A label that no case has at all counts 0, as in the figure itself.
    """
    hits, said, there = (weights @ marks for marks in (truth & named, named, truth))
    total = said + there
    never = ~(truth | named).any(axis=0)
    absent = np.where(never, 0.0, np.nan) * np.ones_like(total)
    scores = np.divide(2 * hits, total, out=absent, where=total > 0)
    return np.asarray(np.nanmean(scores, axis=1))


def means(values: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """(resamples,): the mean of the values (cases,) of each resample."""
    return np.asarray(weights @ values / weights.sum(axis=1))


def aucs(
    truth: Marks, said: NDArray[np.float64], columns: Sequence[int], weights: Weights
) -> NDArray[np.float64]:
    """(resamples,): mean AUC of these columns; nan where a resample has only one side of one."""
    return np.asarray(np.mean([_auc(truth[:, c], said[:, c], weights) for c in columns], axis=0))


def of_values(values: NDArray[np.float64]) -> Interval:
    """What is nan has no value in that resample and is left out."""
    low, high = np.nanpercentile(values, (LOW, HIGH))
    return Interval(float(low), float(high))


def p_value(ours: NDArray[np.float64], theirs: NDArray[np.float64], groups: Groups) -> float:
    """Of a paired permutation test that both are right equally often (cases,), by patients."""
    members = np.unique(np.asarray(groups), return_inverse=True)[1]
    difference = np.bincount(members, weights=ours - theirs)
    changed = difference[difference != 0]  # the others add nothing, whichever way they are turned
    if len(changed) < 2:
        return 1.0
    found = permutation_test(
        (changed,),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        n_resamples=PERMUTATIONS,
        vectorized=True,
        batch=AT_ONCE,
        rng=np.random.default_rng(SEED),
    )
    return float(found.pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Corrected for their number, step by step (Holm, 1979)."""
    corrected: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}


def _auc(
    truth: NDArray[np.bool_], said: NDArray[np.float64], weights: Weights
) -> NDArray[np.float64]:
    """Weighted Mann–Whitney: of each positive, the weight of negatives below, ties by half."""
    order = np.argsort(said, kind="stable")
    starts = np.flatnonzero(np.diff(said[order], prepend=-np.inf))  # of each run of equal values
    drawn, holds = weights[:, order], truth[order]
    positive = np.add.reduceat(drawn * holds, starts, axis=1)
    negative = np.add.reduceat(drawn * ~holds, starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    wins = (positive * below).sum(axis=1)
    shares: NDArray[np.float64] = np.divide(
        wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0
    )
    return shares
