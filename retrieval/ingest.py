"""Putting reference cases in, and taking them out. Everything here blocks.

The order is: `ingest` the cases, `store_vectors` of every specialist for them, then
`indexing.update` each specialist's index. No identifier of a patient belongs in here: `group` is a
pseudonym the caller chose.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Engine, delete, insert, select
from sqlalchemy import update as change
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from retrieval.database import chunks, packed
from retrieval.errors import IndexMismatch, InvalidReferenceCase
from retrieval.indexing import forget
from retrieval.neighbour import ReferenceCase, Vector
from retrieval.records import ReferenceCaseRecord, ReferenceVectorRecord, Then, key_of
from retrieval.validation import check
from retrieval.vectors import unit_vector

Image = tuple[str, str]  # the task and the image's sha256: what a case is known by


def ingest(
    engine: Engine,
    cases: Iterable[ReferenceCase],
    *,
    thumbnails: Mapping[str, bytes] | None = None,
    then: Then | None = None,
) -> tuple[str, ...]:
    """The ids under which the cases are stored, in their order; all of them or none.

    An image already known to the task keeps its first id and takes on what is said of it now, so
    the same call can be made twice. `thumbnails` are by case id. Raises InvalidReferenceCase.
    """
    wanted = list(cases)
    for case in wanted:
        check(case)
    try:
        with Session(engine) as session, session.begin():
            ids = tuple(
                case_id
                for some in chunks(wanted)
                for case_id in _store(session, some, thumbnails or {})
            )
            if then is not None:
                then(session, ids)
            return ids
    except IntegrityError as error:
        raise InvalidReferenceCase("the same cases are being ingested by someone else") from error


def store_vectors(
    engine: Engine,
    task: str,
    specialist: str,
    encoder_sha256: str,
    vectors: Mapping[str, Vector],
) -> int:
    """How many vectors were stored, by case id; each replaces the specialist's former one.

    Raises InvalidReferenceCase for an id that is no case of the task, IndexMismatch for vectors of
    unequal sizes or without a direction; nothing is stored then.
    """
    if len({len(vector) for vector in vectors.values()}) > 1:
        raise IndexMismatch(f"vectors of {specialist!r} on task {task!r} have unequal sizes")
    rows = [
        {
            "task": task,
            "specialist": specialist,
            "case_id": case_id,
            "encoder_sha256": encoder_sha256,
            "vector": packed(unit_vector(vector)),
            "stored_at": datetime.now(UTC),
        }
        for case_id, vector in vectors.items()
    ]
    with Session(engine) as session, session.begin():
        for some in chunks(rows):
            _replace_vectors(session, task, specialist, some)
    return len(rows)


def remove(engine: Engine, indexes: Path, case_ids: Iterable[str], then: Then | None = None) -> int:
    """How many cases were removed, with all their vectors; unknown ids are passed over.

    The rows go first: from then on no search returns the cases, even if the process dies before
    the indexes have let go of them.
    """
    wanted = list(case_ids)
    with Session(engine) as session, session.begin():
        removed = [row for some in chunks(wanted) for row in _delete(session, some)]
        if removed and then is not None:
            then(session, tuple(case_id for case_id, _, _ in removed))
    for task in {task for _, task, _ in removed}:
        forget(indexes, task, [key for _, owner, key in removed if owner == task])
    return len(removed)


def _store(
    session: Session, cases: Sequence[ReferenceCase], thumbnails: Mapping[str, bytes]
) -> list[str]:
    stored = _stored_ids(session, cases)
    taken = {case_id: image for image, case_id in stored.items()}
    ids = dict(stored)
    rows: dict[Image, dict[str, Any]] = {}
    for case in cases:
        image = _image_of(case)
        case_id = ids.setdefault(image, case.id)
        if taken.setdefault(case_id, image) != image:
            raise InvalidReferenceCase(f"id {case_id!r} names another image already")
        rows[image] = _row_of(replace(case, id=case_id), thumbnails.get(case.id))
    _write(session, [row for image, row in rows.items() if image not in stored], is_new=True)
    _write(session, [row for image, row in rows.items() if image in stored], is_new=False)
    return [ids[_image_of(case)] for case in cases]


def _stored_ids(session: Session, cases: Sequence[ReferenceCase]) -> dict[Image, str]:
    """The id of every stored case that has the image, or the id, of one of these."""
    row = ReferenceCaseRecord
    wanted = select(row.task, row.image_sha256, row.id)
    images: dict[str, list[str]] = {}
    for case in cases:
        images.setdefault(case.task, []).append(case.image_sha256)
    asked: list[ColumnElement[bool]] = [row.id.in_([case.id for case in cases])]
    asked += [(row.task == task) & row.image_sha256.in_(some) for task, some in images.items()]
    # One question per index: SQLite answers them joined with OR by reading all rows.
    found = (session.execute(wanted.where(condition)) for condition in asked)
    return {(task, image): case_id for rows in found for task, image, case_id in rows}


def _write(session: Session, rows: list[dict[str, Any]], *, is_new: bool) -> None:
    if not rows:
        return
    if is_new:
        now = datetime.now(UTC)
        session.execute(insert(ReferenceCaseRecord), [row | {"created_at": now} for row in rows])
    else:
        session.execute(change(ReferenceCaseRecord), rows)


def _row_of(case: ReferenceCase, thumbnail: bytes | None) -> dict[str, Any]:
    row = {
        "id": case.id,
        "key": key_of(case),
        "task": case.task,
        "labels": list(case.labels),
        "report": case.report,
        "source": case.source,
        "licence": case.licence,
        "modality": case.modality,
        "group": case.group,
        "image_sha256": case.image_sha256,
    }
    return row if thumbnail is None else row | {"thumbnail": thumbnail}


def _image_of(case: ReferenceCase) -> Image:
    return case.task, case.image_sha256


def _replace_vectors(
    session: Session, task: str, specialist: str, rows: Sequence[dict[str, Any]]
) -> None:
    ids = {row["case_id"] for row in rows}
    owner, vector = ReferenceCaseRecord, ReferenceVectorRecord
    found = session.execute(select(owner.id, owner.task).where(owner.id.in_(ids)))
    if unknown := ids.difference(case_id for case_id, owned in found if owned == task):
        raise InvalidReferenceCase(f"no reference case {min(unknown)[:80]!r} on task {task!r}")
    session.execute(
        delete(vector).where(
            vector.task == task, vector.specialist == specialist, vector.case_id.in_(ids)
        )
    )
    session.execute(insert(vector), list(rows))


def _delete(session: Session, case_ids: Sequence[str]) -> list[tuple[str, str, int]]:
    """Ids, tasks and keys of the cases deleted."""
    case, vector = ReferenceCaseRecord, ReferenceVectorRecord
    found = session.execute(select(case.id, case.task, case.key).where(case.id.in_(case_ids))).all()
    session.execute(delete(vector).where(vector.case_id.in_(case_ids)))
    session.execute(delete(case).where(case.id.in_(case_ids)))
    return [(id, task, key) for id, task, key in found]
