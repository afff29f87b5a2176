"""Jobs ↔ their rows."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from service.jobs.job import Job, Priority, Problem, Retry, State, Work
from service.persistence.records import JobRecord


def record_of(work: Work, moment: datetime) -> JobRecord:
    """The row of work that is put into the queue at this moment."""
    return JobRecord(
        id=work.id,
        name=work.name,
        argument=work.argument,
        then=[_told(follower) for follower in work.then],
        retry=asdict(work.retry),
        priority=work.priority.value,
        place=work.place,
        size_bytes=work.size_bytes,
        state=State.QUEUED.value,
        attempts=0,
        failures=0,
        interruptions=0,
        created_at=moment,
    )


def job_of(record: JobRecord) -> Job:
    """The job that a row stands for."""
    return Job(
        work=_work(record),
        state=State(record.state),
        created_at=record.created_at,
        due_at=record.due_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
        owner=record.owner,
        attempts=record.attempts,
        failures=record.failures,
        interruptions=record.interruptions,
        problem=Problem(**record.problem) if record.problem else None,
    )


def encoded(problem: Problem | None) -> dict[str, str] | None:
    return asdict(problem) if problem else None


def _work(record: JobRecord) -> Work:
    return Work(
        name=record.name,
        argument=record.argument,
        retry=Retry(**record.retry),
        priority=Priority(record.priority),
        then=tuple(_follower(told) for told in record.then),
        place=record.place,
        size_bytes=record.size_bytes,
        id=record.id,
    )


def _told(follower: Work) -> dict[str, Any]:
    return {
        "name": follower.name,
        "argument": follower.argument,
        "retry": asdict(follower.retry),
        "priority": follower.priority.value,
        "place": follower.place,
        "size_bytes": follower.size_bytes,
        "key": follower.key,
    }


def _follower(told: Mapping[str, Any]) -> Work:
    """Rows of an earlier version say less of what follows."""
    given = {name: told[name] for name in ("place", "size_bytes", "key") if name in told}
    retry, priority = Retry(**told["retry"]), Priority(told["priority"])
    return Work(told["name"], told["argument"], retry, priority, **given)
