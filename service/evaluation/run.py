"""Labelled cases through the product's own pipeline, and every system's score on them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.domain import Case, Diagnosis, predicted_labels, vote
from service.errors import GscoError
from service.evaluation import arbitration, intervals
from service.evaluation.arbitration import Arbitration, Rate
from service.evaluation.biased import BiasedPanel, wrong_label
from service.evaluation.intervals import Interval, Marks
from service.evaluation.metrics import Score, marks, score
from service.pipeline import Pipeline
from specialists.task import Task, TaskKind

AT_ONCE = 4
OURS = "GSCo"
BEST_SINGLE = "best single (validation)"


@dataclass(frozen=True, slots=True, eq=False)
class LabelledCase:
    case: Case
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Every system on the same cases; `less` are the intervals of GSCo's macro-F1 less another's.

    `best_single` names the specialist that was best on validation. Rates of arbitration are told
    of single-label tasks only; `biased` where the panel was also asked with one wrong mind.
    """

    scores: tuple[Score, ...]
    less: dict[str, Interval]
    best_single: str | None
    arbitration: Arbitration | None
    biased: Rate | None = None


async def diagnose_all(
    pipeline: Pipeline, cases: Sequence[LabelledCase], on_case: Callable[[], None]
) -> list[Diagnosis]:
    """A diagnosis per case, in their order; `on_case` is called after each."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(labelled: LabelledCase) -> Diagnosis:
        async with gate:
            diagnosis = await pipeline.diagnose(labelled.case)
            on_case()
            return diagnosis

    return list(await asyncio.gather(*(one(case) for case in cases)))


def with_biased_panel(pipeline: Pipeline, cases: Sequence[LabelledCase]) -> Pipeline:
    """The pipeline with a panel that names, of every case, one and the same wrong label."""
    wrong = {}
    for labelled in cases:
        names = labelled.case.task.label_names
        truth = names.index(labelled.labels[0])
        place = wrong_label(labelled.case.id, truth, len(names))
        wrong[labelled.case.image.pixels_sha256] = place
    return replace(pipeline, specialists=BiasedPanel(pipeline.specialists, wrong))


def evaluate(
    task: Task,
    diagnoses: Sequence[Diagnosis],
    cases: Sequence[LabelledCase],
    biased: Sequence[Diagnosis] | None = None,
) -> Evaluation:
    """Each specialist, best single, votes, the generalist alone and GSCo, with intervals."""
    if not diagnoses:
        raise GscoError("no cases to evaluate")
    truth = truth_of(task, cases)
    table = systems(task, diagnoses)
    named = {name: marks(task, probabilities) for name, probabilities in table.items()}
    groups = [case.case.group or case.case.id for case in cases]
    spread = intervals.intervals(truth, named, groups)
    return Evaluation(
        scores=tuple(score(task, name, truth, p, spread[name]) for name, p in table.items()),
        less=intervals.differences(truth, named, groups, OURS),
        best_single=_best_single(diagnoses),
        arbitration=_arbitration(task, truth, diagnoses),
        biased=_biased(task, truth, biased),
    )


def truth_of(task: Task, cases: Sequence[LabelledCase]) -> Marks:
    """(cases, labels): what holds."""
    return np.array([[name in case.labels for name in task.label_names] for case in cases])


def systems(task: Task, diagnoses: Sequence[Diagnosis]) -> dict[str, NDArray[np.float64]]:
    """What every system says of the same cases: name → (cases, labels) probabilities."""
    table: dict[str, NDArray[np.float64]] = {}
    for specialist in _complete_specialists(diagnoses):
        table[specialist] = np.array([_of(d, specialist) for d in diagnoses])
    if table:
        panel = np.stack(list(table.values()))
        if best := _best_single(diagnoses):
            table[BEST_SINGLE] = table[best]
        table["probability average"] = panel.mean(axis=0)
        table["majority vote"] = np.array([_vote_shares(task, d) for d in diagnoses])
    if all(d.evidence.rad for d in diagnoses):
        table["neighbours' vote"] = np.array([_neighbour_shares(d) for d in diagnoses])
    table["generalist alone"] = np.array([d.initial.probabilities for d in diagnoses])
    table[OURS] = np.array([d.final.probabilities for d in diagnoses])
    return table


def _best_single(diagnoses: Sequence[Diagnosis]) -> str | None:
    """By the figure on validation, never on these cases; the earlier of equals."""
    complete = _complete_specialists(diagnoses)
    known = {
        p.specialist: p.validation_accuracy
        for p in diagnoses[0].evidence.moed
        if p.specialist in complete and p.validation_accuracy is not None
    }
    return max(known, key=lambda name: known[name]) if known else None


def _arbitration(task: Task, truth: Marks, diagnoses: Sequence[Diagnosis]) -> Arbitration | None:
    if task.kind is not TaskKind.SINGLE_LABEL:
        return None
    told = [(d, vote(task, d.evidence.moed)) for d in diagnoses]
    rows = [row for row, (_, most) in enumerate(told) if most]
    place = {name: number for number, name in enumerate(task.label_names)}
    return arbitration.arbitration(
        truth.argmax(axis=1)[rows],
        np.array([place[told[row][0].initial.labels[0]] for row in rows], dtype=np.int64),
        np.array([place[(told[row][1] or ("",))[0]] for row in rows], dtype=np.int64),
        np.array([place[told[row][0].final.labels[0]] for row in rows], dtype=np.int64),
    )


def _biased(task: Task, truth: Marks, biased: Sequence[Diagnosis] | None) -> Rate | None:
    if biased is None:
        return None
    place = {name: number for number, name in enumerate(task.label_names)}
    final = np.array([place[d.final.labels[0]] for d in biased], dtype=np.int64)
    return arbitration.named_truth(truth.argmax(axis=1), final)


def _complete_specialists(diagnoses: Sequence[Diagnosis]) -> list[str]:
    """Specialists that answered every case: the others have no comparable figure."""
    answered = [{p.specialist for p in d.evidence.moed} for d in diagnoses]
    everywhere = set.intersection(*answered)
    return [p.specialist for p in diagnoses[0].evidence.moed if p.specialist in everywhere]


def _of(diagnosis: Diagnosis, specialist: str) -> tuple[float, ...]:
    return next(p.probabilities for p in diagnosis.evidence.moed if p.specialist == specialist)


def _vote_shares(task: Task, diagnosis: Diagnosis) -> list[float]:
    named = [predicted_labels(task, p) for p in diagnosis.evidence.moed]
    return [sum(label in labels for labels in named) / len(named) for label in task.label_names]


def _neighbour_shares(diagnosis: Diagnosis) -> list[float]:
    named = [neighbour.case.labels for neighbour in diagnosis.evidence.rad]
    return [
        sum(label in labels for labels in named) / len(named) for label in diagnosis.label_names
    ]
