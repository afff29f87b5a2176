"""The audit in SQL: events are appended one after the other, and read as they were recorded."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, insert, select, update
from sqlalchemy.orm import Session

from service.audit import chain
from service.audit.chain import START, Head, Row
from service.audit.event import Event
from service.errors import AuditBroken
from service.persistence.records import AuditEventRecord, AuditHeadRecord

AT_ONCE = 1000
"""Rows that are in memory while the audit is read."""

_THE_HEAD = 1


class SqlTrail:
    """The audit of one database. Works in threads; the engine's owner disposes of it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def record(self, event: Event) -> None:
        """An event of its own, in a transaction of its own; durable when this returns."""
        await asyncio.to_thread(record, self._engine, event)


def record(engine: Engine, event: Event) -> None:
    """An event of its own, in a transaction of its own."""
    with Session(engine) as session, session.begin():
        append(session, event)


def append(session: Session, event: Event) -> None:
    """Adds an event in the caller's transaction: it is recorded if what it tells of is.

    From here to the end of the transaction nobody else can append, on SQLite and on PostgreSQL,
    in this process or another: the head's row is held, so the chain cannot fork. Append last, so
    that others wait briefly, and nobody who holds the head waits for anything else.
    """
    row = chain.follow(_hold_head(session), event)
    session.execute(
        insert(AuditEventRecord).values(
            number=row.number, subject=row.subject, entry=row.entry, sha256=row.sha256
        )
    )
    _move_head(session, Head(row.number, row.sha256))


def verify(engine: Engine, noted: Head | None = None) -> Head:
    """Reads the whole audit and checks that each event follows from the one before.

    Returns the last one. `noted` is a head of an earlier day, which must still be in the chain.
    Raises AuditBroken, which names the first event that does not hold.
    """
    head = START
    with as_of_now(engine) as connection:
        for row, _ in chain.checked(rows(connection)):
            head = Head(row.number, row.sha256)
            if noted is not None and noted.number == head.number and noted != head:
                raise AuditBroken(f"audit event {head.number} is not the one that was noted")
        _end_is(connection, head)
    if noted is not None and noted.number > head.number:
        raise AuditBroken(f"audit event {noted.number} was noted; the last one is {head.number}")
    return head


def events(engine: Engine) -> Iterator[tuple[Row, Event]]:
    """Every event with its row, in order; raises AuditBroken where the chain does not hold."""
    with as_of_now(engine) as connection:
        yield from chain.checked(rows(connection))


def _hold_head(session: Session) -> Head:
    """The last event, which stays it until the transaction ends: an UPDATE holds the row."""
    held = session.execute(
        update(AuditHeadRecord)
        .where(AuditHeadRecord.id == _THE_HEAD)
        .values(number=AuditHeadRecord.number + 1)
        .returning(AuditHeadRecord.number, AuditHeadRecord.sha256)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if held is None:
        raise AuditBroken("the audit has lost its head: restore the database from a backup")
    return Head(held.number - 1, held.sha256)


def _move_head(session: Session, head: Head) -> None:
    session.execute(
        update(AuditHeadRecord)
        .where(AuditHeadRecord.id == _THE_HEAD)
        .values(sha256=head.sha256)
        .execution_options(synchronize_session=False)
    )


@contextmanager
def as_of_now(engine: Engine) -> Iterator[Connection]:
    """Everything that is read is of one moment, whoever writes meanwhile."""
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection
        return
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        yield connection


def rows(connection: Connection) -> Iterator[Row]:
    """Every row in order, a page in memory at a time."""
    event, last = AuditEventRecord, -1
    wanted = select(event.number, event.subject, event.entry, event.sha256)
    ordered = wanted.order_by(event.number).limit(AT_ONCE)
    while page := connection.execute(ordered.where(event.number > last)).all():
        yield from (Row(*found) for found in page)
        last = page[-1].number


def _end_is(connection: Connection, last: Head) -> None:
    """The row that is held to append knows the end too: who cuts it off must know of it."""
    row = AuditHeadRecord
    held = connection.execute(select(row.number, row.sha256).where(row.id == _THE_HEAD)).first()
    if held is None or Head(*held) != last:
        there = f"{held.number} events" if held else "no events"
        raise AuditBroken(f"the audit ends at event {last.number}, and should hold {there}")
