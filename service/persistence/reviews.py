"""Reviews in SQL: what is written, listed and counted of them, each in one session."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, func, select, tuple_
from sqlalchemy.orm import Session

from service.audit import event as audit
from service.domain import Diagnosis
from service.errors import NotFound
from service.persistence import codec, trail
from service.persistence.records import DiagnosisRecord, ReviewRecord
from service.review import Decision, Review, Reviewed, Wanted, WeekOfTask

WEEK = timedelta(days=7)


def add(session: Session, review: Review) -> None:
    """Adds a review, and that it was made, to the caller's transaction; raises NotFound.

    The last thing in a transaction: see `trail.append`.
    """
    find(session, review.diagnosis)
    session.add(
        ReviewRecord(
            diagnosis_id=review.diagnosis,
            created_at=review.created_at,
            reviewer=review.reviewer,
            decision=review.decision,
            labels=list(review.labels),
            comment=review.comment,
        )
    )
    session.flush()
    said = review.decision.value, review.labels, review.comment
    trail.append(session, audit.reviewed(review.diagnosis, review.reviewer, *said))


def of(session: Session, diagnosis_id: str) -> tuple[Review, ...]:
    """All reviews of one diagnosis, the one that counts first; raises NotFound."""
    find(session, diagnosis_id)
    row = ReviewRecord
    wanted = select(row).where(row.diagnosis_id == diagnosis_id).order_by(row.number.desc())
    return tuple(_review(record) for record in session.scalars(wanted))


def page(session: Session, wanted: Wanted, limit: int, after: str | None) -> tuple[Reviewed, ...]:
    """Diagnoses with the review that counts, newest first; `after` is the last one seen."""
    row = DiagnosisRecord
    rows = _with_review(select(row.document, ReviewRecord)).where(*_conditions(wanted))
    if after is not None:
        last = find(session, after)
        rows = rows.where(tuple_(row.created_at, row.id) < (last.created_at, last.id))
    rows = rows.order_by(row.created_at.desc(), row.id.desc()).limit(limit)
    return tuple(
        Reviewed(codec.decode(Diagnosis, document), record and _review(record))
        for document, record in session.execute(rows)
    )


def weeks(
    session: Session, count: int, today: date, task: str | None = None
) -> tuple[WeekOfTask, ...]:
    """The last weeks by task, the present one last; weeks without a diagnosis are left out."""
    monday = today - timedelta(days=today.weekday())
    days = [monday - WEEK * back for back in reversed(range(count))]
    return tuple(figures for day in days for figures in _week(session, day, task))


def find(session: Session, diagnosis_id: str) -> DiagnosisRecord:
    """Raises NotFound."""
    record = session.get(DiagnosisRecord, diagnosis_id)
    if record is None:
        raise NotFound(f"no diagnosis {diagnosis_id[:80]!r}")
    return record


def _with_review(rows: Any) -> Any:
    """Beside each diagnosis the review that counts, or NULL."""
    row = DiagnosisRecord
    latest = (
        select(func.max(ReviewRecord.number))
        .where(ReviewRecord.diagnosis_id == row.id)
        .correlate(row)
        .scalar_subquery()
    )
    return rows.select_from(row).outerjoin(ReviewRecord, ReviewRecord.number == latest)


def _conditions(wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    if wanted.task is not None:
        yield DiagnosisRecord.task == wanted.task
    if wanted.needs_review is not None:
        yield DiagnosisRecord.needs_review.is_(wanted.needs_review)
    if wanted.reviewed is not None:
        missing = ReviewRecord.number.is_(None)
        yield ~missing if wanted.reviewed else missing


def _week(session: Session, monday: date, task: str | None) -> Iterator[WeekOfTask]:
    row = DiagnosisRecord
    start = datetime.combine(monday, time(), UTC)
    counted = _with_review(
        select(
            row.task,
            func.count(),
            _count(row.needs_review),
            _count(ReviewRecord.decision == Decision.ACCEPT),
            _count(ReviewRecord.decision == Decision.OVERRIDE),
        )
    ).where(row.created_at >= start, row.created_at < start + WEEK, *_conditions(Wanted(task)))
    for name, *figures in session.execute(counted.group_by(row.task).order_by(row.task)):
        yield WeekOfTask(name, monday, *figures)


def _count(condition: Any) -> ColumnElement[int]:
    return func.count(case((condition, 1)))


def _review(record: ReviewRecord) -> Review:
    return Review(
        diagnosis=record.diagnosis_id,
        created_at=record.created_at,
        reviewer=record.reviewer,
        decision=Decision(record.decision),
        labels=tuple(record.labels),
        comment=record.comment,
    )
