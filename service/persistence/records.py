"""Table rows of the service."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    MetaData,
    SmallInteger,
    String,
    Text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from retrieval.records import NAMING, UtcDateTime
from retrieval.records import Base as RetrievalBase

LONGEST_NAME = 260
"""Of a caller: `user:` and what an issuer may call a person."""
LONGEST_SUBJECT = 256
"""Of an event of the audit: `reference-case/` and the longest id, with room."""


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


class DiagnosisRecord(Base):
    """One diagnosis: the whole of it in `document`, and beside it what is searched for."""

    __tablename__ = "diagnoses"
    __table_args__ = (
        Index(None, "created_at", "id"),
        Index(None, "task", "created_at", "id"),
        Index(None, "needs_review", "created_at", "id", "task"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    task: Mapped[str] = mapped_column(String(64))
    labels: Mapped[list[str]] = mapped_column(JSON)
    needs_review: Mapped[bool] = mapped_column(Boolean)
    input_sha256: Mapped[str] = mapped_column(String(64), index=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSON)


class _WrittenRecord:
    """What reports and answers have in common: the whole in `document`."""

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    task: Mapped[str] = mapped_column(String(64))
    needs_review: Mapped[bool] = mapped_column(Boolean)
    input_sha256: Mapped[str] = mapped_column(String(64), index=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSON)


class ReportRecord(_WrittenRecord, Base):
    """One draft report."""

    __tablename__ = "reports"


class AnswerRecord(_WrittenRecord, Base):
    """One answer to a question."""

    __tablename__ = "answers"


class JobRecord(Base):
    """Work that is done once, whoever dies meanwhile: see `service.jobs`.

    `attempts` counts every start and, with `owner`, says whose turn it is; `failures` and
    `interruptions` count how attempts ended. `place` is the spool that holds what the work needs.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "state", "name", "priority", "created_at"),
        Index(None, "ended_at"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    argument: Mapped[dict[str, Any]] = mapped_column(JSON)
    then: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    retry: Mapped[dict[str, Any]] = mapped_column(JSON)
    priority: Mapped[int] = mapped_column(SmallInteger)
    place: Mapped[str | None] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16))
    owner: Mapped[str | None] = mapped_column(String(64))
    attempts: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    interruptions: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class WorkerRecord(Base):
    """A process that works on jobs, and when it was last known to live."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)


class KeyRecord(Base):
    """A caller's Idempotency-Key, only as its hash, and what was or is being made under it."""

    __tablename__ = "idempotency_keys"

    key_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    target: Mapped[str] = mapped_column(String(64))
    owner: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class ApiKeyRecord(Base):
    """What is known of an API key: of the key itself only the hash."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    sha256: Mapped[str] = mapped_column(String(64))
    rate: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class AuditEventRecord(Base):
    """One event of the audit: `entry` is the text that `sha256` covers (`service.audit.chain`).

    Triggers refuse to change or delete a row.
    """

    __tablename__ = "audit_events"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    subject: Mapped[str] = mapped_column(String(LONGEST_SUBJECT), index=True)
    entry: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))


class AuditHeadRecord(Base):
    """The one row that whoever appends to the audit holds: number and hash of the last event."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))


class ReviewRecord(Base):
    """One review of a diagnosis. The highest number of a diagnosis is the review that counts."""

    __tablename__ = "reviews"
    __table_args__ = (Index(None, "diagnosis_id", "number"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    diagnosis_id: Mapped[str] = mapped_column(ForeignKey("diagnoses.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    reviewer: Mapped[str] = mapped_column(String(LONGEST_NAME))
    decision: Mapped[str] = mapped_column(String(16))
    labels: Mapped[list[str]] = mapped_column(JSON)
    comment: Mapped[str] = mapped_column(Text)


METADATA = (RetrievalBase.metadata, Base.metadata)
"""Every table of the database, for the migrations."""
