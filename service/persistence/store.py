"""Diagnoses in SQL."""

import asyncio

from sqlalchemy import Engine, select, tuple_
from sqlalchemy.orm import Session

from service.domain import Diagnosis
from service.errors import NotFound
from service.persistence import codec
from service.persistence.records import DiagnosisRecord

LONGEST_PAGE = 500


class SqlStore:
    """Every diagnosis, whole. Works in threads; the engine's owner disposes of it.

    What the database itself refuses (disk full, connection lost) is SQLAlchemy's error.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def save(self, diagnosis: Diagnosis) -> None:
        """Durable when this returns. The same id again replaces, so that a job may be repeated."""
        await asyncio.to_thread(self._save, diagnosis)

    async def get(self, diagnosis_id: str) -> Diagnosis:
        """The diagnosis as it was saved; raises NotFound."""
        return await asyncio.to_thread(self._get, diagnosis_id)

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

    def _save(self, diagnosis: Diagnosis) -> None:
        with Session(self._engine) as session, session.begin():
            session.merge(_record(diagnosis))

    def _get(self, diagnosis_id: str) -> Diagnosis:
        with Session(self._engine) as session:
            return codec.decode(_find(session, diagnosis_id).document)

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
            return tuple(codec.decode(document) for document in page)

    def _check(self) -> None:
        """Reads only: to ask for the right to write would wait behind every writer."""
        with Session(self._engine) as session:
            session.execute(select(DiagnosisRecord.id).limit(1))


def _find(session: Session, diagnosis_id: str) -> DiagnosisRecord:
    record = session.get(DiagnosisRecord, diagnosis_id)
    if record is None:
        raise NotFound(f"no diagnosis {diagnosis_id[:80]!r}")
    return record


def _record(diagnosis: Diagnosis) -> DiagnosisRecord:
    return DiagnosisRecord(
        id=diagnosis.id,
        created_at=diagnosis.created_at,
        task=diagnosis.task,
        labels=list(diagnosis.final.labels),
        needs_review=diagnosis.needs_review,
        input_sha256=diagnosis.provenance.input_sha256,
        document=codec.encode(diagnosis),
    )
