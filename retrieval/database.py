"""Questions asked of the reference tables. All of them block: ask off the event loop."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Engine, func, select, union
from sqlalchemy.orm import Session

from retrieval.neighbour import EVERY_CASE, Filter, ReferenceCase, Vector
from retrieval.records import ReferenceCaseRecord, ReferenceVectorRecord, case_of

T = TypeVar("T")

CHUNK = 400  # SQLite before 3.32 takes 999 variables in one statement
STREAMED = 5_000
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


def cases_by_key(
    engine: Engine, task: str, keys: Sequence[int], only: Filter = EVERY_CASE
) -> dict[int, ReferenceCase]:
    """The task's cases behind FAISS keys; those removed, or not let through, are left out."""
    row = ReferenceCaseRecord
    with Session(engine) as session:
        return {
            record.key: case_of(record)
            for some in chunks(keys)
            for record in session.scalars(select(row).where(row.key.in_(some), *_conditions(only)))
            if record.task == task  # asked here: SQLite would read all of the task's rows
        }


def keys_of(engine: Engine, task: str, case_ids: Sequence[str]) -> Keys:
    """The FAISS keys of some of the task's cases; unknown ids are passed over."""
    row = ReferenceCaseRecord
    with Session(engine) as session:
        found = [
            key
            for some in chunks(case_ids)
            for owner, key in session.execute(select(row.task, row.key).where(row.id.in_(some)))
            if owner == task  # asked here, as above
        ]
    return np.array(sorted(found), dtype=np.int64)


def filtered_keys(engine: Engine, task: str, only: Filter) -> Keys:
    """Keys of the task's cases that a filter lets through."""
    row = ReferenceCaseRecord
    wanted = select(row.key).where(row.task == task, *_conditions(only))
    with Session(engine) as session:
        return np.fromiter(session.scalars(wanted), np.int64)


def own_keys(engine: Engine, task: str, *, group: str | None, image_sha256: str) -> Keys:
    """Keys of the cases a query must not be shown: its own group's, and the same image."""
    row = ReferenceCaseRecord
    same = [row.image_sha256 == image_sha256] + ([row.group == group] if group else [])
    # Two questions, each answered by its index: SQLite answers one with OR by reading all rows.
    wanted = union(*(select(row.key).where(row.task == task, one) for one in same))
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


def count_vectors(engine: Engine, task: str, specialist: str, encoder_sha256: str) -> int:
    """How many vectors of this encoder are stored."""
    row = ReferenceVectorRecord
    wanted = (
        select(func.count())
        .select_from(row)
        .where(row.task == task, row.specialist == specialist, row.encoder_sha256 == encoder_sha256)
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
        return np.fromiter(session.scalars(wanted), np.int64)


def vectors(
    engine: Engine, task: str, specialist: str, encoder_sha256: str, keys: Keys
) -> Iterator[tuple[int, Vector]]:
    """Stored vectors with their keys, in no particular order; vectors of other encoders are not."""
    row, owner = ReferenceVectorRecord, ReferenceCaseRecord
    with Session(engine) as session:
        for some in chunks(keys.tolist()):
            # Keys first: joined with the vectors, SQLite would read all of the specialist's.
            named = session.execute(select(owner.id, owner.key).where(owner.key.in_(some)))
            known = {case_id: key for case_id, key in named}  # noqa: C416  # dict() asks for keys()
            wanted = (
                select(row.case_id, row.vector)
                .where(row.case_id.in_(known), row.specialist == specialist)
                .where(row.task == task, row.encoder_sha256 == encoder_sha256)
            )
            for case_id, stored in session.execute(wanted):
                yield known[case_id], unpacked(stored)


def all_vectors(
    engine: Engine, task: str, specialist: str, encoder_sha256: str
) -> Iterator[tuple[int, bytes]]:
    """Every stored vector of this encoder as it lies there, with its key, by the cases' ids."""
    row, owner = ReferenceVectorRecord, ReferenceCaseRecord
    wanted = (
        select(owner.key, row.vector)
        .join(row, row.case_id == owner.id)
        .where(row.task == task, row.specialist == specialist, row.encoder_sha256 == encoder_sha256)
        .order_by(row.case_id)
        .execution_options(yield_per=STREAMED)
    )
    # Closed with its rows: PostgreSQL keeps a cursor for whoever stops half-way.
    with Session(engine) as session, session.execute(wanted) as rows:
        for key, stored in rows:  # noqa: UP028  # rows become pairs
            yield key, stored


def labelled(engine: Engine, task: str) -> tuple[tuple[int, str, tuple[str, ...]], ...]:
    """Key, group and labels of every case of a task that has labels, in the order of their ids."""
    row = ReferenceCaseRecord
    wanted = select(row.key, row.group, row.labels).where(row.task == task).order_by(row.id)
    with Session(engine) as session:
        rows = session.execute(wanted)
        return tuple((key, group, tuple(labels)) for key, group, labels in rows if labels)


def packed(vector: Vector) -> bytes:
    """A vector as it is stored: little-endian float32."""
    return vector.astype("<f4").tobytes()


def unpacked(stored: bytes) -> Vector:
    """The vector that `packed` stored."""
    return np.frombuffer(stored, dtype="<f4").astype(np.float32, copy=False)


def _conditions(only: Filter) -> list[ColumnElement[bool]]:
    row = ReferenceCaseRecord
    named = ((row.source, only.sources), (row.licence, only.licences))
    conditions: list[ColumnElement[bool]] = [column.in_(names) for column, names in named if names]
    if only.modalities:
        conditions.append(row.modality.in_(only.modalities))
    if only.since is not None:
        conditions.append(row.created_at >= only.since)
    if only.until is not None:
        conditions.append(row.created_at < only.until)
    return conditions
