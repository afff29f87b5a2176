"""Cases as jobs: handed in, kept in the spool, answered by the pipeline, ended with their result.

A job has the id of what it makes: a diagnosis, a report or an answer. The result is stored and
the job ended in one transaction, so that neither is there without the other.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from retrieval.errors import RetrievalError
from service import spans, telemetry
from service.counting import count
from service.domain import Case, Result
from service.errors import (
    ComputationLost,
    GeneralistUnavailable,
    GscoError,
    Overloaded,
    PromptTooLong,
)
from service.jobs import overview
from service.jobs import queue as durable
from service.jobs.job import Job, Priority, Retry, State, Work
from service.jobs.queue import Queue
from service.jobs.runner import Failure
from service.jobs.spool import Spool
from service.jobs.stages import Stages
from service.metrics import Metrics
from service.persistence import store
from service.persistence.database import writing
from service.persistence.store import SqlStore
from service.pipeline import Pipeline
from service.progress import Tell
from service.spans import Tracer, Watch
from specialists.errors import PoolOverloaded, SpecialistsError, SpecialistUnavailable
from specialists.task import TaskKind

NAMES = {
    TaskKind.SINGLE_LABEL: "diagnosis",
    TaskKind.MULTI_LABEL: "diagnosis",
    TaskKind.REPORT: "report",
    TaskKind.QUESTION: "answer",
}
"""What a job for a task of each kind makes."""

CASES = frozenset(NAMES.values())
RETRY = Retry(attempts=5, first_seconds=2, longest_seconds=60)

_WAITED_OUT = (
    GeneralistUnavailable,
    Overloaded,
    PoolOverloaded,
    SpecialistUnavailable,
    DBAPIError,
    PoolTimeout,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many jobs may wait or run, in how many bytes of spool; how long what ended is kept."""

    jobs: int
    spool_bytes: int
    keep: timedelta
    keep_keys: timedelta


class CaseJobs:
    """The jobs of one service, whichever of its processes answers."""

    def __init__(
        self,
        queue: Queue,
        spool: Spool,
        place: str,
        pipeline: Pipeline,
        limits: Limits,
        metrics: Metrics,
        tracer: Tracer | None = None,
    ) -> None:
        self.stages = Stages()
        self._queue = queue
        self._spool = spool
        self._place = place
        self._pipeline = pipeline
        self._limits = limits
        self._metrics = metrics
        self._watch = Watch(metrics.note_span, tracer)
        self._stop: Callable[[str], None] = lambda _: None

    def stopped_by(self, stop: Callable[[str], None]) -> None:
        """How work on a job is stopped in this process."""
        self._stop = stop

    async def check_room(self) -> None:
        """Raises Overloaded where no further job is taken in."""
        count, size = await self._queue.read(overview.backlog, CASES, self._place)
        if count >= self._limits.jobs:
            raise Overloaded(f"{count} jobs are waiting: try again later")
        if size >= self._limits.spool_bytes:
            raise Overloaded("the spool is full of images that wait: try again later")

    async def submit(
        self,
        case: Case,
        *,
        priority: Priority = Priority.MEDIUM,
        then: tuple[Work, ...] = (),
    ) -> Job:
        """A job for the case, durable when this returns; raises Overloaded.

        Where there is one of the case's id already, it stays as it is. `then` is put into the
        queue when the job has ended.
        """
        await self.check_room()
        size = await asyncio.to_thread(self._spool.put, case)
        work = Work(
            name=NAMES[case.task.kind],
            argument={"task": case.task.name, **spans.headers()},
            retry=RETRY,
            priority=priority,
            then=then,
            place=self._place,
            size_bytes=size,
            id=case.id,
        )
        await self._queue.put(work)
        return await self.find(work.id)

    async def find(self, id: str) -> Job:
        """A job as it stands; raises NotFound."""
        return await self._queue.read(durable.find, id, CASES)

    async def cancel(self, id: str) -> Job:
        """Ends a job that has not ended: its result is never stored. Raises NotFound, JobEnded."""
        job = await self._queue.run(durable.cancel, id, CASES)
        self._stop(id)
        self._queue.wake()
        await self.ended(job, State.CANCELLED)
        return job

    async def handle(self, job: Job) -> bool:
        """Answers the case of a job; see `runner.Handler`. Its trace is that of the request."""
        above = job.work.argument.get("traceparent", "")
        with (
            structlog.contextvars.bound_contextvars(job=job.id),
            telemetry.following(self._watch, f"job {job.name}", above),
        ):
            return await self._answer(job)

    async def _answer(self, job: Job) -> bool:
        self._observe_wait(job)
        started = time.perf_counter()
        with spans.span("spool"):
            case = await asyncio.to_thread(self._spool.get, job.id)
        spool_seconds = time.perf_counter() - started
        self.stages.begin(job.id)
        try:
            kept = replace(self._pipeline, store=_Ending(self._queue.engine, job))
            made = await answered(kept, case, partial(self.stages.tell, job.id))
        finally:
            self.stages.end(job.id)
        count(self._metrics, made, spool=round(spool_seconds, 4))
        return True

    async def ended(self, job: Job, state: State) -> None:
        """A job has ended: it is counted, and its image is no longer kept."""
        self._metrics.jobs_ended.labels(job.name, state.value).inc()
        await self._forget(job.id)

    async def keep_house(self) -> None:
        """Ends what waited too long; forgets what was kept long enough, or left by a crash."""
        while await self._queue.run(overview.expire) == overview.SWEPT:
            pass
        keep = self._limits.keep, self._limits.keep_keys
        while await self._queue.run(overview.sweep, *keep) == overview.SWEPT:
            pass
        for id in await self._useless():
            await self._forget(id)
        await asyncio.to_thread(self._spool.clear)

    async def count(self) -> None:
        """Brings the figures of what waits, runs and has failed up to date."""
        counts = await self._queue.read(overview.counts)
        self._metrics.show_jobs(counts, await self._queue.read(overview.ages))

    def _observe_wait(self, job: Job) -> None:
        if job.attempts == 1 and job.started_at is not None:
            waited = (job.started_at - job.created_at).total_seconds()
            name, priority = job.name, job.work.priority.name.lower()
            self._metrics.job_waits.labels(name, priority).observe(waited)

    async def _useless(self) -> set[str]:
        """Ids of images that no job needs: it has ended, or was never put into the queue."""
        there = await asyncio.to_thread(self._spool.ids)
        old = await asyncio.to_thread(self._spool.ids, old=True)
        known = await self._queue.read(overview.states, there)
        return {id for id in there if (known[id].has_ended if id in known else id in old)}

    async def _forget(self, id: str) -> None:
        await asyncio.to_thread(self._spool.remove, id)


def judge(error: Exception) -> Failure:
    """What a case's failure says of another attempt."""
    if isinstance(error, PromptTooLong):
        return Failure.FINAL
    if isinstance(error, ComputationLost):
        return Failure.COUNTED
    if isinstance(error, _WAITED_OUT):
        return Failure.PASSING
    is_ours = isinstance(error, GscoError | SpecialistsError | RetrievalError)
    return Failure.FINAL if is_ours else Failure.COUNTED


async def answered(pipeline: Pipeline, case: Case, tell: Tell) -> Result:
    """What the case's task asks for: a diagnosis, a report or an answer."""
    if case.task.is_labelled:
        return await pipeline.diagnose(case, tell)
    if case.task.kind is TaskKind.REPORT:
        return await pipeline.report(case, tell)
    return await pipeline.answer(case, tell)


class _Ending(SqlStore):
    """Stores what a job made together with its end; raises JobLost where it is void."""

    def __init__(self, engine: Engine, job: Job) -> None:
        super().__init__(engine)
        self._job = job

    def _save(self, result: Result) -> None:
        with writing(self._engine) as session:
            durable.end(session, self._job, State.SUCCEEDED)
            store.add(session, result)
