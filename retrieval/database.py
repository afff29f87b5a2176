"""Questions asked of the reference tables. All of them block: ask off the event loop."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, func, or_, select
from sqlalchemy.orm import Session

from retrieval.neighbour import ReferenceCase, Vector
from retrieval.records import ReferenceCaseRecord, ReferenceVectorRecord, case_of

T = TypeVar("T")

CHUNK = 400  # SQLite before 3.32 takes 999 variables in one statement
Keys = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """How many vectors of one encoder are stored for a specialist, and when the last one was."""

    task: str
    specialist: str
    encoder_sha256: str
    count: int
    last_stored: datetime


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Pieces short enough for one SQL statement."""
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))


def cases(
    engine: Engine, task: str, *, limit: int = 100, after: str | None = None
) -> tuple[ReferenceCase, ...]:
    """A page of a task's reference cases in the order of their ids; `after` is the last id seen."""
    wanted = select(ReferenceCaseRecord).where(ReferenceCaseRecord.task == task)
    if after is not None:
        wanted = wanted.where(ReferenceCaseRecord.id > after)
    with Session(engine) as session:
        page = session.scalars(wanted.order_by(ReferenceCaseRecord.id).limit(limit))
        return tuple(case_of(record) for record in page)


def case(engine: Engine, case_id: str) -> ReferenceCase | None:
    """One reference case, None where the id is unknown."""
    with Session(engine) as session:
        record = session.get(ReferenceCaseRecord, case_id)
        return case_of(record) if record else None


def thumbnail(engine: Engine, case_id: str) -> bytes | None:
    """The small picture stored with a case, None where there is none."""
    wanted = select(ReferenceCaseRecord.thumbnail).where(ReferenceCaseRecord.id == case_id)
    with Session(engine) as session:
        return session.scalar(wanted)


def count_cases(engine: Engine) -> dict[str, int]:
    """The number of reference cases per task."""
    counted = select(ReferenceCaseRecord.task, func.count()).group_by(ReferenceCaseRecord.task)
    with Session(engine) as session:
        return {task: int(count) for task, count in session.execute(counted)}


def cases_by_key(engine: Engine, task: str, keys: Sequence[int]) -> dict[int, ReferenceCase]:
    """The task's cases behind FAISS keys; keys whose case was removed are left out."""
    with Session(engine) as session:
        return {
            record.key: case_of(record)
            for some in chunks(keys)
            for record in session.scalars(
                select(ReferenceCaseRecord).where(
                    ReferenceCaseRecord.task == task, ReferenceCaseRecord.key.in_(some)
                )
            )
        }


def own_keys(engine: Engine, task: str, *, group: str | None, image_sha256: str) -> Keys:
    """Keys of the cases a query must not be shown: its own group's, and the same image."""
    own = ReferenceCaseRecord.image_sha256 == image_sha256
    if group:
        own = or_(own, ReferenceCaseRecord.group == group)
    wanted = select(ReferenceCaseRecord.key).where(ReferenceCaseRecord.task == task, own)
    with Session(engine) as session:
        return np.array(session.scalars(wanted).all(), dtype=np.int64)


def stored_vectors(engine: Engine) -> tuple[StoredVectors, ...]:
    """What is stored per task, specialist and encoder."""
    row = ReferenceVectorRecord
    group = (row.task, row.specialist, row.encoder_sha256)
    counted = (
        select(*group, func.count(), func.max(row.stored_at)).group_by(*group).order_by(*group)
    )
    with Session(engine) as session:
        return tuple(StoredVectors(*counts) for counts in session.execute(counted.order_by(*group)))


def latest_encoder(engine: Engine, task: str, specialist: str) -> str | None:
    """The encoder whose vectors were stored last, None where there are none."""
    row = ReferenceVectorRecord
    wanted = (
        select(row.encoder_sha256)
        .where(row.task == task, row.specialist == specialist)
        .order_by(row.stored_at.desc())
        .limit(1)
    )
    with Session(engine) as session:
        return session.scalar(wanted)


def count_outdated(engine: Engine, task: str, specialist: str, encoder_sha256: str) -> int:
    """How many cases have a vector of another encoder of the specialist instead of this one."""
    row, owner = ReferenceVectorRecord, ReferenceCaseRecord
    wanted = (
        select(func.count())
        .select_from(row)
        .join(owner, row.case_id == owner.id)
        .where(row.task == task, row.specialist == specialist, row.encoder_sha256 != encoder_sha256)
    )
    with Session(engine) as session:
        return int(session.scalar(wanted) or 0)


def vector_keys(engine: Engine, task: str, specialist: str, encoder_sha256: str) -> Keys:
    """Keys of the cases that have a vector of this encoder, ascending."""
    row, owner = ReferenceVectorRecord, ReferenceCaseRecord
    wanted = (
        select(owner.key)
        .join(row, row.case_id == owner.id)
        .where(row.task == task, row.specialist == specialist, row.encoder_sha256 == encoder_sha256)
        .order_by(owner.key)
    )
    with Session(engine) as session:
        return np.array(session.scalars(wanted).all(), dtype=np.int64)


def vectors(
    engine: Engine, task: str, specialist: str, encoder_sha256: str, keys: Keys
) -> Iterator[tuple[int, Vector]]:
    """Stored vectors with their keys, in no particular order; vectors of other encoders are not."""
    row, owner = ReferenceVectorRecord, ReferenceCaseRecord
    with Session(engine) as session:
        for some in chunks(keys.tolist()):
            wanted = (
                select(owner.key, row.vector)
                .join(row, row.case_id == owner.id)
                .where(row.task == task, row.specialist == specialist, owner.key.in_(some))
                .where(row.encoder_sha256 == encoder_sha256)
            )
            for key, stored in session.execute(wanted):
                yield key, unpacked(stored)


def packed(vector: Vector) -> bytes:
    """A vector as it is stored: little-endian float32."""
    return vector.astype("<f4").tobytes()


def unpacked(stored: bytes) -> Vector:
    """The vector that `packed` stored."""
    return np.frombuffer(stored, dtype="<f4").astype(np.float32, copy=False)
