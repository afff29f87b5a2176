"""The chain: every event's hash covers the event and the hash before it.

An event that is changed, left out, put in or moved breaks the chain at its place. What the chain
cannot tell is whether its end was cut off, or all of it made anew: who can write the database can
do both. A head that was noted elsewhere (`gsco audit verify` prints it, and takes it back with
`--noted`) tells.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.audit.event import Action, Event, canonical
from service.errors import AuditBroken

BEFORE_THE_FIRST = "0" * 64
"""The hash that the first event follows."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last event: its number, counted from 1, and its hash; 0 where there is none."""

    number: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.number}:{self.sha256}"


@dataclass(frozen=True, slots=True)
class Row:
    """One event as it is kept: `entry` is exactly the text that `sha256` covers."""

    number: int
    subject: str
    entry: str
    sha256: str


START = Head(0, BEFORE_THE_FIRST)


def follow(head: Head, event: Event) -> Row:
    """The row of an event that comes after `head`."""
    number = head.number + 1
    entry = canonical({"number": number, **_document(event)})
    return Row(number, event.subject, entry, link(head.sha256, entry))


def link(previous: str, entry: str) -> str:
    """The hash of an entry in its place: sha256 of the hash before it, a line feed, the entry."""
    return hashlib.sha256(f"{previous}\n{entry}".encode()).hexdigest()


def checked(rows: Iterable[Row], head: Head = START) -> Iterator[tuple[Row, Event]]:
    """The rows in their order with their events, as long as each follows from the one before.

    Raises AuditBroken, which names the first row that does not.
    """
    for row in rows:
        yield row, _check(row, head)
        head = Head(row.number, row.sha256)


def head_of(text: str) -> Head:
    """A head as `str(head)` wrote it; raises ValueError."""
    number, _, sha256 = text.partition(":")
    if len(sha256) != len(BEFORE_THE_FIRST):
        raise ValueError(f"{text[:80]!r} is no head: it reads NUMBER:SHA256")
    return Head(int(number), sha256)


def _check(row: Row, head: Head) -> Event:
    if row.number != head.number + 1:
        raise AuditBroken(
            f"audit event {head.number + 1} is missing: event {row.number} comes in its place"
        )
    if row.sha256 != link(head.sha256, row.entry):
        raise AuditBroken(f"audit event {row.number} is not what was recorded, or not in its place")
    try:
        document = json.loads(row.entry)
        event = _event(document)
    except (ValueError, KeyError, TypeError) as error:
        raise AuditBroken(f"audit event {row.number} cannot be read") from error
    if document["number"] != row.number or event.subject != row.subject:
        raise AuditBroken(f"audit event {row.number} is filed as something else than it is")
    return event


def _document(event: Event) -> dict[str, Any]:
    return {
        "at": event.at.isoformat(),
        "who": event.who,
        "action": event.action.value,
        "kind": event.kind,
        "id": event.id,
        "request_id": event.request_id,
        "details": dict(event.details),
    }


def _event(document: dict[str, Any]) -> Event:
    return Event(
        at=datetime.fromisoformat(document["at"]),
        who=document["who"],
        action=Action(document["action"]),
        kind=document["kind"],
        id=document["id"],
        request_id=document["request_id"],
        details=document["details"],
    )
