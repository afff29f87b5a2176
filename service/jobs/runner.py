"""Who does the work of the queue: lanes that each do so much at once, and failures taken in hand.

One loop beats, claims and begins, so that what is claimed is known before it is looked for.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from functools import partial

import structlog
from sqlalchemy.exc import DBAPIError

from retrieval.errors import RetrievalError
from service.errors import GscoError, JobLost, Overloaded, UnparsableAnswer
from service.jobs import queue as durable
from service.jobs import workers
from service.jobs.job import Job, Problem, Retry, State
from service.jobs.queue import Queue
from specialists.errors import SpecialistsError

POLL_SECONDS = 1.0
HOUSEKEEPING_SECONDS = 600.0
PASSING = Retry(first_seconds=2, longest_seconds=300)
_OPENING = Retry(first_seconds=0.5, longest_seconds=15)
_OURS = (GscoError, SpecialistsError, RetrievalError)

log = structlog.stdlib.get_logger(__name__)

Handler = Callable[[Job], Awaitable[bool]]
"""Does the work of one job. True where it has ended the job itself, together with what it made."""


class Failure(Enum):
    """What the failure of an attempt says of the next."""

    FINAL = auto()  # it would fail again
    COUNTED = auto()  # it may succeed, in as many attempts as the work is given
    PASSING = auto()  # it is nobody's fault, and waited out


async def _always() -> None:
    pass


async def _nothing(job: Job, state: State) -> None:
    del job, state


@dataclass(frozen=True)
class Lane:
    """Work of some names, beside other work: who does it, and how much at once.

    `ready` returns when it can be done and raises while it cannot; it is asked first, and again
    after a passing failure. `ended` hears how each job ended.
    """

    handlers: Mapping[str, Handler]
    at_once: int
    judge: Callable[[Exception], Failure]
    ready: Callable[[], Awaitable[None]] = _always
    ended: Callable[[Job, State], Awaitable[None]] = _nothing


@dataclass
class _Working:
    """A lane of this process: open or not, and what runs in it."""

    lane: Lane
    is_open: bool = False
    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.lane.handlers)


class Runner:
    """One worker. `place` is the spool it can read; `housekeeping` is done now and then."""

    def __init__(
        self,
        queue: Queue,
        lanes: tuple[Lane, ...],
        *,
        worker: str,
        lease_seconds: float,
        place: str | None = None,
        housekeeping: Callable[[], Awaitable[None]] = _always,
    ) -> None:
        self._queue = queue
        self._lanes = [_Working(lane) for lane in lanes]
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._place = place
        self._housekeeping = housekeeping
        self._woken = asyncio.Event()
        self._beaten = self._kept = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()
        queue.when_woken(self._woken.set)

    async def start(self) -> None:
        """Takes its place among the workers, and begins."""
        await self._beat()
        for working in self._lanes:
            self._keep(asyncio.create_task(self._open(working)))
        self._keep(asyncio.create_task(self._work()))

    async def close(self) -> None:
        """Stops at once; what was being done goes back into the queue."""
        running = [task for working in self._lanes for task in working.running.values()]
        for task in (*self._tasks, *running):
            task.cancel()
        await asyncio.gather(*self._tasks, *running, return_exceptions=True)
        try:
            await self._queue.run(workers.retire, self._worker)
        except DBAPIError:
            log.warning("a worker left without saying so: its jobs wait for its lease to end")

    def check(self) -> None:
        """Raises Overloaded where this worker has not been able to say that it lives."""
        late = time.monotonic() - self._beaten - self._lease_seconds
        if late > 0:
            raise Overloaded("the queue of jobs does not answer: they wait")

    def stop(self, id: str) -> None:
        """Stops a job that has ended already, where it still runs."""
        for working in self._lanes:
            if task := working.running.get(id):
                task.cancel()

    @property
    def running(self) -> set[str]:
        return {id for working in self._lanes for id in working.running}

    async def _work(self) -> None:
        while True:
            try:
                await self._turn()
            except Exception:  # whatever it is, the next turn may do better
                log.exception("the queue cannot be worked on")
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._woken.wait()
            self._woken.clear()

    async def _turn(self) -> None:
        if time.monotonic() - self._beaten > self._lease_seconds / 3:
            await self._beat()
        for working in self._lanes:
            await self._fill(working)
        if time.monotonic() - self._kept > HOUSEKEEPING_SECONDS:
            self._kept = time.monotonic()
            self._keep(asyncio.create_task(self._tidy()))

    async def _tidy(self) -> None:
        """Beside the turns: who tidies for longer than a lease must go on beating."""
        try:
            await self._housekeeping()
        except Exception:  # it is tried again
            log.exception("what is no longer needed was not removed")

    async def _beat(self) -> None:
        """Says that it lives; stops what is no longer its own."""
        running = self.running
        mine = await self._queue.run(workers.beat, self._worker, self._lease_seconds, running)
        self._beaten = time.monotonic()
        for id in running - mine:
            self.stop(id)

    async def _fill(self, working: _Working) -> None:
        free = working.lane.at_once - len(working.running)
        if not working.is_open or free <= 0:
            return
        if not await self._queue.read(durable.is_due, working.names, self._place):
            return
        names, place = working.names, self._place
        for job in await self._queue.run(durable.claim, self._worker, names, place, free):
            working.running[job.id] = task = asyncio.create_task(self._do(working, job))
            task.add_done_callback(partial(self._done, working, job.id))

    def _done(self, working: _Working, id: str, task: asyncio.Task[None]) -> None:
        del working.running[id]
        if not task.cancelled() and (error := task.exception()):
            # It is still ours by the queue: the next beat finds that nobody does it.
            log.error("a job was left where it stood", job=id, exc_info=error)
        self._woken.set()

    async def _do(self, working: _Working, job: Job) -> None:
        try:
            await self._attempt(working, job)
        except JobLost as lost:
            log.info("a job was lost", job=job.id, reason=str(lost))

    async def _attempt(self, working: _Working, job: Job) -> None:
        try:
            has_ended = await working.lane.handlers[job.name](job)
            if not has_ended:
                await self._queue.run(durable.end, job, State.SUCCEEDED)
        except JobLost:
            raise
        except Exception as error:  # noqa: BLE001 - a job's failure is its own
            await self._take_in_hand(working, job, error)
        else:
            await working.lane.ended(job, State.SUCCEEDED)

    async def _take_in_hand(self, working: _Working, job: Job, error: Exception) -> None:
        failure, problem, retry = working.lane.judge(error), _problem(error), job.work.retry
        _log_failure(job, error, failure)
        if failure is Failure.PASSING and _age_seconds(job) < retry.patience_seconds:
            self._doubt(working)
            wait = _varied(PASSING.wait_seconds(job.attempts))
            await self._queue.run(durable.release, job, wait, problem)
        elif failure is Failure.COUNTED and job.failures + 1 < retry.attempts:
            wait = _varied(retry.wait_seconds(job.failures + 1))
            await self._queue.run(durable.release, job, wait, problem, failed=True)
        else:
            await self._queue.run(durable.end, job, State.FAILED, problem)
            await working.lane.ended(job, State.FAILED)

    def _doubt(self, working: _Working) -> None:
        """Nothing more is begun in a lane until it says that it is ready."""
        if working.is_open:
            working.is_open = False
            self._keep(asyncio.create_task(self._open(working)))

    async def _open(self, working: _Working) -> None:
        failures = 0
        while not working.is_open:
            try:
                await working.lane.ready()
                working.is_open = True
            except Exception as error:  # noqa: BLE001 - whatever it is, it is asked again
                failures += 1
                if failures == 1:
                    log.warning("jobs wait", reason=_reason(error), names=working.names)
                await asyncio.sleep(_varied(_OPENING.wait_seconds(failures)))
        self._woken.set()

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Tasks that nobody holds may vanish."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _problem(error: Exception) -> Problem:
    """What may be told of an error: the sentences of foreign ones may quote anything."""
    return Problem(type(error).__name__, str(error) if isinstance(error, _OURS) else "")


def _reason(error: Exception) -> str:
    """What may be logged: an unparsable answer quotes what was asked, for the caller alone."""
    is_loggable = isinstance(error, _OURS) and not isinstance(error, UnparsableAnswer)
    return str(error) if is_loggable else type(error).__name__


def _log_failure(job: Job, error: Exception, failure: Failure) -> None:
    about = {"job": job.id, "name": job.name, "attempt": job.attempts, "failure": failure.name}
    if not isinstance(error, _OURS):
        log.error("a job failed", exc_info=error, **about)
        return
    log.warning("a job failed", error=type(error).__name__, reason=_reason(error), **about)


def _age_seconds(job: Job) -> float:
    return (datetime.now(UTC) - job.created_at).total_seconds()


def _varied(seconds: float) -> float:
    """A little more or less, so that those who failed together do not try again together."""
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - not for secrets
