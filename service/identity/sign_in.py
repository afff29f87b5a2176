"""Where people sign in: what a page needs to know of the issuer.

OpenID Connect Core 1.0, section 3.1, for a public client with PKCE (RFC 7636).
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog

from service.errors import IssuerUnavailable
from service.identity.issuer import FRESH_SECONDS, PAUSE_SECONDS, UNUSABLE, discovered, safe_url

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-:\[\]]+")

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PublicClient:
    """This service's page as its issuer knows it: a client without a secret."""

    issuer: str
    id: str
    scopes: tuple[str, ...] = ("openid",)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the issuer asks who a person is, and where it gives a token for the answer."""

    authorization: str
    token: str

    @property
    def token_origin(self) -> str:
        return origin_of(self.token)


class SignIn:
    """Finds the issuer's endpoints by discovery, and keeps them for an hour.

    Anybody may ask for them: the issuer is asked by one at a time, and left alone for half a
    minute where it does not answer.
    """

    def __init__(
        self,
        client: PublicClient,
        http: httpx.AsyncClient,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client = client
        self._http = http
        self._clock = clock
        self._found: Endpoints | None = None
        self._ask_at = -float("inf")
        self._one_at_a_time = asyncio.Lock()

    async def endpoints(self) -> Endpoints:
        """Raises IssuerUnavailable where the issuer does not say."""
        async with self._one_at_a_time:
            if self._clock() >= self._ask_at:
                self._found = await self._find()
                pause = PAUSE_SECONDS if self._found is None else FRESH_SECONDS
                self._ask_at = self._clock() + pause
        if self._found is None:
            raise IssuerUnavailable("The issuer of tokens does not say where to sign in.")
        return self._found

    async def _find(self) -> Endpoints | None:
        try:
            return _endpoints(await discovered(self.client.issuer, self._http))
        except UNUSABLE as error:
            log.warning("nobody can sign in at the issuer", reason=type(error).__name__)
            return None


@asynccontextmanager
async def opened_sign_in(client: PublicClient | None) -> AsyncIterator[SignIn | None]:
    """The way to sign in until this is left; the issuer is asked by the first who wants it."""
    if client is None:
        yield None
        return
    async with httpx.AsyncClient() as http:
        yield SignIn(client, http)


def origin_of(url: str) -> str:
    """Scheme, host and port, as a content security policy names them; raises ValueError."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    if not _ORIGIN.fullmatch(origin):
        raise ValueError("the address has no plain origin")
    return origin


def _endpoints(document: Mapping[str, Any]) -> Endpoints:
    addresses = [
        safe_url(str(document.get(f"{name}_endpoint"))) for name in ("authorization", "token")
    ]
    for address in addresses:
        origin_of(address)
    return Endpoints(*addresses)
