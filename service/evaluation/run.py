"""Labelled cases through the product's own pipeline, and every system's score on them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain import Case, Diagnosis, predicted_labels
from service.errors import GscoError
from service.evaluation.metrics import Score, score
from service.pipeline import Pipeline
from specialists.task import Task

AT_ONCE = 4


@dataclass(frozen=True, slots=True, eq=False)
class LabelledCase:
    case: Case
    target: int


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


def scores(
    task: Task, diagnoses: Sequence[Diagnosis], cases: Sequence[LabelledCase]
) -> list[Score]:
    """Each specialist, majority vote, probability average, neighbours' vote, generalist, GSCo."""
    if not diagnoses:
        raise GscoError("no cases to evaluate")
    targets = np.array([case.target for case in cases], dtype=np.int64)
    table = systems(task, diagnoses)
    return [score(name, targets, probabilities) for name, probabilities in table.items()]


def systems(task: Task, diagnoses: Sequence[Diagnosis]) -> dict[str, NDArray[np.float64]]:
    """What every system says of the same cases: name → (cases, labels) probabilities."""
    table: dict[str, NDArray[np.float64]] = {}
    for specialist in _complete_specialists(diagnoses):
        table[specialist] = np.array([_of(d, specialist) for d in diagnoses])
    if table:
        panel = np.stack(list(table.values()))
        table["probability average"] = panel.mean(axis=0)
        table["majority vote"] = np.array([_vote_shares(task, d) for d in diagnoses])
    if all(d.evidence.rad for d in diagnoses):
        table["neighbours' vote"] = np.array([_neighbour_shares(d) for d in diagnoses])
    table["generalist alone"] = np.array([d.initial.probabilities for d in diagnoses])
    table["GSCo"] = np.array([d.final.probabilities for d in diagnoses])
    return table


def _complete_specialists(diagnoses: Sequence[Diagnosis]) -> list[str]:
    """Specialists that answered every case: the others have no comparable figure."""
    answered = [{p.specialist for p in d.evidence.moed} for d in diagnoses]
    everywhere = set.intersection(*answered)
    return [p.specialist for p in diagnoses[0].evidence.moed if p.specialist in everywhere]


def _of(diagnosis: Diagnosis, specialist: str) -> tuple[float, ...]:
    return next(p.probabilities for p in diagnosis.evidence.moed if p.specialist == specialist)


def _vote_shares(task: Task, diagnosis: Diagnosis) -> list[float]:
    named = [predicted_labels(task, p) for p in diagnosis.evidence.moed]
    return [sum((label,) == labels for labels in named) / len(named) for label in task.label_names]


def _neighbour_shares(diagnosis: Diagnosis) -> list[float]:
    named = [neighbour.case.labels for neighbour in diagnosis.evidence.rad]
    return [
        sum(label in labels for labels in named) / len(named) for label in diagnosis.label_names
    ]
