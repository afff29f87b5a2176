"""API keys in SQL; making and revoking one is recorded in the same transaction."""

import asyncio
from datetime import UTC, datetime

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from service.audit.event import Action, Event
from service.errors import NotFound
from service.identity.caller import Scope
from service.identity.keys import SEEN_EVERY, Key
from service.persistence import trail
from service.persistence.database import writing
from service.persistence.records import ApiKeyRecord


class SqlKeys:
    """The keys of one database. Works in threads; the engine's owner disposes of it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def find(self, id: str) -> Key | None:
        """What is known of a key as of now, so that a revoked one is revoked at once."""
        return await asyncio.to_thread(find, self._engine, id)

    async def used(self, key: Key, now: datetime) -> None:
        """The key was used; written down once in a minute."""
        if key.last_used_at is None or now - key.last_used_at >= SEEN_EVERY:
            await asyncio.to_thread(_used, self._engine, key.id, now)


def add(engine: Engine, key: Key, who: str) -> None:
    """Keeps a new key; `who` made it."""
    with Session(engine) as session, session.begin():
        session.add(_record(key))
        session.flush()
        details = {
            "name": key.name,
            "scopes": sorted(key.scopes),
            "expires_at": key.expires_at.isoformat(),
        }
        trail.append(session, Event(Action.CREATED, who, "key", key.id, details=details))


def revoke(engine: Engine, id: str, who: str) -> Key:
    """Ends a key at once and for good; raises NotFound. A revoked one stays as it is."""
    with writing(engine) as session:
        record = session.get(ApiKeyRecord, id, with_for_update=True)
        if record is None:
            raise NotFound(f"no API key {id[:80]!r}: `gsco keys list` shows those there are")
        if record.revoked_at is None:
            record.revoked_at = datetime.now(UTC)
            session.flush()
            trail.append(session, Event(Action.REVOKED, who, "key", id))
        return _key(record)


def every(engine: Engine) -> tuple[Key, ...]:
    """All keys, the newest first."""
    with Session(engine) as session:
        newest = select(ApiKeyRecord).order_by(ApiKeyRecord.created_at.desc(), ApiKeyRecord.id)
        return tuple(_key(record) for record in session.scalars(newest))


def find(engine: Engine, id: str) -> Key | None:
    """What is known of a key, None where there is none."""
    with Session(engine) as session:
        record = session.get(ApiKeyRecord, id)
        return None if record is None else _key(record)


def _used(engine: Engine, id: str, now: datetime) -> None:
    with Session(engine) as session, session.begin():
        record = session.get(ApiKeyRecord, id)
        if record is not None:
            record.last_used_at = now


def _record(key: Key) -> ApiKeyRecord:
    return ApiKeyRecord(
        id=key.id,
        name=key.name,
        scopes=sorted(key.scopes),
        sha256=key.sha256,
        rate=key.rate,
        created_at=key.created_at,
        expires_at=key.expires_at,
    )


def _key(record: ApiKeyRecord) -> Key:
    return Key(
        id=record.id,
        name=record.name,
        scopes=frozenset(Scope(name) for name in record.scopes),
        sha256=record.sha256,
        created_at=record.created_at,
        expires_at=record.expires_at,
        rate=record.rate,
        last_used_at=record.last_used_at,
        revoked_at=record.revoked_at,
    )
