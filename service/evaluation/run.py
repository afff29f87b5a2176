"""Labelled cases through the product's own pipeline, and what is kept of each.

Specialists see a chunk of cases together; while the generalist answers one chunk, the next is
prepared. A chunk interrupted half-way is prepared again in the same composition, so that a run
that was killed ends with the same numbers, to the last bit, as one that was not.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from service import ports
from service.domain import Result
from service.errors import NotFound
from service.evaluation import record, trials
from service.evaluation.cases import BrokenCase, Cases, LabelledCase, patients
from service.evaluation.folder import ResultsFolder
from service.evaluation.prepared import Panel
from service.evaluation.record import CaseRecord
from service.pipeline import Pipeline
from service.ports import Kept

AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which systems besides those that cost nothing, and which deceptions."""

    systems: tuple[str, ...] = (trials.MOED_ONLY, trials.RAD_ONLY)
    stresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A chunk of cases whose specialists have spoken."""

    whole: tuple[LabelledCase, ...]
    broken: tuple[BrokenCase, ...]
    panel: ports.Specialists


@dataclass(frozen=True, eq=False)
class Measurement:
    """Cases, who is asked about them, and where the records go."""

    pipeline: Pipeline
    panel: Panel
    cases: Cases
    wanted: Wanted
    folder: ResultsFolder

    async def run(self, on_case: Callable[[], None]) -> None:
        """A record of every case; `on_case` after each, whether finished earlier or now.

        Raises what the generalist raises; what is finished by then is kept.
        """
        finished = {one.id for one in self.folder.records()}
        for _ in finished:
            on_case()
        waiting = [chunk for chunk in self.cases.chunks() if not finished.issuperset(chunk.ids())]
        async for ready in self._prepared(waiting):
            await self._finish(ready, finished, on_case)

    async def _finish(self, ready: Ready, finished: set[str], on_case: Callable[[], None]) -> None:
        numbers = dict(zip(self.cases.ids(), patients(self.cases), strict=True))
        gate = asyncio.Semaphore(AT_ONCE)
        pipeline = replace(self.pipeline, specialists=ready.panel, store=Forgetful())

        async def finish(found: CaseRecord) -> None:
            await asyncio.to_thread(self.folder.add, [found])
            on_case()

        async def one(labelled: LabelledCase) -> None:
            async with gate:
                patient = numbers[labelled.case.id]
                await finish(await diagnosed(pipeline, labelled, patient, self.wanted))

        for lost in ready.broken:
            if lost.id not in finished:
                await finish(CaseRecord(lost.id, numbers[lost.id], broken=lost.reason))
        try:
            async with asyncio.TaskGroup() as together:
                for labelled in ready.whole:
                    if labelled.case.id not in finished:
                        together.create_task(one(labelled))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _prepared(self, chunks: Sequence[Cases]) -> AsyncIterator[Ready]:
        """One after the other, each begun while its forerunner is with the generalist."""
        upcoming: asyncio.Task[Ready] | None = None
        try:
            for place, chunk in enumerate(chunks):
                ready = await (upcoming or asyncio.create_task(self.prepare(chunk)))
                upcoming = None
                if place + 1 < len(chunks):
                    upcoming = asyncio.create_task(self.prepare(chunks[place + 1]))
                yield ready
        finally:
            if upcoming is not None:
                upcoming.cancel()

    async def prepare(self, chunk: Cases) -> Ready:
        whole, broken = await asyncio.to_thread(chunk.read)
        images = [labelled.case.image.pixels for labelled in whole]
        panel = await self.panel.prepare(images, chunk.task)
        return Ready(tuple(whole), tuple(broken), panel)


async def diagnosed(
    pipeline: Pipeline, labelled: LabelledCase, patient: int, wanted: Wanted
) -> CaseRecord:
    """One case through the pipeline as it is, then with evidence left out or made to deceive."""
    case = labelled.case
    diagnosis = await pipeline.diagnose(case)
    answers = {
        trials.ALONE: diagnosis.initial.probabilities,
        trials.GSCO: diagnosis.final.probabilities,
    }
    evidence = diagnosis.evidence
    for trial in (
        *trials.ablations(wanted.systems, evidence),
        *trials.stresses(wanted.stresses, case.task, case.id, labelled.labels, evidence),
    ):
        said = await pipeline.weigh(case, diagnosis.initial, trial.evidence)
        answers[trial.name] = said.probabilities
    return record.of(labelled, patient, diagnosis, answers)


class Forgetful:
    """A store for cases that are nobody's."""

    async def save(self, result: Result) -> None:
        del result

    async def get(self, kind: type[Kept], id: str) -> Kept:
        raise NotFound(f"no {kind.__name__.lower()} {id!r}")

    async def check(self) -> None:
        return None
