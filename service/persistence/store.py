"""Diagnoses, reports and answers in SQL."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import Engine, select, tuple_
from sqlalchemy.orm import Session

from service.audit import event as audit
from service.domain import Answer, Diagnosis, Report, Result
from service.errors import NotFound
from service.persistence import codec, trail
from service.persistence.codec import Kept
from service.persistence.records import AnswerRecord, DiagnosisRecord, ReportRecord

LONGEST_PAGE = 500

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

    async def recent(
        self, limit: int = 50, before: str | None = None, task: str | None = None
    ) -> tuple[Diagnosis, ...]:
        """The newest diagnoses, newest first, at most 500; of one task where it is given.

        `before` is the id of the last diagnosis of the page before; raises NotFound for an
        unknown one.
        """
        return await asyncio.to_thread(self._recent, limit, before, task)

    async def check(self) -> None:
        """Returns when diagnoses can be read."""
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

    def _recent(self, limit: int, before: str | None, task: str | None) -> tuple[Diagnosis, ...]:
        row = DiagnosisRecord
        wanted = select(row.document).order_by(row.created_at.desc(), row.id.desc())
        if task is not None:
            wanted = wanted.where(row.task == task)
        with Session(self._engine) as session:
            if before is not None:
                last = _find(session, before)
                wanted = wanted.where(tuple_(row.created_at, row.id) < (last.created_at, last.id))
            page = session.scalars(wanted.limit(max(0, min(limit, LONGEST_PAGE))))
            return tuple(codec.decode(Diagnosis, document) for document in page)

    def _check(self) -> None:
        """Reads only: to ask for the right to write would wait behind every writer."""
        with Session(self._engine) as session:
            session.execute(select(DiagnosisRecord.id).limit(1))


def add(session: Session, result: Result) -> None:
    """The result and that it was made, once the caller's transaction is committed.

    The last thing in a transaction: see `trail.append`.
    """
    record = session.merge(_record(result))
    session.flush()
    trail.append(session, audit.created(result, record.document))


def _find(session: Session, diagnosis_id: str) -> DiagnosisRecord:
    record = session.get(DiagnosisRecord, diagnosis_id)
    if record is None:
        raise NotFound(f"no diagnosis {diagnosis_id[:80]!r}")
    return record


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
