"""Whether the results of the database are those that the audit recorded."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Engine, select

from service.audit.event import KINDS, Action, document_sha256, subject_of
from service.errors import AuditBroken
from service.persistence.records import AuditEventRecord
from service.persistence.store import RECORDS, record_of
from service.persistence.trail import as_of_now, rows

SOME = 200
"""Results that are looked up together."""


def check(engine: Engine) -> int:
    """Compares every result with its last event; how many there are without any: older ones.

    The chain itself is taken to hold: `trail.verify` tells. Raises AuditBroken, which names the
    first result that was changed, that is there though erased, or that is gone though not erased.
    """
    with as_of_now(engine) as connection:
        unrecorded = sum(
            _compare(connection, KINDS[kind], some)
            for kind in RECORDS
            for some in _in_parts(_results(connection, kind))
        )
        for some in _in_parts(_made(connection)):
            _look_for(connection, some)
    return unrecorded


def _results(connection: Connection, kind: type[Any]) -> Iterator[tuple[str, Any]]:
    row, last = record_of(kind), ""
    wanted = select(row.id, row.document).order_by(row.id).limit(SOME)
    while page := connection.execute(wanted.where(row.id > last)).all():
        yield from ((id, document) for id, document in page)
        last = page[-1].id


def _compare(connection: Connection, kind: str, some: Sequence[tuple[str, Any]]) -> int:
    said = _last_said(connection, [subject_of(kind, id) for id, _ in some])
    unrecorded = 0
    for id, document in some:
        event = said.get(subject_of(kind, id))
        if event is None:
            unrecorded += 1
        elif event["action"] == Action.ERASED:
            raise AuditBroken(f"{kind} {id} was erased, and is there again")
        elif event["details"]["document_sha256"] != document_sha256(document):
            raise AuditBroken(f"{kind} {id} is not what was recorded when it was made")
    return unrecorded


def _made(connection: Connection) -> Iterator[tuple[str, str]]:
    """What was made, as kind and id, in the order of the events."""
    results = frozenset(KINDS.values())
    for row in rows(connection):
        event = json.loads(row.entry)
        if event["action"] == Action.CREATED and event["kind"] in results:
            yield event["kind"], event["id"]


def _look_for(connection: Connection, some: Sequence[tuple[str, str]]) -> None:
    there = {
        (name, id)
        for kind, name in KINDS.items()
        for id in connection.scalars(
            select(record_of(kind).id).where(record_of(kind).id.in_([id for _, id in some]))
        )
    }
    gone = [one for one in some if one not in there]
    said = _last_said(connection, [subject_of(*one) for one in gone])
    for kind, id in gone:
        if said[subject_of(kind, id)]["action"] != Action.ERASED:
            raise AuditBroken(f"{kind} {id} was made, and is gone though nobody erased it")


def _last_said(connection: Connection, subjects: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each result the last event that says what became of it."""
    row = AuditEventRecord
    wanted = select(row.subject, row.entry).where(row.subject.in_(subjects)).order_by(row.number)
    said = ((subject, json.loads(entry)) for subject, entry in connection.execute(wanted))
    telling = (Action.CREATED, Action.ERASED)
    return {subject: event for subject, event in said if event["action"] in telling}


def _in_parts(every: Iterator[Any]) -> Iterator[list[Any]]:
    while some := list(islice(every, SOME)):
        yield some
