"""The durable queue: one SQL table, on SQLite or PostgreSQL, for as many processes as there are.

Work is put in, claimed by one worker, and ends once. A worker that is no longer seen loses what it
had claimed; should it come back, it finds its turn gone (JobLost) and what it made is void.
The functions take part in the caller's transaction, so that an end and what follows from it are
one. All of them block: ask through `Queue`.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import ColumnElement, Engine, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.errors import JobEnded, JobLost, NotFound
from service.jobs.job import Job, Problem, State, Work
from service.jobs.rows import encoded, job_of, record_of
from service.persistence.database import writing
from service.persistence.records import JobRecord

_THREADS = 4

P = ParamSpec("P")
T = TypeVar("T")


class Queue:
    """The queue of one database, asked from the event loop; the engine stays its owner's."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # Threads of its own: a worker that waits behind others to say that it lives counts as dead.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="jobs")
        self._listeners: list[Callable[[], None]] = []

    async def run(
        self, act: Callable[Concatenate[Session, P], T], *given: P.args, **named: P.kwargs
    ) -> T:
        """What a function of a session returns, once its transaction is committed."""

        def transact() -> T:
            with writing(self.engine) as session:
                return act(session, *given, **named)

        return await asyncio.get_running_loop().run_in_executor(self._threads, transact)

    async def read(
        self, ask: Callable[Concatenate[Session, P], T], *given: P.args, **named: P.kwargs
    ) -> T:
        """What a function that only reads returns; it waits for nobody who writes."""

        def look() -> T:
            with Session(self.engine) as session:
                return ask(session, *given, **named)

        return await asyncio.get_running_loop().run_in_executor(self._threads, look)

    async def put(self, work: Work) -> bool:
        """Durable when this returns; False where work of this id was there already."""
        is_new = await self.run(put, work)
        self.wake()
        return is_new

    def wake(self) -> None:
        """Tells this process's workers that there may be something to do."""
        for listener in self._listeners:
            listener()

    def when_woken(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def close(self) -> None:
        """Waits for the transactions that are under way."""
        self._threads.shutdown()


def now(session: Session) -> datetime:
    """The database's clock, so that several machines agree on who is late."""
    if session.get_bind().dialect.name != "postgresql":
        return datetime.now(UTC)
    moment: datetime = session.scalars(select(func.clock_timestamp())).one()
    return moment


def put(session: Session, work: Work) -> bool:
    """Puts work into the queue; False, and nothing is changed, where its id is there already."""
    try:
        with session.begin_nested():
            session.add(record_of(work, now(session)))
    except IntegrityError:
        return False
    return True


def find(session: Session, id: str, names: Collection[str]) -> Job:
    """A job of one of these names; raises NotFound."""
    return job_of(_found(session, id, names))


def is_due(session: Session, names: Collection[str], place: str | None) -> bool:
    """Whether there is something to claim; locks nothing."""
    wanted = select(JobRecord.id).where(*_claimable(session, names, place)).limit(1)
    return session.scalar(wanted) is not None


def claim(
    session: Session, worker: str, names: Collection[str], place: str | None, count: int
) -> tuple[Job, ...]:
    """Up to `count` jobs that are this worker's from now on; urgent ones first, then the oldest."""
    row = JobRecord
    wanted = (
        select(row)
        .where(*_claimable(session, names, place))
        .order_by(row.priority.desc(), row.created_at, row.id)
        .limit(count)
        .with_for_update(skip_locked=True)
    )
    claimed, moment = session.scalars(wanted).all(), now(session)
    for record in claimed:
        record.state, record.owner = State.RUNNING.value, worker
        record.attempts += 1
        record.started_at = moment
    return tuple(map(job_of, claimed))


def end(session: Session, job: Job, state: State, problem: Problem | None = None) -> Job:
    """The end of a job, by the worker that claimed it; raises JobLost where it no longer holds."""
    return job_of(ended(session, held(session, job), state, problem))


def release(
    session: Session,
    job: Job,
    wait_seconds: float = 0.0,
    problem: Problem | None = None,
    *,
    failed: bool = False,
) -> None:
    """Back into the queue, for whoever is free then; raises JobLost."""
    record = held(session, job)
    record.failures += failed
    record.problem = encoded(problem)
    requeue(record, now(session) + timedelta(seconds=wait_seconds))


def cancel(session: Session, id: str, names: Collection[str]) -> Job:
    """Ends a job that waits or runs, wherever it runs; raises NotFound or JobEnded."""
    record = _found(session, id, names, for_update=True)
    if State(record.state).has_ended:
        raise JobEnded(f"job {id!r} has {_SAID[State(record.state)]} already")
    return job_of(ended(session, record, State.CANCELLED, None))


def resend(session: Session, names: Collection[str], ids: Iterable[str] | None = None) -> int:
    """Failed work of these names back into the queue, with all its attempts before it; how many.

    None of `ids`: all of it.
    """
    wanted = select(JobRecord).where(JobRecord.state == State.FAILED, JobRecord.name.in_(names))
    if ids is not None:
        wanted = wanted.where(JobRecord.id.in_(list(ids)))
    records = session.scalars(wanted.with_for_update()).all()
    for record in records:
        record.failures = record.interruptions = 0
        record.ended_at = None
        record.created_at = now(session)  # from which its patience counts
        requeue(record, None)
    return len(records)


def held(session: Session, job: Job) -> JobRecord:
    """The row of a job that was claimed and still is; raises JobLost."""
    record = session.get(JobRecord, job.id, with_for_update=True)
    turn = record and (record.state, record.owner, record.attempts)
    if record is None or turn != (State.RUNNING, job.owner, job.attempts):
        raise JobLost(f"job {job.id!r} was cancelled, or another worker has it")
    return record


def ended(session: Session, record: JobRecord, state: State, problem: Problem | None) -> JobRecord:
    """The row at its end; what is to be done then is in the queue."""
    record.state, record.owner, record.due_at = state.value, None, None
    record.ended_at = now(session)
    record.problem = encoded(problem)
    work = job_of(record).work
    told = {"id": record.id, "state": state.value, "at": record.ended_at.isoformat()}
    for number, follower in enumerate(work.then):
        argument = {**follower.argument, "ended": told}
        put(session, replace(follower, argument=argument, id=work.id_of_follower(number)))
    return record


def requeue(record: JobRecord, due_at: datetime | None) -> None:
    """The row as of one that waits, until then; None: for nothing but its turn."""
    record.state, record.owner, record.due_at = State.QUEUED.value, None, due_at


_SAID = {State.SUCCEEDED: "succeeded", State.FAILED: "failed", State.CANCELLED: "been cancelled"}


def _found(
    session: Session, id: str, names: Collection[str], *, for_update: bool = False
) -> JobRecord:
    record = session.get(JobRecord, id, with_for_update=for_update or None)
    if record is None or record.name not in names:
        raise NotFound(f"no job {id[:64]!r}")
    return record


def _claimable(
    session: Session, names: Collection[str], place: str | None
) -> tuple[ColumnElement[bool], ...]:
    row = JobRecord
    return (
        row.state == State.QUEUED,
        row.name.in_(names),
        or_(row.due_at.is_(None), row.due_at <= now(session)),
        or_(row.place.is_(None), row.place == place),
    )
