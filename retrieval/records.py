"""Table rows of retrieval: the reference cases, and what every specialist makes of them.

These rows are the truth. A FAISS index holds only keys and vectors and can be built again from
here at any time.
"""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from retrieval.neighbour import ReferenceCase

Then = Callable[[Session, tuple[str, ...]], None]
"""What else happens in the transaction that stores or removes cases, given their ids."""

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, kept in UTC; SQLite forgets time zones, so they are put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment without a time zone cannot be stored")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


class ReferenceCaseRecord(Base):
    """One reference case. `key` is what FAISS calls it: see `key_of`."""

    __tablename__ = "reference_cases"
    __table_args__ = (
        UniqueConstraint("task", "image_sha256"),
        Index(None, "task", "group"),
    )

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    key: Mapped[int] = mapped_column(BigInteger, unique=True)
    task: Mapped[str] = mapped_column(String(64))
    labels: Mapped[list[str]] = mapped_column(JSON)
    report: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(String(500))
    licence: Mapped[str] = mapped_column(String(200))
    modality: Mapped[str] = mapped_column(String(64), server_default="")
    group: Mapped[str] = mapped_column(String(200))
    image_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    thumbnail: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)


class ReferenceVectorRecord(Base):
    """Where one specialist places a reference case: little-endian float32, unit length."""

    __tablename__ = "reference_vectors"

    task: Mapped[str] = mapped_column(String(64), primary_key=True)
    specialist: Mapped[str] = mapped_column(String(64), primary_key=True)
    case_id: Mapped[str] = mapped_column(
        ForeignKey("reference_cases.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    encoder_sha256: Mapped[str] = mapped_column(String(64))
    vector: Mapped[bytes] = mapped_column(LargeBinary)
    stored_at: Mapped[datetime] = mapped_column(UtcDateTime)


def key_of(case: ReferenceCase) -> int:
    """The 63-bit number that stands for a case in FAISS, made from its task, id and image.

    Made from the content and never counted up, so that an index left over from another database
    can miss a case but can never name the wrong one.
    """
    content = "\0".join((case.task, case.id, case.image_sha256)).encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


def case_of(record: ReferenceCaseRecord) -> ReferenceCase:
    """The domain value a row stands for."""
    return ReferenceCase(
        id=record.id,
        task=record.task,
        labels=tuple(record.labels),
        image_sha256=record.image_sha256,
        group=record.group,
        report=record.report,
        source=record.source,
        licence=record.licence,
        modality=record.modality,
    )
