"""Does retrieval help on a task? Asked of the reference cases themselves. Everything here blocks.

The groups (patients) are dealt into folds. Every case is looked up among the cases of the other
folds, with the vectors stored for it, and its labels are told by a vote of its neighbours: fused
over all specialists as the service fuses them, and by every specialist alone. That is compared
with always telling the commonest labels of the other folds (the prior).
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from retrieval import database, fusion
from retrieval.bootstrap import Counts, Estimate, Labels, counts, difference, macro_f1
from retrieval.errors import NothingToAssess
from retrieval.fusion import CUT, Ranking
from retrieval.retriever import DEPTH, NEIGHBOURS
from retrieval.vectors import Vectors, unit

FOLDS = 5
FEWEST_GROUPS = 20
MOST_CASES = 5_000
"""Of more cases, so many are asked, whole groups chosen by the hash of their name."""

OnProgress = Callable[[int, int], None]


class Verdict(StrEnum):
    """What the figures say of similar cases on this task."""

    HELPS = "helps"
    UNDECIDED = "undecided"
    DOES_NOT_HELP = "does not help"


@dataclass(frozen=True, slots=True)
class Assessment:
    """Macro-averaged F1 with 95 % intervals. `single` is the best specialist, chosen knowing the
    answers, which favours it over the fused neighbours."""

    task: str
    cases: int
    groups: int
    folds: int
    neighbours: int
    prior: Estimate
    fused: Estimate
    singles: Mapping[str, Estimate]
    single: str
    over_prior: Estimate
    over_single: Estimate

    @property
    def verdict(self) -> Verdict:
        """Similar cases help where their vote beats the prior beyond doubt."""
        if self.over_prior.low > 0:
            return Verdict.HELPS
        return Verdict.UNDECIDED if self.over_prior.value > 0 else Verdict.DOES_NOT_HELP


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """The cases that every specialist has embedded."""

    labels: tuple[Labels, ...]
    groups: tuple[str, ...]
    folds: NDArray[np.int_]
    vectors: Mapping[str, Vectors]


def assess(
    engine: Engine,
    task: str,
    *,
    neighbours: int = NEIGHBOURS,
    folds: int = FOLDS,
    on_progress: OnProgress | None = None,
) -> Assessment:
    """Raises NothingToAssess where there are too few patients, or no labels to be told."""
    known = _known(engine, task, folds)
    names = sorted({label for labels in known.labels for label in labels})
    told: dict[str, list[Labels]] = {name: [] for name in ("", *known.vectors)}
    prior: list[Labels] = []
    for place in range(len(known.labels)):
        if on_progress and place % 100 == 0:
            on_progress(place, len(known.labels))
        others = known.folds != known.folds[place]
        common = _commonest(known, int(known.folds[place]))
        rankings = [_ranking(known, name, place, others, neighbours) for name in known.vectors]
        prior.append(common)
        told[""].append(_vote(known, rankings, neighbours, common))
        for ranking in rankings:
            told[ranking.retriever].append(_vote(known, [ranking], neighbours, common))

    def judged(answers: Sequence[Labels]) -> Counts:
        return counts(answers, known.labels, known.groups, names)

    tables = {name: judged(answers) for name, answers in told.items()}
    singles = {name: macro_f1(tables[name]) for name in known.vectors}
    best = max(singles, key=lambda name: singles[name].value)
    return Assessment(
        task,
        len(known.labels),
        len(set(known.groups)),
        folds,
        neighbours,
        macro_f1(judged(prior)),
        macro_f1(tables[""]),
        singles,
        best,
        difference(tables[""], judged(prior)),
        difference(tables[""], tables[best]),
    )


def _known(engine: Engine, task: str, folds: int) -> _Known:
    rows = _chosen(database.labelled(engine, task))
    vectors = _vectors(engine, task, np.array(sorted(key for key, _, _ in rows), np.int64))
    rows = [row for row in rows if all(row[0] in some for some in vectors.values())]
    groups = tuple(group for _, group, _ in rows)
    if not vectors or len(set(groups)) < FEWEST_GROUPS:
        raise NothingToAssess(
            f"task {task!r}: {len(set(groups)) if vectors else 0} patients have reference cases "
            f"with labels and vectors of every specialist; {FEWEST_GROUPS} are needed"
        )
    dealt = {group: number % folds for number, group in enumerate(sorted(set(groups), key=_hash))}
    return _Known(
        tuple(labels for _, _, labels in rows),
        groups,
        np.array([dealt[group] for group in groups]),
        {name: unit(np.stack([some[key] for key, _, _ in rows])) for name, some in vectors.items()},
    )


def _chosen(rows: Sequence[tuple[int, str, Labels]]) -> list[tuple[int, str, Labels]]:
    sizes = Counter(group for _, group, _ in rows)
    kept: set[str] = set()
    total = 0
    for group in sorted(sizes, key=_hash):
        if total >= MOST_CASES:
            break
        kept.add(group)
        total += sizes[group]
    return [row for row in rows if row[1] in kept]


def _vectors(
    engine: Engine, task: str, keys: NDArray[np.int64]
) -> dict[str, dict[int, NDArray[np.float32]]]:
    """By specialist and key, of the weights whose vectors were stored last."""
    names = sorted({one.specialist for one in database.stored_vectors(engine) if one.task == task})
    encoders = {name: database.latest_encoder(engine, task, name) or "" for name in names}
    return {
        name: dict(database.vectors(engine, task, name, encoder, keys))
        for name, encoder in encoders.items()
    }


def _ranking(
    known: _Known, specialist: str, place: int, others: NDArray[np.bool_], neighbours: int
) -> Ranking:
    """The nearest cases of other folds, by their places."""
    vectors = known.vectors[specialist]
    similarities = np.where(others, vectors @ vectors[place], -np.inf)
    best = np.argsort(-similarities, kind="stable")[: min(DEPTH * neighbours, int(others.sum()))]
    return Ranking(specialist, tuple(best.tolist()), tuple(similarities[best].tolist()))


def _vote(known: _Known, rankings: list[Ranking], neighbours: int, common: Labels) -> Labels:
    """The labels most neighbours agree on: sets of labels are told as a whole.

    Equal shares go to the nearer neighbours' labels. Without neighbours: what is common.
    """
    near = fusion.within_cut(fusion.fuse(rankings), CUT)[:neighbours]
    said = [known.labels[one.key] for one in near]
    return Counter(said).most_common(1)[0][0] if said else common


def _commonest(known: _Known, fold: int) -> Labels:
    """The labels most cases of the other folds have."""
    pairs = zip(known.labels, known.folds.tolist(), strict=True)
    return Counter(labels for labels, other in pairs if other != fold).most_common(1)[0][0]


def _hash(group: str) -> str:
    return hashlib.sha256(group.encode()).hexdigest()
