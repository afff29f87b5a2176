"""Callers of a service that asks who they are."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from service.identity import keys
from service.identity.caller import Scope
from service.identity.keys import Key
from service.persistence import keys as kept


def a_key(engine: Engine, *scopes: Scope, age_days: int = 0, **more: Any) -> tuple[Key, str]:
    """A key that the service knows, valid for 30 days from when it was made, and its text."""
    made_at = datetime.now(UTC) - timedelta(days=age_days)
    key, text = keys.make("a test", scopes or (Scope.READ,), made_at, 30, **more)
    kept.add(engine, key, "local:test")
    return key, text


def bearing(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


def holding(engine: Engine, *scopes: Scope, **more: Any) -> dict[str, str]:
    """The headers of a caller with a key of these scopes."""
    return bearing(a_key(engine, *scopes, **more)[1])
