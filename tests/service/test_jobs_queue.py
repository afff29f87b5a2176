"""Stories of work that is put into the queue, on SQLite and on PostgreSQL."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from service.errors import JobEnded, JobLost, NotFound
from service.jobs import keys, overview, queue, workers
from service.jobs.job import Job, Priority, Problem, Retry, State, Work
from service.jobs.keys import Key, Made
from service.persistence.database import writing

NAMES = ["errand"]
LEASE = 15.0


class Desk:
    """The queue, one committed transaction per question."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def do(self, act: Callable[..., Any], *given: Any, **named: Any) -> Any:
        with writing(self.engine) as session:
            return act(session, *given, **named)

    def put(self, id: str = "one", **fields: Any) -> bool:
        return self.do(queue.put, Work("errand", {"to": "the shop"}, id=id, **fields))  # type: ignore[no-any-return]

    def claim(self, worker: str = "alice", count: int = 10, place: str | None = None) -> Any:
        return self.do(queue.claim, worker, NAMES, place, count)

    def find(self, id: str = "one") -> Job:
        return self.do(queue.find, id, NAMES)  # type: ignore[no-any-return]

    def beat(self, worker: str, *running: str, lease_seconds: float = LEASE) -> set[str]:
        return self.do(workers.beat, worker, lease_seconds, set(running))  # type: ignore[no-any-return]

    def die(self, worker: str) -> None:
        """As if it had not been seen for an hour."""
        with self.engine.begin() as connection:
            row = {"id": worker, "at": "2020-01-01 00:00:00.000000"}
            connection.execute(text("UPDATE workers SET seen_at = :at WHERE id = :id"), row)


@pytest.fixture
def desk(engine: Engine) -> Iterator[Desk]:
    return Desk(engine)


def test_work_is_as_it_was_put(desk: Desk) -> None:
    work = Work(
        "errand",
        {"to": ["the", "shop"]},
        Retry(3, 1.5, 60, 3600),
        Priority.HIGH,
        then=(Work("letter", {"to": "mother"}),),
        place="here",
        size_bytes=2**33,
        id="one",
    )
    desk.do(queue.put, work)
    job = desk.find()

    assert replace(job.work, then=()) == replace(work, then=())
    assert [one.argument for one in job.work.then] == [{"to": "mother"}]
    assert (job.state, job.attempts, job.owner) == (State.QUEUED, 0, None)


def test_what_is_there_already_stays_as_it_is(desk: Desk) -> None:
    first, second = desk.put(priority=Priority.HIGH), desk.put(priority=Priority.LOW)

    assert (first, second) == (True, False)
    assert desk.find().work.priority is Priority.HIGH


def test_urgent_work_goes_first_and_then_the_oldest(desk: Desk) -> None:
    for id, priority in (("b", 1), ("c", 1), ("low", 0), ("high", 2)):
        desk.put(id, priority=Priority(priority))

    claimed = [desk.claim(count=1)[0].id for _ in range(4)]

    assert claimed == ["high", "b", "c", "low"]


def test_many_workers_claim_each_job_once(desk: Desk) -> None:
    for number in range(60):
        desk.put(str(number))

    def work(worker: str) -> list[str]:
        return [job.id for _ in range(20) for job in desk.claim(worker, count=2)]

    with ThreadPoolExecutor(4) as threads:
        claimed = [id for ids in threads.map(work, "abcd") for id in ids]

    assert sorted(claimed) == sorted(map(str, range(60)))


def test_a_claimed_job_ends_once(desk: Desk) -> None:
    desk.put()
    (job,) = desk.claim()
    ended = desk.do(queue.end, job, State.SUCCEEDED)

    assert ended.state is State.SUCCEEDED
    assert ended.ended_at is not None
    with pytest.raises(JobLost):
        desk.do(queue.end, job, State.SUCCEEDED)


def test_a_worker_that_is_not_seen_loses_its_jobs_and_comes_back_too_late(desk: Desk) -> None:
    desk.put()
    desk.beat("alice")
    (job,) = desk.claim("alice")
    desk.die("alice")
    desk.beat("bob")
    (again,) = desk.claim("bob")

    with pytest.raises(JobLost, match="another worker"):
        desk.do(queue.end, job, State.SUCCEEDED)
    assert (again.attempts, again.interruptions) == (2, 1)
    assert desk.beat("alice", "one") == set()
    assert desk.do(queue.end, again, State.SUCCEEDED).state is State.SUCCEEDED


def test_workers_that_are_seen_keep_their_jobs(desk: Desk) -> None:
    desk.put()
    desk.beat("alice")
    desk.claim("alice")
    desk.beat("bob")

    assert desk.beat("alice", "one") == {"one"}
    assert desk.claim("bob") == ()


def test_a_clock_that_was_put_back_keeps_no_dead_worker_alive(desk: Desk) -> None:
    desk.put()
    desk.beat("alice")
    desk.claim("alice")
    with desk.engine.begin() as connection:
        connection.execute(text("UPDATE workers SET seen_at = '2999-01-01 00:00:00.000000'"))
    desk.beat("bob")

    assert [job.id for job in desk.claim("bob")] == ["one"]


def test_what_a_worker_has_claimed_and_does_not_run_goes_back(desk: Desk) -> None:
    desk.put()
    desk.claim("alice")  # and its commit was not heard of

    assert desk.beat("alice") == set()
    assert desk.find().state is State.QUEUED


def test_work_whose_workers_die_again_and_again_fails_and_says_so(desk: Desk) -> None:
    desk.put(then=(Work("letter", {}),))
    for _ in range(workers.MOST_INTERRUPTIONS):
        assert desk.claim("alice")
        desk.beat("alice")

    job = desk.find()
    assert (job.state, job.problem and job.problem.error) == (State.FAILED, "Interrupted")
    assert len(desk.do(overview.recent, ["letter"], [State.QUEUED], 10)) == 1


def test_a_worker_that_stops_gives_back_without_blame(desk: Desk) -> None:
    desk.put()
    desk.beat("alice")
    desk.claim("alice")
    desk.do(workers.retire, "alice")

    assert (desk.find().state, desk.find().interruptions) == (State.QUEUED, 0)


def test_work_that_is_put_back_waits_until_it_is_due(desk: Desk) -> None:
    desk.put()
    (job,) = desk.claim()
    desk.do(queue.release, job, 60, Problem("Away", "nobody answers"), failed=True)
    waiting = desk.find()

    assert desk.claim() == ()
    assert not desk.do(queue.is_due, NAMES, None)
    assert (waiting.failures, waiting.problem) == (1, Problem("Away", "nobody answers"))
    assert waiting.due_at is not None


def test_work_is_cancelled_wherever_it_stands(desk: Desk) -> None:
    for id in ("waits", "runs"):
        desk.put(id)
    (job,) = (job for job in desk.claim() if job.id == "runs")

    for id in ("waits", "runs"):
        assert desk.do(queue.cancel, id, NAMES).state is State.CANCELLED
    with pytest.raises(JobLost):
        desk.do(queue.end, job, State.SUCCEEDED)
    with pytest.raises(JobEnded, match="has been cancelled already"):
        desk.do(queue.cancel, "runs", NAMES)


def test_other_names_are_not_found(desk: Desk) -> None:
    desk.put()
    with pytest.raises(NotFound):
        desk.do(queue.find, "one", ["diagnosis"])
    with pytest.raises(NotFound):
        desk.do(queue.cancel, "two", NAMES)


def test_what_follows_is_put_once_and_knows_how_it_ended(desk: Desk) -> None:
    desk.put(then=(Work("letter", {"to": "mother"}, Retry(2), Priority.HIGH),))
    (job,) = desk.claim()
    desk.do(queue.end, job, State.SUCCEEDED)
    (letter,) = desk.do(overview.recent, ["letter"], [State.QUEUED], 10)

    assert letter.id == job.work.id_of_follower(0)
    assert letter.work.argument["to"] == "mother"
    assert letter.work.argument["ended"]["state"] == "succeeded"
    assert (letter.work.retry.attempts, letter.work.priority) == (2, Priority.HIGH)


def test_an_end_that_is_not_committed_leaves_nothing_behind(desk: Desk) -> None:
    desk.put(then=(Work("letter", {}),))
    (job,) = desk.claim()

    def end_and_fail(session: Session) -> None:
        queue.end(session, job, State.SUCCEEDED)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        desk.do(end_and_fail)

    assert desk.find().state is State.RUNNING
    assert desk.do(overview.recent, ["letter"], list(State), 10) == ()


def test_work_is_claimed_only_where_its_image_lies(desk: Desk) -> None:
    desk.put(place="spool-a")

    assert desk.claim(place="spool-b") == desk.claim(place=None) == ()
    assert [job.id for job in desk.claim(place="spool-a")] == ["one"]


def test_the_backlog_counts_what_has_not_ended(desk: Desk) -> None:
    desk.put("waits", place="here", size_bytes=100)
    desk.put("elsewhere", place="there", size_bytes=10_000)
    desk.put("ended", place="here", size_bytes=1000)
    desk.do(queue.cancel, "ended", NAMES)

    assert desk.do(overview.backlog, NAMES, "here") == (2, 100)
    assert desk.do(overview.backlog, ["nothing"], "here") == (0, 0)
    stand = {"waits": State.QUEUED, "ended": State.CANCELLED}
    assert desk.do(overview.states, ["waits", "ended", "unknown"]) == stand
    assert desk.do(overview.counts) == {("errand", "queued"): 2}


def test_failed_work_is_sent_anew_with_all_its_attempts(desk: Desk) -> None:
    for id in ("a", "b"):
        desk.put(id)
    for job in desk.claim():
        desk.do(queue.end, job, State.FAILED, Problem("Away", "nobody answers"))

    assert desk.do(queue.resend, NAMES, ["a", "unknown"]) == 1
    assert desk.do(queue.resend, NAMES) == 1
    assert {job.failures for job in desk.claim()} == {0}


def test_what_ended_long_ago_is_forgotten(desk: Desk) -> None:
    for id in ("old", "open"):
        desk.put(id)
    desk.do(queue.cancel, "old", NAMES)
    key = Key("0" * 64, "1" * 64)
    desk.do(keys.take, key, Made("job", "x", is_ready=False), "alice", LEASE)
    hour = timedelta(hours=1)

    assert desk.do(overview.sweep, hour, hour) == 0
    assert desk.do(overview.sweep, -hour, -hour) == 1
    assert desk.find("open").state is State.QUEUED
    made = Made("job", "y", is_ready=False)
    assert desk.do(keys.take, key, made, "alice", LEASE) == made


def test_what_nobody_could_do_for_a_day_ends(desk: Desk) -> None:
    desk.put("lost", place="a spool that is gone", then=(Work("letter", {}),))
    desk.put("patient", retry=Retry(patience_seconds=10**9))
    with desk.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET created_at = '2020-01-01 00:00:00.000000'"))
    desk.put("young")

    assert desk.do(overview.expire) == 1
    lost = desk.find("lost")
    assert (lost.state, lost.problem and lost.problem.detail) == (
        State.FAILED,
        "not done in 24 hours",
    )
    assert {desk.find(id).state for id in ("patient", "young")} == {State.QUEUED}
    assert len(desk.do(overview.recent, ["letter"], [State.QUEUED], 10)) == 1


def test_waits_double_up_to_the_longest() -> None:
    retry = Retry(attempts=12, first_seconds=5, longest_seconds=60)

    assert [retry.wait_seconds(failures) for failures in range(1, 7)] == [5, 10, 20, 40, 60, 60]
    assert retry.wait_seconds(10_000) == 60


def test_workers_that_were_all_away_come_back_at_once(desk: Desk) -> None:
    names = [f"worker {n}" for n in range(8)]
    for _ in range(5):
        for name in names:
            desk.beat(name)
            desk.die(name)
        with ThreadPoolExecutor(len(names)) as threads:
            list(threads.map(desk.beat, names))

        with Session(desk.engine) as session:
            assert all(workers.is_alive(session, name, LEASE) for name in names)
