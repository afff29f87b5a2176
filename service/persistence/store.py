"""Diagnoses, reports and answers in SQL, and what people make of them."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from retrieval import database as reference
from retrieval.neighbour import ReferenceCase
from service.audit import event as audit
from service.domain import Answer, Diagnosis, Report, Result
from service.errors import NotFound
from service.persistence import codec, reviews, trail
from service.persistence.codec import Kept
from service.persistence.database import require_room, writing
from service.persistence.records import AnswerRecord, DiagnosisRecord, ReportRecord
from service.review import Review, Reviewed, Wanted, WeekOfTask

LONGEST_PAGE = 500
EVERYTHING = Wanted()

Done = TypeVar("Done")
Record = DiagnosisRecord | ReportRecord | AnswerRecord

RECORDS: Mapping[type[Result], type[Record]] = {
    Diagnosis: DiagnosisRecord,
    Report: ReportRecord,
    Answer: AnswerRecord,
}


class SqlStore:
    """Every result, whole. Works in threads; the engine's owner disposes of it.

    What the database itself refuses (disk full, connection lost) is SQLAlchemy's error.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def save(self, result: Result) -> None:
        """Durable when this returns. The same id again replaces, so that a job may be repeated."""
        await asyncio.to_thread(self._save, result)

    async def get(self, kind: type[Kept], id: str) -> Kept:
        """The result of this kind as it was saved; raises NotFound."""
        return await asyncio.to_thread(self._get, kind, id)

    async def page(
        self, wanted: Wanted = EVERYTHING, limit: int = 50, after: str | None = None
    ) -> tuple[Reviewed, ...]:
        """Diagnoses with the review that counts, newest first, at most 500.

        `after` is the id of the last diagnosis of the page before; raises NotFound for an
        unknown one.
        """
        some = max(0, min(limit, LONGEST_PAGE))
        return await self._in_session(lambda session: reviews.page(session, wanted, some, after))

    async def review(self, review: Review) -> None:
        """Adds a review to those of its diagnosis; raises NotFound."""
        await asyncio.to_thread(self._review, review)

    async def reviews(self, diagnosis_id: str) -> tuple[Review, ...]:
        """All reviews of one diagnosis, the one that counts first; raises NotFound."""
        return await self._in_session(lambda session: reviews.of(session, diagnosis_id))

    async def weeks(
        self, count: int, today: date, task: str | None = None, *, by_model: bool = False
    ) -> tuple[WeekOfTask, ...]:
        """What became of the diagnoses of the last weeks, by week and task."""
        return await self._in_session(
            lambda session: reviews.weeks(session, count, today, task, by_model=by_model)
        )

    async def cases(
        self, task: str, limit: int = 50, after: str | None = None
    ) -> tuple[ReferenceCase, ...]:
        """A page of a task's reference cases by id; `after` is the last id seen."""
        some = max(0, min(limit, LONGEST_PAGE))
        return await asyncio.to_thread(reference.cases, self._engine, task, limit=some, after=after)

    async def thumbnail(self, case_id: str) -> bytes | None:
        """The small picture of a reference case, None where there is none."""
        return await asyncio.to_thread(reference.thumbnail, self._engine, case_id)

    async def check(self) -> None:
        """Returns when diagnoses can be read, and a file has room for more; raises Overloaded."""
        await asyncio.to_thread(self._check)

    def _save(self, result: Result) -> None:
        with Session(self._engine) as session, session.begin():
            add(session, result)

    def _get(self, kind: type[Kept], id: str) -> Kept:
        with Session(self._engine) as session:
            record = session.get(record_of(kind), id)
            if record is None:
                raise NotFound(f"no {kind.__name__.lower()} {id[:80]!r}")
            return codec.decode(kind, record.document)

    def _review(self, review: Review) -> None:
        with writing(self._engine) as session:
            reviews.add(session, review)

    async def _in_session(self, work: Callable[[Session], Done]) -> Done:
        return await asyncio.to_thread(self._committed, work)

    def _committed(self, work: Callable[[Session], Done]) -> Done:
        with Session(self._engine) as session, session.begin():
            return work(session)

    def _check(self) -> None:
        """Reads only: to ask for the right to write would wait behind every writer."""
        if self._engine.dialect.name == "sqlite":
            require_room(Path(str(self._engine.url.database)).parent)
        with Session(self._engine) as session:
            session.execute(select(DiagnosisRecord.id).limit(1))


def add(session: Session, result: Result) -> None:
    """The result and that it was made, once the caller's transaction is committed.

    The last thing in a transaction: see `trail.append`.
    """
    record = session.merge(_record(result))
    session.flush()
    trail.append(session, audit.created(result, record.document))


def record_of(kind: type[Any]) -> type[DiagnosisRecord]:
    """The table of a kind of result; what a diagnosis has and others have not is not to be used."""
    return cast("type[DiagnosisRecord]", RECORDS[kind])


def _record(result: Result) -> Record:
    fields: dict[str, Any] = {
        "id": result.id,
        "created_at": result.created_at,
        "task": result.task,
        "needs_review": result.needs_review,
        "input_sha256": result.provenance.input_sha256,
        "document": codec.encode(result),
    }
    if isinstance(result, Diagnosis):
        fields["labels"] = list(result.final.labels)
    return RECORDS[type(result)](**fields)
