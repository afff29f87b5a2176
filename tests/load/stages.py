"""What each stage costs by itself, and so the throughput that nothing could exceed.

Every stage does its work on the same cases alone, with nothing else running: its time by the
clock, and processor time of all threads and of the process that decodes. With many cases at once
specialists and generalist batch them; with one at a time they cannot.
"""

import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from retrieval.neighbour import Retrieval
from service.api.dependencies import Parts
from service.composition import running_parts
from service.demo import home as demo_home
from service.demo.tasks import demo_tasks
from service.domain import Case, Completion, Evidence
from service.gathering import queries_of
from service.generalist import parser, prompt
from service.settings import Settings
from specialists.prediction import Consultation
from tests.load.cases import mixed
from tests.load.process import descendants, processor_seconds

One = TypeVar("One")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Worked:
    """One case, and what each stage made of it."""

    case: Case
    consultation: Consultation
    retrieval: Retrieval
    answers: tuple[Completion, Completion]


@dataclass(frozen=True)
class Milliseconds:
    """Of a case in one stage: by the clock, and of processor."""

    clock: float
    processor: float


@dataclass
class Bench:
    """The parts of a service at work on one stage after another; notes what each costs."""

    parts: Parts
    at_once: int
    costs: dict[str, Milliseconds] = field(default_factory=dict)

    async def each(
        self, stage: str, work: Callable[[One], Awaitable[Made]], ones: list[One]
    ) -> list[Made]:
        """The work done on all of them, some at once."""
        room = asyncio.Semaphore(self.at_once)

        async def in_turn(one: One) -> Made:
            async with room:
                return await work(one)

        began, before = time.perf_counter(), _used()
        made = await asyncio.gather(*map(in_turn, ones))
        clock, processor = time.perf_counter() - began, _used() - before
        self.costs[stage] = Milliseconds(1000 * clock / len(ones), 1000 * processor / len(ones))
        return made

    async def consult(self, case: Case) -> Consultation:
        return await self.parts.specialists.consult(case.image.pixels, case.task)

    async def retrieve(self, one: tuple[Case, Consultation]) -> Retrieval:
        case, consultation = one
        sha256 = case.image.pixels_sha256
        queries = queries_of(consultation)
        return await self.parts.retriever.search(
            case.task.name, queries, group=None, image_sha256=sha256
        )

    async def arbitrate(self, one: tuple[Case, Consultation, Retrieval]) -> Worked:
        """The initial diagnosis, and the final one, which continues its prefix."""
        case, consultation, retrieval = one
        words, generalist = self.parts.pipeline.template, self.parts.generalist
        first = await generalist.answer(prompt.initial(words, case))
        evidence = Evidence(consultation.predictions, retrieval.neighbours)
        look = parser.labelled(case, first)
        last = await generalist.answer(prompt.arbitration(words, case, evidence, look))
        return Worked(case, consultation, retrieval, (first, last))

    async def store(self, worked: Worked) -> None:
        """The protocol itself, and what it stores: every model answers from memory."""
        known = _Known(self.parts, worked)
        await replace(
            self.parts.pipeline, specialists=known, retriever=known, generalist=known
        ).diagnose(worked.case)


class _Known:
    """All models at once, for one case that they have answered."""

    def __init__(self, parts: Parts, worked: Worked) -> None:
        self.identity = parts.generalist.identity
        self._worked = worked
        self._answers = iter(worked.answers)

    async def consult(self, *_: Any) -> Consultation:
        return self._worked.consultation

    async def search(self, *_: Any, **__: Any) -> Retrieval:
        return self._worked.retrieval

    async def answer(self, _: Any) -> Completion:
        return next(self._answers)


def measure(home: Path, count: int, at_once: int) -> dict[str, Milliseconds]:
    """What a case costs by stage: the mean over so many mixed cases."""
    settings = Settings(home=home)
    demo_home.prepare(settings, lambda task: None)
    return asyncio.run(_measure(settings, count, at_once))


def summary(costs: Mapping[str, Milliseconds], cores: int) -> dict[str, Any]:
    """The costs, and two limits in cases a second.

    Of one stage after another by the clock, each as fast as it is alone; and of cores that never
    wait for anything, which no single interpreter reaches.
    """
    clock = {stage: cost.clock for stage, cost in costs.items()}
    processor = {stage: cost.processor for stage, cost in costs.items()}
    return {
        "milliseconds": _rounded(clock),
        "sum": round(sum(clock.values()), 2),
        "one_stage_after_another_a_second": round(1000 / sum(clock.values()), 2),
        "milliseconds_of_processor": _rounded(processor),
        "sum_of_processor": round(sum(processor.values()), 2),
        f"{cores}_cores_that_never_wait_a_second": round(1000 * cores / sum(processor.values()), 2),
    }


def _rounded(costs: Mapping[str, float]) -> dict[str, float]:
    return {stage: round(cost, 2) for stage, cost in costs.items()}


async def _measure(settings: Settings, count: int, at_once: int) -> dict[str, Milliseconds]:
    async with running_parts(settings) as parts:
        await _all_stages(Bench(parts, at_once), 8)  # warm
        gc.collect()
        gc.freeze()  # as a service does
        bench = Bench(parts, at_once)
        await _all_stages(bench, count)
        return bench.costs


async def _all_stages(bench: Bench, count: int) -> None:
    tasks = {demo.task.name: demo.task for demo in demo_tasks()}
    sent = list(islice(mixed(), count))
    files = [file for _, file in sent]
    decoded = await bench.each("intake", bench.parts.intake.decode, files)
    cases = [
        Case(str(uuid4()), tasks[name], found.image)
        for (name, _), found in zip(sent, decoded, strict=True)
    ]
    consulted = await bench.each("specialists", bench.consult, cases)
    known = list(zip(cases, consulted, strict=True))
    found = await bench.each("retrieval", bench.retrieve, known)
    asked = [(*one, other) for one, other in zip(known, found, strict=True)]
    worked = await bench.each("generalist", bench.arbitrate, asked)
    await bench.each("pipeline and store", bench.store, worked)


def _used() -> float:
    return time.process_time() + processor_seconds(*descendants(os.getpid()))
