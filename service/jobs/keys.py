"""Idempotency keys: the same request sent twice is answered once.

As in the IETF's draft-ietf-httpapi-idempotency-key-header-07. Keys are kept as hashes: callers
may well name a request after a patient.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.errors import KeyInUse, KeyReused
from service.jobs import workers
from service.jobs.queue import Queue, now
from service.persistence.records import KeyRecord

LONGEST_ANSWER = timedelta(minutes=15)
"""A request that is being answered for longer is not: whoever began has forgotten it."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a caller calls a request, and what the request says; both as hashes."""

    sha256: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Made:
    """What belongs to a key: a job or a result of this id; `is_ready` once it can be told."""

    kind: str
    id: str
    is_ready: bool


def key_of(caller: str, address: str, name: str, fingerprint: str) -> Key:
    """The key of a caller's request: the same name of another, or elsewhere, is another key."""
    return Key(hashlib.sha256(f"{caller}\0{address}\0{name}".encode()).hexdigest(), fingerprint)


class Keys:
    """The keys of the requests that this process answers, as one worker among several."""

    def __init__(self, queue: Queue, worker: str, lease_seconds: float) -> None:
        self._queue = queue
        self._worker = worker
        self._lease_seconds = lease_seconds

    async def take(self, key: Key, made: Made) -> Made:
        """What was made under this key, or else what is to be made now, under the id told.

        Raises KeyReused for another request, and KeyInUse while the first is being answered.
        """
        return await self._queue.run(take, key, made, self._worker, self._lease_seconds)

    async def settle(self, key: Key) -> None:
        """What was to be made is there: from now on it is told to whoever sends the key."""
        await self._queue.run(settle, key)

    async def drop(self, key: Key) -> None:
        """Nothing was made: the next request with this key is the first again."""
        await self._queue.run(drop, key, self._worker)


def take(session: Session, key: Key, made: Made, worker: str, lease_seconds: float) -> Made:
    """See `Keys.take`."""
    if _added(session, key, made, worker):
        return made
    record = session.get_one(KeyRecord, key.sha256, with_for_update=True)
    if record.fingerprint != key.fingerprint:
        raise KeyReused("this Idempotency-Key was sent with another request before")
    if record.owner is None:
        return Made(record.kind, record.target, is_ready=True)
    is_young = now(session) - record.created_at < LONGEST_ANSWER
    if is_young and workers.is_alive(session, record.owner, lease_seconds):
        raise KeyInUse("the request with this Idempotency-Key is still being answered")
    record.owner, record.kind, record.created_at = worker, made.kind, now(session)
    return Made(record.kind, record.target, is_ready=False)


def settle(session: Session, key: Key) -> None:
    """See `Keys.settle`."""
    if record := session.get(KeyRecord, key.sha256):
        record.owner = None


def drop(session: Session, key: Key, worker: str) -> None:
    """See `Keys.drop`."""
    row = KeyRecord
    session.execute(delete(row).where(row.key_sha256 == key.sha256, row.owner == worker))


def _added(session: Session, key: Key, made: Made, worker: str) -> bool:
    record = KeyRecord(
        key_sha256=key.sha256,
        fingerprint=key.fingerprint,
        kind=made.kind,
        target=made.id,
        owner=worker,
        created_at=now(session),
    )
    try:
        with session.begin_nested():
            session.add(record)
    except IntegrityError:
        return False
    return True
