"""How far readers agree, and which system they prefer: statistics of ranks.

Ranks are numbers of which 1 is the best; equal ones are ties. Intervals resample cases, with all
their readings, because readings of one case resemble each other; they speak for these readers.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, chi2, rankdata

from service.evaluation import intervals
from service.evaluation.intervals import HIGH, LOW, Interval

Ranks = NDArray[np.float64]  # (judges, systems), or (readings, systems)
Key = TypeVar("Key", int, str)


@dataclass(frozen=True, slots=True)
class Reading:
    """One reader's ranks of one case, in the order of the study's systems."""

    reader: int
    case: str
    ranks: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Concordance:
    """Kendall's W, from 0 to 1, and its chi-square test; `p` tends to be too large for few judges.

    Of several tables taken together, `w` is the mean, and `chi_square` and `degrees` are sums.
    The test asks whether rankings drawn at random would agree as much.
    """

    w: float
    chi_square: float
    degrees: int
    p: float
    tables: int = 1


@dataclass(frozen=True, slots=True)
class MeanRank:
    """`interval` is None for fewer than two cases."""

    system: str
    mean: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Preference:
    """The share of readings in which `first` has the better rank than `second`, a tie counting
    half; `readers` of `of_readers` put it first on average, those who put both level half."""

    first: str
    second: str
    share: float
    interval: Interval | None
    better: int
    ties: int
    worse: int
    readers: float
    of_readers: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the readings say; a concordance is None where it is undefined.

    `across_readers`: each reader is one judge, by the mean ranks given. `by_case`: the readers of
    a case are its judges, all cases taken together. `within_readers`: a reader's cases are the
    judges, all readers taken together; `by_reader` has each of them.
    """

    readers: int
    cases: int
    readings: int
    mean_ranks: tuple[MeanRank, ...]
    preferences: tuple[Preference, ...]
    across_readers: Concordance | None
    by_case: Concordance | None
    within_readers: Concordance | None
    by_reader: dict[int, Concordance | None]


def kendall(ranks: ArrayLike) -> Concordance | None:
    """W of ranks (judges, systems), corrected for ties (Kendall and Gibbons, 1990, chapter 6).

    None for fewer than two judges, and where every judge puts all systems level.
    """
    table = rankdata(np.asarray(ranks, dtype=np.float64), axis=1)
    judges, systems = table.shape
    spread = float(((table.sum(axis=0) - judges * (systems + 1) / 2) ** 2).sum())
    most = judges**2 * (systems**3 - systems) - judges * sum(map(_tied, table))
    if judges < 2 or most <= 0:
        return None
    w = 12 * spread / most
    return _tested(w, judges * (systems - 1) * w, systems - 1)


def analyse(systems: Sequence[str], readings: Sequence[Reading]) -> Agreement:
    """Everything of a study: `readings` hold a rank per system, at least one reading."""
    ranks = rankdata(np.array([one.ranks for one in readings], dtype=np.float64), axis=1)
    cases, readers = [one.case for one in readings], [one.reader for one in readings]
    of_readers = np.array([rows.mean(axis=0) for rows in _grouped(ranks, readers).values()])
    by_reader = {reader: kendall(rows) for reader, rows in _grouped(ranks, readers).items()}
    return Agreement(
        readers=len(by_reader),
        cases=len(set(cases)),
        readings=len(readings),
        mean_ranks=_mean_ranks(systems, ranks, cases),
        preferences=_preferences(systems, ranks, cases, of_readers),
        across_readers=kendall(of_readers),
        by_case=_together([kendall(rows) for rows in _grouped(ranks, cases).values()]),
        within_readers=_together(list(by_reader.values())),
        by_reader=by_reader,
    )


def _tied(row: NDArray[np.float64]) -> int:
    counts = np.unique(row, return_counts=True)[1].astype(int)
    return int((counts**3 - counts).sum())


def _tested(w: float, chi_square: float, degrees: int, tables: int = 1) -> Concordance:
    return Concordance(w, chi_square, degrees, float(chi2.sf(chi_square, degrees)), tables)


def _together(found: Sequence[Concordance | None]) -> Concordance | None:
    """The mean W; sums of independent chi-squares are chi-square, with the sum of degrees."""
    told = [one for one in found if one]
    if not told:
        return None
    total, degrees = sum(one.chi_square for one in told), sum(one.degrees for one in told)
    return _tested(fmean(one.w for one in told), total, degrees, len(told))


def _grouped(ranks: Ranks, keys: Sequence[Key]) -> dict[Key, Ranks]:
    rows: defaultdict[Key, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        rows[key].append(row)
    return {key: ranks[chosen] for key, chosen in rows.items()}


def _mean_ranks(systems: Sequence[str], ranks: Ranks, cases: Sequence[str]) -> tuple[MeanRank, ...]:
    """The best first."""
    spread = _intervals(ranks, cases)
    rows = map(MeanRank, systems, map(float, ranks.mean(axis=0)), spread)
    return tuple(sorted(rows, key=lambda row: row.mean))


def _preferences(
    systems: Sequence[str], ranks: Ranks, cases: Sequence[str], of_readers: Ranks
) -> tuple[Preference, ...]:
    """Of every ordered pair."""
    pairs = [(a, b) for a in range(len(systems)) for b in range(len(systems)) if a != b]
    points = np.stack([_points(ranks, a, b) for a, b in pairs], axis=1)
    spread = _intervals(points, cases)
    return tuple(
        Preference(
            first=systems[a],
            second=systems[b],
            share=float(points[:, pair].mean()),
            interval=_unanimous(points[:, pair], len(set(cases))) or spread[pair],
            better=int((points[:, pair] == 1).sum()),
            ties=int((points[:, pair] == 0.5).sum()),
            worse=int((points[:, pair] == 0).sum()),
            readers=float(_points(of_readers, a, b).sum()),
            of_readers=len(of_readers),
        )
        for pair, (a, b) in enumerate(pairs)
    )


def _points(ranks: Ranks, first: int, second: int) -> NDArray[np.float64]:
    """1 where the first has the better rank, 0.5 for a tie, else 0."""
    return np.asarray((1 + np.sign(ranks[:, second] - ranks[:, first])) / 2)


def _intervals(values: Ranks, cases: Sequence[str]) -> list[Interval] | list[None]:
    """Of the mean of each column, cases resampled."""
    if len(set(cases)) < 2:
        return [None] * values.shape[1]
    weights = intervals.resamples(cases)
    means = weights @ values / weights.sum(axis=1, keepdims=True)
    return [intervals.of_values(column) for column in means.T]


def _unanimous(points: NDArray[np.float64], cases: int) -> Interval | None:
    """Where no reading says otherwise every resample is the same: the exact binomial interval
    of the cases (Clopper and Pearson, 1934) instead of a point."""
    if (points == 1).all():
        return Interval(float(beta.ppf(LOW / 100, cases, 1)), 1.0)
    if (points == 0).all():
        return Interval(0.0, float(beta.ppf(HIGH / 100, 1, cases)))
    return None
