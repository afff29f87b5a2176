"""Results are erased; that they were, and the hash of what they were, stays in the audit."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

from service.audit import event as audit
from service.audit.event import KINDS
from service.persistence import trail
from service.persistence.database import writing
from service.persistence.store import RECORDS, record_of

AT_ONCE = 100
"""Results that are erased in one transaction: others wait to append meanwhile."""


def erase(engine: Engine, ids: Iterable[str], who: str, reason: str) -> int:
    """Erases every result of these ids, and says how many there were; unknown ids are passed over.

    `reason` says why in a word or two, and nothing of a patient.
    """
    count = sum(_erase(engine, some, who, reason) for some in _some_at_once(ids))
    if count and engine.dialect.name == "sqlite":
        _forget_the_journal(engine)
    return count


def known(engine: Engine, ids: Iterable[str]) -> tuple[str, ...]:
    """Those of the ids that there is a result of."""
    with Session(engine) as session:
        return tuple(
            id
            for some in _some_at_once(ids)
            for row in map(record_of, RECORDS)
            for id in session.scalars(select(row.id).where(row.id.in_(some)))
        )


def of_image(engine: Engine, sha256: str) -> tuple[str, ...]:
    """The ids of all results that were made of one image file."""
    with Session(engine) as session:
        return tuple(
            id
            for row in map(record_of, RECORDS)
            for id in session.scalars(select(row.id).where(row.input_sha256 == sha256))
        )


def before(engine: Engine, moment: datetime) -> tuple[str, ...]:
    """The ids of the results that were made before a moment."""
    with Session(engine) as session:
        return tuple(
            id
            for row in map(record_of, RECORDS)
            for id in session.scalars(select(row.id).where(row.created_at < moment))
        )


def _erase(engine: Engine, ids: tuple[str, ...], who: str, reason: str) -> int:
    erased: list[audit.Event] = []
    with writing(engine) as session:
        _overwrite(session)
        for kind, row in ((kind, record_of(kind)) for kind in RECORDS):
            # In order: two who erase the same must not wait for each other.
            wanted = select(row.id, row.document).where(row.id.in_(ids)).order_by(row.id)
            for id, document in session.execute(wanted.with_for_update()).all():
                session.execute(delete(row).where(row.id == id))
                erased.append(audit.erased(KINDS[kind], id, who, reason, document))
        for event in erased:
            trail.append(session, event)
    return len(erased)


def _overwrite(session: Session) -> None:
    """SQLite leaves what is deleted in the file until something else needs the place."""
    if session.get_bind().dialect.name == "sqlite":
        session.connection().exec_driver_sql("PRAGMA secure_delete = ON")


def _forget_the_journal(engine: Engine) -> None:
    """SQLite's journal still holds the pages as they were; it is emptied, unless somebody reads."""
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _some_at_once(ids: Iterable[str]) -> Iterator[tuple[str, ...]]:
    some: list[str] = []
    for id in ids:
        some.append(id)
        if len(some) == AT_ONCE:
            yield tuple(some)
            some = []
    if some:
        yield tuple(some)
