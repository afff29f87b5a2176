"""Which scope a route asks for: said beside each route, checked before its body is read.

A route that says nothing, or two things, is closed to everybody. `needs` or `PUBLIC` goes among
the dependencies of a route or of its router; what is no route of FastAPI's is listed in `OTHERS`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Security
from fastapi.routing import RouteContext, iter_route_contexts
from fastapi.security import HTTPBearer, SecurityScopes
from starlette.routing import Match
from starlette.types import Scope as AsgiScope

from service.errors import Forbidden
from service.identity.caller import Caller, Scope

BEARER = HTTPBearer(
    scheme_name="bearer",
    description="an API key (`gsco keys create`) or a token of the configured issuer",
    auto_error=False,
)

# These are coroutines, as all dependencies here: plain functions would each take a thread's turn.


async def _demand(
    request: Request, scopes: SecurityScopes, _described: Annotated[Any, Depends(BEARER)]
) -> None:
    """What the guard has checked already, once more where the route is certain."""
    for scope in scopes.scopes:
        refuse_without(request.state.caller, Scope(scope))


async def _nothing_demanded() -> None:
    """Marks a route that is open to everybody."""


def needs(scope: Scope) -> Any:
    """The dependency of a route that only callers with this scope may use."""
    return Security(_demand, scopes=[scope.value])


PUBLIC = Depends(_nothing_demanded)
"""The dependency of a route that answers everybody."""

OTHERS: Mapping[str, Scope | None] = {"/openapi.json": None}
"""The rules of routes and mounts that have no dependencies; None stands for everybody."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route asks of its caller: a scope, or nothing. `is_missing` where nobody said."""

    route: str
    scope: Scope | None = None
    is_missing: bool = False

    @property
    def is_public(self) -> bool:
        return self.scope is None and not self.is_missing


class Rules:
    """The rules of an application's routes, in the order in which they are tried."""

    def __init__(self, app: FastAPI) -> None:
        self._rules = [(route, rule_of(route)) for route in iter_route_contexts(app.routes)]

    def find(self, scope: AsgiScope) -> Rule | None:
        """The rule of the route that a request is for; None where there is no such route.

        A method that the address does not have is public: the answer is that it has it not.
        """
        partial: Rule | None = None
        for route, rule in self._rules:
            match, _ = route.matches(scope)
            if match is Match.FULL:
                return rule
            if match is Match.PARTIAL:
                partial = Rule(rule.route)
        return partial


def rule_of(route: RouteContext) -> Rule:
    """What a route says that it asks of its caller."""
    path, said = route.path or "", list(_said(route))
    if len(said) == 1:
        return Rule(path, said[0])
    if not said and path in OTHERS:
        return Rule(path, OTHERS[path])
    return Rule(path, is_missing=True)


def caller_of(request: Request) -> Caller:
    """Who asks."""
    caller: Caller = request.state.caller
    return caller


def refuse_without(caller: Caller, scope: Scope) -> None:
    """Raises Forbidden where the caller has not the scope."""
    if scope not in caller.scopes:
        raise Forbidden(f"This needs the scope {scope.value!r}, which {caller.name} has not.")


def _said(route: RouteContext) -> Iterator[Scope | None]:
    for dependency in getattr(route, "dependencies", ()):
        if dependency.dependency is _nothing_demanded:
            yield None
        elif dependency.dependency is _demand:
            yield from (Scope(name) for name in dependency.scopes)
