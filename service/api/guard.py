"""Stands before every route: who asks, whether they may, and how often. No body is read yet."""

from collections.abc import Awaitable, Callable

import structlog
from fastapi import FastAPI, Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import access, problems
from service.api.access import Rule, Rules
from service.api.dependencies import Serving
from service.audit.event import Action, Event
from service.errors import Forbidden, RateExceeded
from service.identity.caller import ANONYMOUS, NOBODY, Caller
from service.identity.gate import admit_anybody
from service.identity.rates import Allowance
from service.settings import Settings

POLICY = "default"
Admit = Callable[[Request], Awaitable[Caller]]

log = structlog.stdlib.get_logger(__name__)


class Guard:
    """Lets a request through to its route, or answers it with a problem."""

    def __init__(self, app: ASGIApp, application: FastAPI, settings: Settings) -> None:
        self.app = app
        self.application = application
        self.admit = _admission(settings)
        self.rules: Rules | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # there are none
            return
        request = Request(scope)
        told = _telling(request, send)
        try:
            await self._check(request)
        except problems.ANSWERED as error:
            await problems.answer(request, error)(scope, receive, told)
            return
        await self.app(scope, receive, told)

    async def _check(self, request: Request) -> None:
        """Raises what the caller is to be told; otherwise the request knows its caller."""
        rule = self._rule(request)
        if rule.is_public:
            request.state.caller = NOBODY
            return
        request.state.caller = caller = await self.admit(request)
        if caller is not ANONYMOUS:
            await _count(request, caller)
        if rule.scope is None:
            log.error("a route says not who may use it, so nobody may", route=rule.route)
            raise Forbidden("Nobody may use this address.")
        try:
            access.refuse_without(caller, rule.scope)
        except Forbidden:
            await _record_refusal(request, caller, rule)
            raise

    def _rule(self, request: Request) -> Rule:
        if self.rules is None:  # routes are added after middleware
            self.rules = Rules(self.application)
        rule = self.rules.find(request.scope)
        if rule is None:
            raise problems.no_such_address()
        return rule


def _admission(settings: Settings) -> Admit:
    """How the caller of a request is found, by what the settings say."""
    if settings.authentication:
        return _by_credentials
    return _nobody_asked if settings.allow_anonymous else _by_place


async def _by_credentials(request: Request) -> Caller:
    return await _serving(request).gate.admit(request.headers.get("authorization"))


async def _by_place(request: Request) -> Caller:
    client = request.client.host if request.client else None
    return admit_anybody(client, request.headers)


async def _nobody_asked(_: Request) -> Caller:
    return ANONYMOUS


async def _count(request: Request, caller: Caller) -> None:
    request.state.allowance = allowance = await _serving(request).rates.take(caller)
    if allowance.is_exceeded:
        raise RateExceeded(
            f"{caller.name} may ask {allowance.quota} times in {allowance.window_seconds} seconds: "
            "try again later."
        )


async def _record_refusal(request: Request, caller: Caller, rule: Rule) -> None:
    """A known caller who tries doors is worth knowing of; unknown ones would fill the database."""
    asked, id = f"{request.method} {rule.route}", request.state.request_id
    event = Event(Action.REFUSED, caller.name, "route", asked, request_id=id)
    await _serving(request).parts.trail.record(event)


def _telling(request: Request, send: Send) -> Send:
    """Adds to the reply what is left to the caller (draft-ietf-httpapi-ratelimit-headers)."""

    async def tell(message: Message) -> None:
        one: Allowance | None = getattr(request.state, "allowance", None)
        if one is not None and message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["RateLimit-Policy"] = f'"{POLICY}";q={one.quota};w={one.window_seconds}'
            headers["RateLimit"] = f'"{POLICY}";r={one.remaining};t={one.reset_seconds}'
            if one.is_exceeded:
                headers["Retry-After"] = str(one.reset_seconds)
        await send(message)

    return tell


def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving
