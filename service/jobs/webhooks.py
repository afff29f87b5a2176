"""Telling a caller's server that a job has ended: signed, tried again, and only where allowed.

The signature is that of Standard Webhooks (standardwebhooks.com): HMAC-SHA256 over the event's id,
the time of sending and the body, so that a receiver can check it with any library of that name.
An event's id and body never change, however often it is sent.
"""

import asyncio
import base64
import binascii
import hmac
import json
import time
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import httpx

from service.errors import DeliveryFailed, DeliveryRefused, InvalidInput, Misconfigured
from service.jobs.job import Job, Retry, Work
from service.jobs.runner import Failure

NAME = "webhook"
RETRY = Retry(attempts=12, first_seconds=5, longest_seconds=3600)
"""Twelve attempts in about two and a half hours."""

TIMEOUT_SECONDS = 15.0
LONGEST_URL = 500
_SECRET = "whsec_"  # noqa: S105 - the mark before a secret, as the specification has it
_SHORTEST_SECRET = 24
_GONE = 410


class Webhooks:
    """Sends events to the addresses that the operator allows, and to no other."""

    def __init__(
        self, allowed: Sequence[str], secrets: Sequence[bytes], client: httpx.AsyncClient
    ) -> None:
        self._allowed = [httpx.URL(url) for url in allowed]
        self._secrets = tuple(secrets)
        self._client = client

    def work(self, url: str, told: dict[str, Any]) -> Work:
        """What is to be done when a job has ended; raises InvalidInput for an address not allowed.

        `told` is part of what the receiver is told.
        """
        if not self._is_allowed(url):
            raise InvalidInput("this webhook address is not among those that the operator allows")
        return Work(NAME, {"url": url, "told": told}, RETRY)

    async def deliver(self, job: Job) -> bool:
        """Sends one event; raises DeliveryFailed, or DeliveryRefused where it is not wanted."""
        url, body = job.work.argument["url"], event_of(job)
        if not self._is_allowed(url):
            raise DeliveryRefused("the address is no longer among those that are allowed")
        headers = signed(self._secrets, job.id, int(time.time()), body)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                status = await self._send(url, body, headers)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise DeliveryFailed(
                f"the receiver cannot be reached: {type(error).__name__}"
            ) from None
        if status == _GONE:
            raise DeliveryRefused("the receiver wants no more events (410)")
        if not 200 <= status < 300:
            raise DeliveryFailed(f"the receiver answered {status}")
        return False

    async def _send(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """The status alone: what else the receiver says is not read."""
        async with self._client.stream("POST", url, content=body, headers=headers) as reply:
            return reply.status_code

    def _is_allowed(self, url: str) -> bool:
        return any(_lies_under(url, prefix) for prefix in self._allowed)


def a_client() -> httpx.AsyncClient:
    """Follows no redirect, which would lead past the list, and no proxy of the environment."""
    agent = {"User-Agent": f"gsco/{version('gsco')}"}
    return httpx.AsyncClient(
        timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=False, headers=agent
    )


def secrets_of(text: str) -> tuple[bytes, ...]:
    """The secrets in a setting, with semicolons between: the first signs, and so do the others.

    Raises Misconfigured where one is not `whsec_` and at least 24 bytes in base64.
    """
    return tuple(_secret(one.strip()) for one in text.split(";") if one.strip())


def event_of(job: Job) -> bytes:
    """The body that tells of a job's end: the same in every attempt."""
    argument = job.work.argument
    ended = argument["ended"]
    event = {
        "type": f"job.{ended['state']}",
        "timestamp": ended["at"],
        "data": {"id": ended["id"], "status": ended["state"], **argument["told"]},
    }
    return json.dumps(event, separators=(",", ":")).encode()


def signed(secrets: Sequence[bytes], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of an event; one signature for each secret, so that secrets can be changed."""
    content = f"{id}.{timestamp}.".encode() + body
    signatures = (hmac.new(secret, content, sha256).digest() for secret in secrets)
    return {
        "content-type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(
            f"v1,{base64.b64encode(signature).decode()}" for signature in signatures
        ),
    }


def judge(error: Exception) -> Failure:
    """What a failed delivery says of the next attempt."""
    return Failure.FINAL if isinstance(error, DeliveryRefused) else Failure.COUNTED


def _lies_under(url: str, prefix: httpx.URL) -> bool:
    """Whether an address is the allowed one or below it, without anything that reads two ways."""
    if len(url) > LONGEST_URL or not url.isascii() or any(c in url for c in "\\@#%;\t\r\n "):
        return False
    try:
        asked = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    if ".." in asked.path.split("/") or _origin(asked) != _origin(prefix):
        return False
    below = prefix.path if prefix.path.endswith("/") else prefix.path + "/"
    return asked.path == prefix.path or asked.path.startswith(below)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    ports = {"http": 80, "https": 443}
    return url.scheme, url.host, url.port or ports.get(url.scheme)


def _secret(text: str) -> bytes:
    try:
        secret = base64.b64decode(text.removeprefix(_SECRET), validate=True)
    except binascii.Error:
        secret = b""
    if not text.startswith(_SECRET) or len(secret) < _SHORTEST_SECRET:
        raise Misconfigured(
            "GSCO_WEBHOOK_SECRET: write whsec_ and at least 24 random bytes in base64"
        )
    return secret
