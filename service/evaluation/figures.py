"""Everything that is told of a results folder, computed from its records alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.errors import Misconfigured
from service.evaluation import arbitration, intervals, metrics, strata, systems, trials
from service.evaluation.arbitration import Arbitration, Rate
from service.evaluation.folder import Measured
from service.evaluation.intervals import Interval, Marks, Weights
from service.evaluation.metrics import Probabilities, Score, Selective
from service.evaluation.record import CaseRecord
from service.evaluation.strata import Gain
from service.evaluation.systems import Systems
from specialists.task import Task, TaskKind

LEAST_TOLD = 0.5  # of all resamples
VALIDATION_SPLIT = "val"
LEARNED_FROM = {"train": "trained on", VALIDATION_SPLIT: "chosen on"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """GSCo against another system: macro-F1 of GSCo less the other's, and who is right more often.

    `p_value` is of a paired permutation test of accuracy by patients, corrected after Holm.
    """

    system: str
    macro_f1_less: Interval
    p_value: float


@dataclass(frozen=True, slots=True)
class LabelSets:
    """Of calibrated diagnoses: how often the label set holds the truth, and how large it is."""

    coverage: float
    held: Rate
    mean_size: float


@dataclass(frozen=True, slots=True)
class Review:
    """How many cases the service sends to a person, and how right it is about the others."""

    flagged: Rate
    right_when_not_flagged: Rate


@dataclass(frozen=True, eq=False)
class Figures:
    """What an evaluation comes to. Rates of arbitration are told of single-label tasks only."""

    task: Task
    measured: Measured
    truth: Marks
    systems: Systems
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    arbitration: Arbitration | None
    deceived: Mapping[str, Rate]
    strata: tuple[Gain, ...]
    selective: tuple[Selective, ...]
    review: Review
    label_sets: LabelSets | None
    broken: tuple[CaseRecord, ...]
    incomplete: int
    warnings: tuple[str, ...]


def figures(
    task: Task,
    measured: Measured,
    records: Sequence[CaseRecord],
    validation: Sequence[CaseRecord] = (),
) -> Figures:
    """All figures; raises Misconfigured where no case could be read."""
    broken = tuple(one for one in records if one.broken)
    whole = [one for one in records if not one.broken]
    if not whole:
        reason = broken[0].broken if broken else "none given"
        raise Misconfigured(f"no case to evaluate: {reason}")
    truth = systems.truth_of(task, whole)
    learned = [one for one in validation if not one.broken]
    found = systems.systems(task, whole, learned, _accuracies(measured))
    groups = [one.patient for one in whole]
    named = {name: systems.marks(task, name, table) for name, table in found.tables.items()}
    right = {name: metrics.right(task, truth, marks) for name, marks in named.items()}
    ours = found.tables[trials.GSCO]
    return Figures(
        task=task,
        measured=measured,
        truth=truth,
        systems=found,
        scores=_scores(task, truth, found, named, groups),
        comparisons=_comparisons(truth, named, right, groups),
        arbitration=_arbitration(task, truth, found),
        deceived=_deceived(truth, whole),
        strata=_strata(task, found, right, groups),
        selective=metrics.selective(task, truth, ours),
        review=_review(truth, named[trials.GSCO], whole),
        label_sets=_label_sets(truth, task, whole),
        broken=broken,
        incomplete=sum(bool(one.missing) for one in whole),
        warnings=(
            *_warnings(task, truth),
            *_of_the_split(measured),
            *_of_the_systems(found, whole, len(validation) - len(learned)),
        ),
    )


def _accuracies(measured: Measured) -> dict[str, float]:
    """By which the best single specialist is chosen: never on the very cases."""
    return {} if measured.split == VALIDATION_SPLIT else dict(measured.validation_accuracies)


def _scores(
    task: Task, truth: Marks, found: Systems, named: Mapping[str, Marks], groups: Sequence[int]
) -> tuple[Score, ...]:
    weights = intervals.resamples(groups)
    columns = metrics.told_columns(task, truth)
    scores = []
    for name, said in found.tables.items():
        right = metrics.right(task, truth, named[name])
        f1s = intervals.macro_f1s(truth, named[name], weights)
        scores.append(
            replace(
                metrics.score(task, name, truth, said, named[name]),
                macro_f1_interval=intervals.of_values(f1s),
                accuracy_interval=intervals.of_values(intervals.means(right, weights)),
                auc_interval=_auc_interval(truth, said, columns, weights),
            )
        )
    return tuple(scores)


def _auc_interval(
    truth: Marks, said: Probabilities, columns: Sequence[int], weights: Weights
) -> Interval | None:
    """None where hardly a resample has both sides of every label: rare ones are easily lost."""
    drawn = intervals.aucs(truth, said, columns, weights) if columns else np.array([])
    told = np.isfinite(drawn).sum()
    return intervals.of_values(drawn) if told >= LEAST_TOLD * len(weights) else None


def _comparisons(
    truth: Marks,
    named: Mapping[str, Marks],
    right: Mapping[str, NDArray[np.float64]],
    groups: Sequence[int],
) -> tuple[Comparison, ...]:
    weights = intervals.resamples(groups)
    ours = intervals.macro_f1s(truth, named[trials.GSCO], weights)
    others = [name for name in named if name != trials.GSCO]
    p_values = {name: intervals.p_value(right[trials.GSCO], right[name], groups) for name in others}
    corrected = intervals.holm(p_values)
    return tuple(
        Comparison(
            name,
            intervals.of_values(ours - intervals.macro_f1s(truth, named[name], weights)),
            corrected[name],
        )
        for name in others
    )


def _arbitration(task: Task, truth: Marks, found: Systems) -> Arbitration | None:
    if task.kind is not TaskKind.SINGLE_LABEL or systems.VOTE not in found.tables:
        return None
    said = (found.tables[name].argmax(axis=1) for name in (trials.ALONE, systems.VOTE, trials.GSCO))
    return arbitration.arbitration(truth.argmax(axis=1), *said)


def _deceived(truth: Marks, records: Sequence[CaseRecord]) -> dict[str, Rate]:
    """A label that is itself the truth is no deception: each trial has its own cases."""
    told = sorted({name for one in records for name in one.answers} - set(systems.GENERALIST))
    answers = {}
    for name in told:
        places = np.array([row for row, one in enumerate(records) if name in one.answers])
        said = np.array([np.argmax(records[row].answers[name]) for row in places])
        answers[name] = (places, said)
    return arbitration.deceived(truth.argmax(axis=1), answers)


def _strata(
    task: Task, found: Systems, right: Mapping[str, NDArray[np.float64]], groups: Sequence[int]
) -> tuple[Gain, ...]:
    if not found.specialists:
        return ()
    panel = np.stack([found.tables[name] for name in found.specialists])
    told = (*systems.TOGETHER, *systems.GENERALIST)
    return strata.gains(
        task, panel, {name: right[name] for name in told if name in right}, groups, trials.ALONE
    )


def _review(truth: Marks, named: Marks, records: Sequence[CaseRecord]) -> Review:
    flagged = np.array([bool(one.review_reasons) for one in records])
    right = (truth == named).all(axis=1)
    return Review(
        Rate(int(flagged.sum()), len(flagged)),
        Rate(int((right & ~flagged).sum()), int((~flagged).sum())),
    )


def _label_sets(truth: Marks, task: Task, records: Sequence[CaseRecord]) -> LabelSets | None:
    """Where several labels hold, the set must hold them all."""
    rows = [row for row, one in enumerate(records) if one.label_set]
    if not rows or len(rows) < len(records):
        return None
    kept = np.array([[name in one.label_set for name in task.label_names] for one in records])
    held = int((kept | ~truth).all(axis=1).sum())
    size = float(kept.sum(axis=1).mean())
    return LabelSets(records[0].coverage or 0.0, Rate(held, len(records)), size)


def _warnings(task: Task, truth: Marks) -> list[str]:
    absent = [
        name for name, count in zip(task.label_names, truth.sum(axis=0), strict=True) if not count
    ]
    told = [f"no case bears {name!r}: its figures count as 0 in macro-F1" for name in absent]
    if not metrics.told_columns(task, truth):
        told.append("the AUC is undefined: all cases bear the same label")
    return told


def _of_the_split(measured: Measured) -> list[str]:
    if measured.specialists_from != measured.task or measured.split not in LEARNED_FROM:
        return []
    how = LEARNED_FROM[measured.split]
    return [f"specialists that learned from this data were {how} these cases: figures flatter them"]


def _of_the_systems(found: Systems, records: Sequence[CaseRecord], lost: int) -> list[str]:
    told = [f"{lost} validation cases cannot be read and are left out"] if lost else []
    alone = sum(not one.neighbours for one in records)
    if alone and systems.NEIGHBOURS not in found.tables:
        told.append(f"no neighbours' vote: {alone} of {len(records)} cases have no neighbour")
    return told
