"""Table rows of the service."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Boolean, Index, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from retrieval.records import NAMING, UtcDateTime
from retrieval.records import Base as RetrievalBase


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


class DiagnosisRecord(Base):
    """One diagnosis: the whole of it in `document`, and beside it what is searched for."""

    __tablename__ = "diagnoses"
    __table_args__ = (
        Index(None, "created_at", "id"),
        Index(None, "task", "created_at", "id"),
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


METADATA = (RetrievalBase.metadata, Base.metadata)
"""Every table of the database, for the migrations."""
