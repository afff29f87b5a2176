"""Who works on jobs: who lives, and what becomes of the jobs of those who do not."""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from service.jobs import queue
from service.jobs.job import Problem, State
from service.persistence.records import JobRecord, WorkerRecord

MOST_INTERRUPTIONS = 10
"""Work whose workers died so often is what kills them."""


def beat(session: Session, worker: str, lease_seconds: float, running: Collection[str]) -> set[str]:
    """Says that this worker lives and runs these jobs; the ids of those that are still its own.

    Jobs of workers that were not seen for the time of a lease, and those that this one claimed
    and does not run, go back into the queue; one that was interrupted too often fails.
    """
    others = _living(session, worker, lease_seconds) - {worker}
    mine = (JobRecord.owner == worker) & JobRecord.id.in_(running)
    abandoned = (
        select(JobRecord)
        .where(JobRecord.state == State.RUNNING, JobRecord.owner.not_in(others), ~mine)
        .with_for_update(skip_locked=True)
    )
    for record in session.scalars(abandoned).all():
        _recover(session, record)
    return set(session.scalars(select(JobRecord.id).where(JobRecord.state == State.RUNNING, mine)))


def retire(session: Session, worker: str) -> None:
    """A worker that stops gives back what it has, which was no fault of the work."""
    its_own = (JobRecord.state == State.RUNNING) & (JobRecord.owner == worker)
    for record in session.scalars(select(JobRecord).where(its_own).with_for_update()).all():
        queue.requeue(record, None)
    session.execute(delete(WorkerRecord).where(WorkerRecord.id == worker))


def is_alive(session: Session, worker: str | None, lease_seconds: float) -> bool:
    """Whether this worker was seen within the time of a lease."""
    record = session.get(WorkerRecord, worker) if worker else None
    lease = timedelta(seconds=lease_seconds)
    return record is not None and abs(queue.now(session) - record.seen_at) <= lease


def _living(session: Session, worker: str, lease_seconds: float) -> set[str]:
    """Everybody who was seen lately, this worker too; the others are forgotten."""
    moment, lease = queue.now(session), timedelta(seconds=lease_seconds)
    _seen(session, worker, moment)
    # Between: a clock that was put back must not keep the dead alive.
    lately: ColumnElement[bool] = WorkerRecord.seen_at.between(moment - lease, moment + lease)
    living = set(session.scalars(select(WorkerRecord.id).where(lately)))
    # By the time, and not by name: one of them may have come back meanwhile.
    session.execute(delete(WorkerRecord).where(~lately))
    return living


def _seen(session: Session, worker: str, moment: datetime) -> None:
    """Locked: others forget those who were not seen for long, and this may be one."""
    record = session.get(WorkerRecord, worker, with_for_update=True)
    if record is None:
        session.add(WorkerRecord(id=worker, seen_at=moment))
    else:
        record.seen_at = moment
    session.flush()


def _recover(session: Session, record: JobRecord) -> None:
    record.interruptions += 1
    if record.interruptions < MOST_INTERRUPTIONS:
        queue.requeue(record, None)
        return
    times = f"its worker ended {record.interruptions} times while it was being done"
    queue.ended(session, record, State.FAILED, Problem("Interrupted", times))
