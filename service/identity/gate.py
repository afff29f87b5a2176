"""Who is let in: the caller behind a request's credentials."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol

import httpx

from service.errors import Forbidden, Unauthenticated
from service.identity import keys
from service.identity.caller import ANONYMOUS, Caller
from service.identity.issuer import SigningKeys, is_loopback
from service.identity.keys import Key
from service.identity.tokens import Rules, Tokens

NO_CREDENTIALS = "This needs an API key or a token: send it as `Authorization: Bearer …`."


PASSED_ON = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""What most proxies add to a request; one that adds none of them cannot be told from a caller."""


class Keys(Protocol):
    """The API keys that there are."""

    async def find(self, id: str) -> Key | None: ...
    async def used(self, key: Key, now: datetime) -> None: ...


@asynccontextmanager
async def opened_gate(rules: Rules | None, known: Keys) -> AsyncIterator["Gate"]:
    """The gate until this is left; an issuer's keys are fetched with the first token."""
    if rules is None:
        yield Gate(known)
        return
    async with httpx.AsyncClient() as client:
        signing = SigningKeys(rules.issuer, client, jwks_url=rules.jwks_url)
        yield Gate(known, Tokens(rules, signing))


class Gate:
    """Tells who asks, by an API key or by a token; without `tokens`, by an API key only."""

    def __init__(self, known: Keys, tokens: Tokens | None = None) -> None:
        self._keys = known
        self._tokens = tokens

    async def admit(self, authorization: str | None) -> Caller:
        """The caller behind an Authorization header (RFC 6750 section 2.1).

        Raises Unauthenticated with the reason, and IssuerUnavailable.
        """
        credential = _bearer(authorization)
        if keys.is_key(credential):
            return await self._holder(credential)
        if self._tokens is None:
            raise Unauthenticated("The credential is no API key of this service.")
        return await self._tokens.caller(credential)

    async def _holder(self, text: str) -> Caller:
        now = datetime.now(UTC)
        key = keys.check(text, await self._keys.find(keys.id_of(text)), now)
        await self._keys.used(key, now)
        return key.caller


def admit_anybody(client: str | None, headers: Mapping[str, str]) -> Caller:
    """The caller where authentication is off: whoever is at this machine, by this machine's name.

    A web page that the user visits can make the browser ask this machine, as itself, which Origin
    tells, or under a name of its own (DNS rebinding), which is why the name matters. What a proxy
    of this machine passes on may come from anywhere. Raises Forbidden for everybody else.
    """
    host, is_near = headers.get("host", ""), client is not None and is_loopback(client)
    is_meant = is_loopback(_without_port(host)) and _is_of(headers.get("origin"), host)
    if is_near and is_meant and not any(name in headers for name in PASSED_ON):
        return ANONYMOUS
    raise Forbidden(
        "Without authentication this service answers its own machine only, as localhost."
    )


def _bearer(authorization: str | None) -> str:
    if not authorization:
        raise Unauthenticated(NO_CREDENTIALS)
    scheme, _, credential = authorization.partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise Unauthenticated(NO_CREDENTIALS)
    return credential.strip()


def _is_of(origin: str | None, host: str) -> bool:
    """Whether a request that names its origin (RFC 6454) comes from a page of this host."""
    return origin is None or origin.partition("://")[2].lower() == host.lower()


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and (":" not in name or name.endswith("]")) else host
