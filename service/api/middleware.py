"""What surrounds every request: its id, its log line and figures, and the size of its body.

Plain ASGI, so that bodies stream through.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

import structlog
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import telemetry
from service.api import problems
from service.metrics import Metrics
from service.spans import Watch

DRAIN_SECONDS = 10.0
DRAINED_LIMITS = 4
SILENCE_SECONDS = 30.0
"""How long the next piece of a body may take to come."""

LARGEST_DOCUMENT = 256 * 1024
"""Bytes of a body that is no multipart message: it is read at one go, on the event loop."""

REQUEST_ID = "X-Request-ID"
TRACEPARENT = "traceparent"  # W3C Trace Context
# Random by construction: a DICOM UID or an accession number must not get into the log.
_WELL_FORMED = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
"""Of every reply that says nothing else: nothing of it runs, is framed, is shared or is kept."""
_PROBES = frozenset({"/livez", "/readyz", "/metrics"})

log = structlog.stdlib.get_logger(__name__)


class LimitBody:
    """Refuses a body over the limit: by the length it claims, and by the bytes that come.

    `of_prefix` has other limits for addresses whose bodies are read piece by piece. Images come as
    multipart messages; anything else is a document, which is small. At most `held_bytes` of all
    that is read whole are in memory: those who send slowly would hold them all.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit_bytes: int,
        held_bytes: int,
        of_prefix: Mapping[str, int] | None = None,
    ) -> None:
        self.app = app
        self.limit_bytes = limit_bytes
        self.held_bytes = held_bytes
        self._of_prefix = of_prefix or {}
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        own = self._own_limit(scope)
        limit = own or self._limit(scope)
        if _claimed_length(scope) > limit:
            if not _waits_to_send(scope):
                await self._drain(receive, _claimed_length(scope))
            refusal = problems.respond_body_too_large(Request(scope), limit)
            await refusal(scope, receive, send)
            return
        body = _Body(limit, is_held=own is None)
        try:
            await self.app(scope, self._counting(receive, body), send)
        finally:
            self._held -= body.held

    def _own_limit(self, scope: Scope) -> int | None:
        address = scope["path"]
        own = (most for start, most in self._of_prefix.items() if address.startswith(f"{start}/"))
        return next(own, None)

    def _limit(self, scope: Scope) -> int:
        return self.limit_bytes if _is_multipart(scope) else min(self.limit_bytes, LARGEST_DOCUMENT)

    def _counting(self, receive: Receive, body: "_Body") -> Receive:
        async def counted() -> Message:
            message = await (_timely(receive) if body.is_coming else receive())
            size = len(message.get("body", b""))
            body.received, body.is_coming = body.received + size, message.get("more_body", False)
            if body.received > body.limit:
                if body.is_coming:
                    await self._drain(receive)
                raise problems.body_too_large(body.limit)
            self._hold(body, size)
            return message

        return counted

    def _hold(self, body: "_Body", size: int) -> None:
        if not body.is_held:
            return
        if self._held + size > self.held_bytes:
            raise problems.too_many_bodies()
        self._held, body.held = self._held + size, body.held + size

    async def _drain(self, receive: Receive, claimed: int = 0) -> None:
        """Discards the rest of a body within reason, so that its sender gets to read the refusal.

        Most clients read only when they have sent everything; a connection that is closed before
        is all they would see.
        """
        allowance = DRAINED_LIMITS * self.limit_bytes
        if claimed > allowance:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                more = True
                while more and allowance > 0:
                    message = await receive()
                    allowance -= len(message.get("body", b""))
                    more = message.get("more_body", False)


@dataclass
class _Body:
    """One body as it comes: how much of it there was, and how much of it lies in memory."""

    limit: int
    is_held: bool
    received: int = 0
    held: int = 0
    is_coming: bool = True


async def _timely(receive: Receive) -> Message:
    """The next message; a sender who falls silent is not waited for."""
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            return await receive()
    except TimeoutError:
        raise problems.too_slow(SILENCE_SECONDS) from None


class Observe:
    """Names each request, logs and measures it, and answers for errors that nobody foresaw.

    Neither addresses nor texts of foreign errors are logged: both may quote a patient.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, watch: Watch) -> None:
        self.app = app
        self.metrics = metrics
        self.watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        with structlog.contextvars.bound_contextvars(request_id=exchange.request_id):
            if scope["path"] in _PROBES:  # asked every few seconds: nobody wants traces of them
                await self._answer(exchange, scope, receive)
            else:
                await self._follow(exchange, scope, receive)

    async def _follow(self, exchange: "_Exchange", scope: Scope, receive: Receive) -> None:
        caller = Headers(scope=scope).get(TRACEPARENT, "")
        with telemetry.following(self.watch, "request", caller) as trace:
            try:
                await self._answer(exchange, scope, receive)
            finally:
                if trace is not None:
                    method, route = _method(scope), _route(scope)
                    told = {"http.request.method": method, "http.route": route}
                    told["http.response.status_code"] = str(exchange.status)
                    trace.end(f"{method} {route}", told, failed=exchange.status >= 500)

    async def _answer(self, exchange: "_Exchange", scope: Scope, receive: Receive) -> None:
        try:
            await self.app(scope, receive, exchange.send)
        except Exception:  # the last place that can answer it, and log it by our rules
            log.exception("unexpected error", route=_route(scope))
            if exchange.status:
                raise  # half an answer is out: the server must break the connection
            await problems.respond_unexpected(Request(scope))(scope, receive, exchange.send)
        finally:
            self._note(exchange, scope)

    def _note(self, exchange: "_Exchange", scope: Scope) -> None:
        method, route = _method(scope), _route(scope)
        status, seconds = exchange.status, exchange.seconds
        self.metrics.requests.labels(method, route, str(status)).observe(seconds)
        problem = scope["state"].get("problem")
        if problem is not None:
            self.metrics.problems.labels(problem).inc()
        tell = log.debug if route in _PROBES else log.info
        tell("request", method=method, route=route, status=status, seconds=seconds, problem=problem)


class _Exchange:
    """One request and what became of it; `status` is 0 until an answer starts."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.request_id = _request_id(scope)
        self.status = 0
        self._send = send
        self._started = time.perf_counter()
        # The lifespan's state is shared by all requests: each gets a copy of its own.
        scope["state"] = {**scope.get("state", {}), "request_id": self.request_id}

    @property
    def seconds(self) -> float:
        return round(time.perf_counter() - self._started, 4)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = self.request_id
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


def _request_id(scope: Scope) -> str:
    """The caller's own id where it is well-formed, so that both sides' logs can be joined."""
    given = Headers(scope=scope).get(REQUEST_ID, "")
    return given if _WELL_FORMED.fullmatch(given) else uuid4().hex


def _claimed_length(scope: Scope) -> int:
    claimed = Headers(scope=scope).get("content-length", "")
    return int(claimed[:19]) if claimed.isascii() and claimed.isdigit() else 0


def _is_multipart(scope: Scope) -> bool:
    return Headers(scope=scope).get("content-type", "").lower().startswith("multipart/")


def _waits_to_send(scope: Scope) -> bool:
    """The client sends its body only once it is told to: RFC 9110 section 10.1.1."""
    return Headers(scope=scope).get("expect", "").lower() == "100-continue"


def _method(scope: Scope) -> str:
    """One of the known methods: a label takes no words of the caller's."""
    return str(scope["method"]) if scope["method"] in _METHODS else "other"


def _route(scope: Scope) -> str:
    """The template of the address, such as /v1/tasks/{name}: what is asked for stays unsaid."""
    return getattr(scope.get("route"), "path", "unknown")
