"""Stories of workers: what they do with work that fails, is taken from them, or never ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from databases import a_queue
from sqlalchemy.exc import OperationalError
from waiting import until, until_told

from service.errors import DeliveryFailed, DeliveryRefused, Overloaded
from service.jobs import queue as durable
from service.jobs import runner as runners
from service.jobs.job import Job, Retry, State, Work
from service.jobs.queue import Queue
from service.jobs.runner import Failure, Lane, Runner

pytestmark = pytest.mark.usefixtures("either_database")

PROMPT = Retry(attempts=3, first_seconds=0.01, longest_seconds=0.02)


class Errands:
    """A handler whose failures are scripted; `done` are the arguments it was called with."""

    def __init__(self, *failures: Exception, seconds: float = 0.0) -> None:
        self.failures = list(failures)
        self.seconds = seconds
        self.done: list[Any] = []

    async def __call__(self, job: Job) -> bool:
        self.done.append(job.work.argument["to"])
        await asyncio.sleep(self.seconds)
        if self.failures:
            raise self.failures.pop(0)
        return False


def judge(error: Exception) -> Failure:
    kinds = {DeliveryRefused: Failure.FINAL, Overloaded: Failure.PASSING}
    return kinds.get(type(error), Failure.COUNTED)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(runners, "PASSING", PROMPT)


@asynccontextmanager
async def working(
    queue: Queue, do: Errands, *, worker: str = "alice", lease_seconds: float = 15, **more: Any
) -> AsyncIterator[Runner]:
    lane = Lane({"errand": do}, more.pop("at_once", 2), judge, **more)
    runner = Runner(queue, (lane,), worker=worker, lease_seconds=lease_seconds)
    await runner.start()
    try:
        yield runner
    finally:
        await runner.close()


async def put(queue: Queue, id: str = "one", retry: Retry = PROMPT) -> None:
    await queue.put(Work("errand", {"to": id}, retry, id=id))


async def ended(queue: Queue, id: str = "one") -> Job:
    ask = partial(queue.read, durable.find, id, ["errand"])
    return await until_told(ask, lambda job: job.state.has_ended)


async def test_work_is_done_and_ends(tmp_path: Path) -> None:
    errands = Errands()
    with a_queue(tmp_path) as queue:
        async with working(queue, errands):
            await put(queue)
            job = await ended(queue)

    assert (job.state, errands.done) == (State.SUCCEEDED, ["one"])


async def test_what_fails_is_tried_as_often_as_it_may(tmp_path: Path) -> None:
    errands = Errands(*[DeliveryFailed("nobody opened")] * 3)
    with a_queue(tmp_path) as queue:
        async with working(queue, errands):
            await put(queue)
            job = await ended(queue)

    assert (job.state, len(errands.done)) == (State.FAILED, 3)
    assert job.problem is not None
    assert (job.problem.error, job.problem.detail) == ("DeliveryFailed", "nobody opened")


async def test_what_never_succeeds_is_tried_once(tmp_path: Path) -> None:
    errands = Errands(DeliveryRefused("wants no letters"))
    with a_queue(tmp_path) as queue:
        async with working(queue, errands):
            await put(queue)
            job = await ended(queue)

    assert (job.state, len(errands.done)) == (State.FAILED, 1)


async def test_what_is_nobodys_fault_is_waited_out_without_counting(tmp_path: Path) -> None:
    errands = Errands(*[Overloaded("busy")] * 6)
    with a_queue(tmp_path) as queue:
        async with working(queue, errands):
            await put(queue)
            job = await ended(queue)

    assert (job.state, job.failures, len(errands.done)) == (State.SUCCEEDED, 0, 7)


async def test_patience_has_an_end(tmp_path: Path) -> None:
    errands = Errands(*[Overloaded("busy")] * 50)
    hasty = Retry(attempts=3, first_seconds=0.01, longest_seconds=0.02, patience_seconds=0.1)
    with a_queue(tmp_path) as queue:
        async with working(queue, errands):
            await put(queue, retry=hasty)
            job = await ended(queue)

    assert (job.state, job.problem and job.problem.detail) == (State.FAILED, "busy")


async def test_the_text_of_a_foreign_error_is_not_kept(tmp_path: Path) -> None:
    errands = Errands(*[KeyError("patient Miller")] * 3)
    with a_queue(tmp_path) as queue:
        async with working(queue, errands):
            await put(queue)
            job = await ended(queue)

    assert job.problem is not None
    assert (job.problem.error, job.problem.detail) == ("KeyError", "")


async def test_nothing_is_begun_until_the_lane_is_ready(tmp_path: Path) -> None:
    errands, there = Errands(), asyncio.Event()

    async def ready() -> None:
        await there.wait()

    with a_queue(tmp_path) as queue:
        async with working(queue, errands, ready=ready):
            await put(queue)
            await asyncio.sleep(0.1)
            early = list(errands.done)
            there.set()
            await ended(queue)

    assert (early, errands.done) == ([], ["one"])


async def test_no_more_is_done_at_once_than_allowed(tmp_path: Path) -> None:
    errands = Errands(seconds=0.05)
    with a_queue(tmp_path) as queue:
        async with working(queue, errands, at_once=2) as runner:
            for number in range(5):
                await put(queue, str(number))
            await asyncio.sleep(0.04)
            at_once = len(runner.running)
            for number in range(5):
                await ended(queue, str(number))

    assert at_once <= 2
    assert len(errands.done) == 5


async def test_a_worker_that_lost_its_job_stops_doing_it(tmp_path: Path) -> None:
    errands = Errands(seconds=30)
    with a_queue(tmp_path) as queue:
        async with working(queue, errands, lease_seconds=0.1) as runner:
            await put(queue)
            await until(lambda: errands.done)
            await queue.run(durable.cancel, "one", ["errand"])  # by another process
            await until(lambda: not runner.running)
            job = await ended(queue)

    assert job.state is State.CANCELLED


async def test_what_a_worker_leaves_is_done_by_the_next(tmp_path: Path) -> None:
    slow, quick = Errands(seconds=30), Errands()
    with a_queue(tmp_path) as queue:
        async with working(queue, slow, worker="alice"):
            await put(queue)
            await until(lambda: slow.done)
        async with working(queue, quick, worker="bob"):
            job = await ended(queue)

    assert (job.state, job.attempts, job.interruptions) == (State.SUCCEEDED, 2, 0)


async def test_a_database_that_is_away_for_a_while_ends_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errands, away = Errands(), [True]
    is_due = durable.is_due

    def unreachable(*given: Any) -> bool:
        if away[0]:
            raise OperationalError("SELECT", {}, Exception("the server closed the connection"))
        return is_due(*given)

    monkeypatch.setattr(durable, "is_due", unreachable)
    with a_queue(tmp_path) as queue:
        async with working(queue, errands):
            await put(queue)
            await asyncio.sleep(0.1)
            away[0] = False
            job = await ended(queue)

    assert job.state is State.SUCCEEDED


async def test_an_end_that_could_not_be_written_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errands, failures = Errands(), [2]
    end, release = durable.end, durable.release

    def failing(act: Callable[..., Any]) -> Callable[..., Any]:
        def once(*given: Any, **named: Any) -> Any:
            if failures[0]:
                failures[0] -= 1
                raise OperationalError("UPDATE", {}, Exception("disk full"))
            return act(*given, **named)

        return once

    monkeypatch.setattr(durable, "end", failing(end))
    monkeypatch.setattr(durable, "release", failing(release))
    with a_queue(tmp_path) as queue:
        async with working(queue, errands, lease_seconds=0.1):
            await put(queue)
            job = await ended(queue)

    assert (job.state, job.interruptions) == (State.SUCCEEDED, 1)
