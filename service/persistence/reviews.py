"""Reviews in SQL: what is written, listed and counted of them, each in one session."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, exists, func, null, select, tuple_
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.selectable import ForUpdateArg

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
    find(session, review.diagnosis, stays=True)
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
    session: Session, count: int, today: date, task: str | None = None, *, by_model: bool = False
) -> tuple[WeekOfTask, ...]:
    """The last weeks by task, the present one last; weeks without a diagnosis are left out.

    `by_model` parts them by the generalist and its weights too, which reads every document.
    """
    monday = today - timedelta(days=today.weekday())
    days = [monday - WEEK * back for back in reversed(range(count))]
    starts = [datetime.combine(day, time(), UTC) for day in days]
    row = DiagnosisRecord
    within = row.created_at >= starts[0], row.created_at < starts[-1] + WEEK
    number = case(*((row.created_at < start + WEEK, n) for n, start in enumerate(starts)))
    counted = _counted_by(number, by_model=by_model).where(*within, *_conditions(Wanted(task)))
    return tuple(
        WeekOfTask(name, days[number], *figures)
        for number, name, *figures in session.execute(counted)
    )


def find(session: Session, diagnosis_id: str, *, stays: bool = False) -> DiagnosisRecord:
    """Raises NotFound. `stays`: nobody erases it before the transaction has ended."""
    lock = ForUpdateArg(read=True, key_share=True) if stays else None
    record = session.get(DiagnosisRecord, diagnosis_id, with_for_update=lock)
    if record is None:
        raise NotFound(f"no diagnosis {diagnosis_id[:80]!r}")
    return record


def _with_review(rows: Any) -> Any:
    """Beside each diagnosis the review that counts, or NULL."""
    # Joined by the diagnosis, and not by the number: PostgreSQL would read every review for that.
    row, later = ReviewRecord, aliased(ReviewRecord)
    of_it = row.diagnosis_id == DiagnosisRecord.id
    is_followed = exists().where(later.diagnosis_id == row.diagnosis_id, later.number > row.number)
    return rows.select_from(DiagnosisRecord).outerjoin(row, and_(of_it, ~is_followed))


def _conditions(wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    if wanted.task is not None:
        yield DiagnosisRecord.task == wanted.task
    if wanted.needs_review is not None:
        yield DiagnosisRecord.needs_review.is_(wanted.needs_review)
    if wanted.reviewed is not None:
        missing = ReviewRecord.number.is_(None)
        yield ~missing if wanted.reviewed else missing


def _counted_by(week: ColumnElement[int], *, by_model: bool) -> Any:
    """What became of diagnoses by week and task, all in one pass over them."""
    row = DiagnosisRecord
    named, made_by = week.label("week"), row.document["provenance"]["generalist"]
    model, weights = made_by["model"].as_string(), made_by["weights_sha256"].as_string()
    counted = select(
        named,
        row.task,
        func.count(),
        _count(row.needs_review),
        _count(ReviewRecord.decision == Decision.ACCEPT),
        _count(ReviewRecord.decision == Decision.OVERRIDE),
        (model if by_model else null()).label("model"),
        (weights if by_model else null()).label("weights"),
    )
    # By their names: PostgreSQL takes two paths with parameters for two expressions.
    groups = (named, row.task, "model", "weights") if by_model else (named, row.task)
    return _with_review(counted).group_by(*groups).order_by(*groups)


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
