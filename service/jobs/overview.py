"""What is in the queue, for limits, figures and lists; and what is forgotten in time."""

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from retrieval.database import chunks
from service.jobs.job import Job, Problem, Retry, State
from service.jobs.queue import ended, now
from service.jobs.rows import job_of
from service.persistence.records import JobRecord, KeyRecord

ENDED = tuple(state for state in State if state.has_ended)
SWEPT = 500
"""At most so many jobs are forgotten at once."""


def backlog(session: Session, names: Collection[str], place: str | None) -> tuple[int, int]:
    """How many jobs have not ended, and how many bytes those of this place keep in it."""
    row = JobRecord
    size = func.coalesce(func.sum(row.size_bytes).filter(row.place == place), 0)
    counted = select(func.count(), size).where(_is_open(), row.name.in_(names))
    count, total = session.execute(counted).one()
    return int(count), int(total)


def states(session: Session, ids: Collection[str]) -> dict[str, State]:
    """How those of these jobs stand that are known."""
    row, found = JobRecord, {}
    for some in chunks(list(ids)):
        asked = select(row.id, row.state).where(row.id.in_(some))
        found.update({id: State(state) for id, state in session.execute(asked)})
    return found


def recent(
    session: Session, names: Collection[str], states: Collection[State], limit: int
) -> tuple[Job, ...]:
    """The newest jobs of these names and states."""
    wanted = (
        select(JobRecord)
        .where(JobRecord.name.in_(names), JobRecord.state.in_(states))
        .order_by(JobRecord.created_at.desc(), JobRecord.id)
        .limit(limit)
    )
    return tuple(map(job_of, session.scalars(wanted)))


def counts(session: Session) -> dict[tuple[str, str], int]:
    """How many jobs wait, run or have failed, by name and state."""
    row = JobRecord
    told = (State.QUEUED, State.RUNNING, State.FAILED)
    counted = (
        select(row.name, row.state, func.count())
        .where(row.state.in_(told))
        .group_by(row.name, row.state)
    )
    return {(name, state): int(count) for name, state, count in session.execute(counted)}


def ages(session: Session) -> dict[tuple[str, str], float]:
    """Seconds since the oldest job came in that waits or runs, by name and state."""
    row, moment = JobRecord, now(session)
    oldest = func.min(row.created_at)
    found = select(row.name, row.state, oldest).where(_is_open()).group_by(row.name, row.state)
    return {
        (name, state): max(0.0, (moment - since).total_seconds())
        for name, state, since in session.execute(found)
    }


def sweep(session: Session, keep: timedelta, keep_keys: timedelta) -> int:
    """Forgets jobs that ended, and keys that were sent, longer ago; how many jobs."""
    moment, row = now(session), JobRecord
    is_old = row.ended_at < moment - keep
    gone = session.scalars(select(row.id).where(row.state.in_(ENDED), is_old).limit(SWEPT)).all()
    session.execute(delete(row).where(row.id.in_(gone)))
    session.execute(delete(KeyRecord).where(KeyRecord.created_at < moment - keep_keys))
    return len(gone)


def expire(session: Session) -> int:
    """Ends what waited for longer than its patience; how many, 500 at most.

    Its turn never came: those who have its image, or know its name, are gone.
    """
    moment, row = now(session), JobRecord
    waits_for_long = row.created_at < moment - timedelta(seconds=Retry().patience_seconds)
    waiting = select(row).where(row.state == State.QUEUED, waits_for_long).limit(SWEPT)
    records = session.scalars(waiting.with_for_update(skip_locked=True)).all()
    patience = {record.id: job_of(record).work.retry.patience_seconds for record in records}
    expired = [r for r in records if (moment - r.created_at).total_seconds() > patience[r.id]]
    for record in expired:
        hours = f"{patience[record.id] / 3600:g}"
        ended(session, record, State.FAILED, Problem("Overloaded", f"not done in {hours} hours"))
    return len(expired)


def _is_open() -> ColumnElement[bool]:
    return JobRecord.state.in_([State.QUEUED, State.RUNNING])
