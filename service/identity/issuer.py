"""The public keys of an OpenID Connect issuer, fetched rarely and kept.

Who sends tokens with made-up key ids must not make us ask the issuer each time: it is asked at
most once in half a minute, whatever comes. While it does not answer, the keys it gave last are
good for a day.
"""

import asyncio
import ipaddress
import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import structlog

from service.errors import IssuerUnavailable, Misconfigured, Unauthenticated

FRESH_SECONDS = 3600.0
STALE_SECONDS = 24 * 3600.0
PAUSE_SECONDS = 30.0
TIMEOUT_SECONDS = 5.0
LARGEST_DOCUMENT = 1024 * 1024
MOST_KEYS = 100
ASYMMETRIC = frozenset({"RSA", "EC", "OKP"})
UNUSABLE = (httpx.HTTPError, TimeoutError, ValueError, RecursionError, Misconfigured)

log = structlog.stdlib.get_logger(__name__)


class SigningKeys:
    """The keys that an issuer signs with, by their id.

    Found through the issuer's discovery document (OpenID Connect Discovery 1.0, section 4),
    unless `jwks_url` says where they are.
    """

    def __init__(
        self,
        issuer: str,
        client: httpx.AsyncClient,
        *,
        jwks_url: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._client = client
        self._jwks_url = jwks_url
        self._clock = clock
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._asked_at: float | None = None
        self._one_at_a_time = asyncio.Lock()

    async def find(self, id: str | None) -> jwt.PyJWK:
        """The key of this id; the only one, where a token names none.

        Raises Unauthenticated where there is none, IssuerUnavailable where nobody can tell.
        """
        if not self._is_fresh or id not in self._keys:
            await self._refresh(id)
        if not self._is_usable:
            raise IssuerUnavailable("The issuer of tokens does not answer: try again later.")
        if id not in self._keys:
            raise Unauthenticated("The token is signed with a key that its issuer does not list.")
        return self._keys[id]

    @property
    def _is_fresh(self) -> bool:
        return self._age(self._fetched_at) < FRESH_SECONDS

    @property
    def _is_usable(self) -> bool:
        return self._age(self._fetched_at) < STALE_SECONDS

    def _age(self, moment: float | None) -> float:
        return float("inf") if moment is None else self._clock() - moment

    async def _refresh(self, id: str | None) -> None:
        """Asks the issuer, unless it was asked a moment ago; who comes meanwhile waits for that."""
        async with self._one_at_a_time:
            if self._is_fresh and id in self._keys:
                return
            if self._age(self._asked_at) < PAUSE_SECONDS:
                return
            self._asked_at = self._clock()
            try:
                self._keys = _usable(await self._fetch())
            except UNUSABLE as error:
                log.warning("the issuer's keys could not be fetched", reason=type(error).__name__)
                return
            self._fetched_at = self._clock()

    async def _fetch(self) -> Any:
        address = self._jwks_url
        if not address:
            document = await discovered(self._issuer, self._client)
            address = safe_url(str(document.get("jwks_uri")))
        return await _get(self._client, address)


async def discovered(issuer: str, client: httpx.AsyncClient) -> dict[str, Any]:
    """The issuer's discovery document; raises one of UNUSABLE where it is none."""
    address = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    document = await _get(client, address)
    if document.get("issuer") != issuer:
        raise ValueError("the discovery document is another issuer's")
    return document


async def _get(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """A JSON object of reasonable size; raises ValueError for anything else."""
    body = b""
    async with (
        asyncio.timeout(TIMEOUT_SECONDS),
        client.stream("GET", url, timeout=TIMEOUT_SECONDS) as response,
    ):
        if response.status_code != httpx.codes.OK:
            raise ValueError(f"status {response.status_code}")
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > LARGEST_DOCUMENT:
                raise ValueError("the document is too large")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - a value from outside
    return document


def safe_url(url: str) -> str:
    """The address where keys may come from: https, or this machine; raises Misconfigured."""
    parts = urlsplit(url)
    is_safe = parts.scheme == "https" or (
        parts.scheme == "http" and is_loopback(parts.hostname or "")
    )
    if not is_safe or not parts.hostname:
        raise Misconfigured(f"{url[:200]!r} is no https address: anybody could change the keys")
    return url


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, is this machine as only itself sees it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _usable(document: dict[str, Any]) -> dict[str | None, jwt.PyJWK]:
    """The keys for signatures; what is unknown, symmetric or malformed is left out."""
    listed = document.get("keys")
    if not isinstance(listed, list):
        raise ValueError("no list of keys")  # noqa: TRY004 - a value from outside
    keys: dict[str | None, jwt.PyJWK] = {}
    for entry in listed[:MOST_KEYS]:
        if isinstance(entry, dict) and entry.get("kty") in ASYMMETRIC and _is_for_signing(entry):
            try:
                key = jwt.PyJWK(entry)
            except (jwt.PyJWTError, ValueError, TypeError):
                continue
            keys[key.key_id] = key
    if len(keys) == 1:
        keys[None] = next(iter(keys.values()))
    return keys


def _is_for_signing(entry: dict[str, Any]) -> bool:
    return entry.get("use") in {None, "sig"}
