"""API keys: 256 random bits, shown once, kept as their hash.

A key reads `gsco_ID_SECRET`. What is kept is the sha256 of the secret: a slow hash protects
passwords, which can be guessed; 256 random bits cannot, and a slow hash would only make it cheap
to keep the service busy with wrong keys.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.errors import Unauthenticated
from service.identity.caller import Caller, Scope

PREFIX = "gsco_"
SECRET_BYTES = 32
LONGEST_LIFE_DAYS = 3650
SEEN_EVERY = timedelta(minutes=1)
"""How exactly it is known when a key was last used: to know it better would write every time."""

_KEY = re.compile(rf"{PREFIX}([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key: everything but the key itself."""

    id: str
    name: str
    scopes: frozenset[Scope]
    sha256: str
    created_at: datetime
    expires_at: datetime
    rate: str | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def state(self, now: datetime) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at <= now else "active"

    @property
    def caller(self) -> Caller:
        return Caller(f"key:{self.id}", self.scopes, self.rate)


def make(
    name: str, scopes: Iterable[Scope], now: datetime, days: int, rate: str | None = None
) -> tuple[Key, str]:
    """A new key and its text, which is nowhere else."""
    id, secret = secrets.token_hex(6), secrets.token_urlsafe(SECRET_BYTES)
    expires = now + timedelta(days=days)
    key = Key(id, name, frozenset(scopes), _sha256(secret), now, expires, rate)
    return key, f"{PREFIX}{id}_{secret}"


def is_key(text: str) -> bool:
    """Whether a credential means to be one of ours: a token has dots instead."""
    return text.startswith(PREFIX)


def id_of(text: str) -> str:
    """The public part of a key; raises Unauthenticated where the text cannot be one."""
    parts = _KEY.fullmatch(text)
    if parts is None:
        raise Unauthenticated("The API key is not well-formed: was it copied whole?")
    return parts[1]


def check(text: str, key: Key | None, now: datetime) -> Key:
    """The key that was looked up by the id of this text; raises Unauthenticated.

    An unknown id and a wrong secret are one answer: which ids there are is not told.
    """
    secret = text.removeprefix(PREFIX).partition("_")[2]
    if key is None or not hmac.compare_digest(key.sha256, _sha256(secret)):
        raise Unauthenticated("The API key is not known here.")
    if key.state(now) != "active":
        raise Unauthenticated(f"The API key {key.id} is {key.state(now)}: ask for another.")
    return key


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
