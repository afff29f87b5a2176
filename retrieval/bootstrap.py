"""Macro-averaged F1 with an interval: patients, not images, are drawn with replacement."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
SEED = 20261

Labels = tuple[str, ...]
Counts = NDArray[np.float64]  # (groups, labels, 3): true positives, false positives, misses


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def counts(
    told: Sequence[Labels], truth: Sequence[Labels], groups: Sequence[str], labels: Sequence[str]
) -> Counts:
    """What every group adds to the figures of every label; groups in the order of their names."""
    rows = {name: row for row, name in enumerate(sorted(set(groups)))}
    columns = {label: column for column, label in enumerate(labels)}
    table = np.zeros((len(rows), len(columns), 3))
    for said, true, group in zip(told, truth, groups, strict=True):
        for label in set(said) | set(true):
            kind = 0 if label in said and label in true else 1 if label in said else 2
            table[rows[group], columns[label], kind] += 1
    return table


def macro_f1(table: Counts) -> Estimate:
    """The figure of one system."""
    draws = _f1(_drawn(table))
    return _estimate(float(_f1(table.sum(axis=0)[None])[0]), draws)


def difference(first: Counts, second: Counts) -> Estimate:
    """How much higher the first system's figure is; both are judged on the same draws."""
    whole = _f1(first.sum(axis=0)[None])[0] - _f1(second.sum(axis=0)[None])[0]
    return _estimate(float(whole), _f1(_drawn(first)) - _f1(_drawn(second)))


def _drawn(table: Counts) -> Counts:
    """Sums over groups drawn with replacement: (draws, labels, 3); the same draws every time."""
    random = np.random.default_rng(SEED)
    times = random.multinomial(len(table), np.full(len(table), 1 / len(table)), size=DRAWS)
    return np.tensordot(times.astype(np.float64), table, axes=1)


def _f1(sums: Counts) -> NDArray[np.float64]:
    """Labels that occur neither in truth nor in what was told count in no draw."""
    hits, wrong, missed = sums[..., 0], sums[..., 1], sums[..., 2]
    occurring = 2 * hits + wrong + missed
    each = np.divide(2 * hits, occurring, out=np.full_like(hits, np.nan), where=occurring > 0)
    present = np.maximum((occurring > 0).sum(axis=-1), 1)
    return np.asarray(np.nansum(each, axis=-1) / present)


def _estimate(value: float, draws: NDArray[np.float64]) -> Estimate:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Estimate(value, float(low), float(high))
