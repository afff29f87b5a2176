"""Every route says who may use it, and holds to it: asked one by one, whichever there are."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from callers import holding
from fastapi import FastAPI, Response
from fastapi.routing import RouteContext, iter_route_contexts
from serving import a_service, problem_of
from starlette.applications import Starlette
from starlette.routing import Mount

from service.api import access
from service.api.access import Rule
from service.app import create_app
from service.identity.caller import Scope
from service.settings import Settings

REFUSALS = {401, 403, 429}


def routes_of(app: FastAPI) -> Iterator[tuple[str, str, Rule]]:
    """Every method of every address, mounted ones included, with what it asks of its caller."""
    for route in iter_route_contexts(app.routes):
        for method in methods_of(route):
            yield method, address_of(route), access.rule_of(route)


def methods_of(route: RouteContext) -> list[str]:
    return sorted(route.methods or {"GET"})


def address_of(route: RouteContext) -> str:
    """An address of the route, with something in each of its gaps."""
    inside = "/inside" if isinstance(route.original_route, Mount) else ""
    return re.sub(r"{[^}]+}", "0", f"{route.path}{inside}")


def the_app(home: Path) -> FastAPI:
    return create_app(Settings(home=home))


def test_every_route_says_who_may_use_it(home: Path) -> None:
    silent = {address for _, address, rule in routes_of(the_app(home)) if rule.is_missing}

    assert silent == set()


def test_routes_that_share_an_address_ask_for_the_same(home: Path) -> None:
    asked: dict[tuple[str, str], set[Rule]] = {}
    for method, address, rule in routes_of(the_app(home)):
        asked.setdefault((method, address), set()).add(rule)

    assert not [place for place, rules in asked.items() if len(rules) > 1]


def test_few_routes_are_open_to_everybody(home: Path) -> None:
    public = {address for _, address, rule in routes_of(the_app(home)) if rule.is_public}

    assert public == {"/openapi.json", "/livez", "/readyz", "/", "/web/0", "/v1/sign-in"}


async def test_nobody_gets_in_without_credentials(home: Path) -> None:
    async with a_service(home, authentication=True) as service:
        for method, address, rule in routes_of(service.app):
            reply = await service.client.request(method, address)

            if rule.is_public:
                assert reply.status_code not in REFUSALS, (method, address)
                continue
            assert problem_of(reply) == "unauthenticated", (method, address)
            assert reply.headers["www-authenticate"] == 'Bearer realm="gsco"'


async def test_every_scope_but_the_right_one_opens_no_route(home: Path) -> None:
    async with a_service(home, authentication=True) as service:
        for method, address, rule in routes_of(service.app):
            if rule.scope is None:
                continue
            others = holding(service.engine, *(set(Scope) - {rule.scope}))
            reply = await service.client.request(method, address, headers=others)

            assert problem_of(reply) == "forbidden", (method, address)
            assert 'error="insufficient_scope"' in reply.headers["www-authenticate"]


async def test_the_right_scope_alone_opens_its_routes(home: Path) -> None:
    async with a_service(home, authentication=True) as service:
        for method, address, rule in routes_of(service.app):
            if rule.scope is None:
                continue
            right = holding(service.engine, rule.scope)
            reply = await service.client.request(method, address, headers=right)

            assert reply.status_code not in REFUSALS, (method, address)


def a_route_without_a_rule(app: FastAPI) -> None:
    app.add_api_route("/new", lambda: "secret", response_class=Response)


def a_mount_without_a_rule(app: FastAPI) -> None:
    app.mount("/new", Starlette())


@pytest.mark.parametrize(
    ("add", "address"),
    [(a_route_without_a_rule, "/new"), (a_mount_without_a_rule, "/new/inside")],
)
async def test_a_new_route_without_a_rule_is_found_and_closed_to_all(
    home: Path, add: Callable[[FastAPI], None], address: str
) -> None:
    async with a_service(home, authentication=True) as service:
        add(service.app)
        found = {at for _, at, rule in routes_of(service.app) if rule.is_missing}
        everything = holding(service.engine, *Scope)
        reply = await service.client.get(address, headers=everything)

    assert found == {address}
    assert problem_of(reply) == "forbidden"


async def test_a_route_without_a_rule_is_closed_where_nobody_is_asked_who_they_are(
    home: Path,
) -> None:
    async with a_service(home) as service:
        a_route_without_a_rule(service.app)
        reply = await service.client.get("/new")

    assert problem_of(reply) == "forbidden"


async def test_an_address_that_is_none_is_no_route_for_anybody(home: Path) -> None:
    async with a_service(home, authentication=True) as service:
        nowhere = await service.client.get("/v2/secrets")
        no_method = await service.client.delete("/v1/tasks")

    assert problem_of(nowhere) == "no-such-address"
    assert (problem_of(no_method), no_method.headers["allow"]) == ("method-not-allowed", "GET")


async def test_a_route_checks_its_scope_even_where_the_guard_was_mistaken(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access.Rules, "find", lambda *_: Rule("/somewhere", Scope.READ))
    async with a_service(home, authentication=True) as service:
        reader = holding(service.engine, Scope.READ)
        reply = await service.client.post(
            "/v1/diagnoses", files={"file": b"x"}, data={"task": "x"}, headers=reader
        )

    assert problem_of(reply) == "forbidden"


async def test_the_document_says_which_scope_each_operation_needs(home: Path) -> None:
    async with a_service(home) as service:
        document = (await service.client.get("/openapi.json")).json()

    said = {
        (method.upper(), path): operation.get("security", [])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    rules = {
        (method, route.path.replace(":path}", "}")): access.rule_of(route)
        for route in iter_route_contexts(service.app.routes)
        for method in methods_of(route)
    }
    for operation, security in said.items():
        scope = rules[operation].scope
        assert security == ([{"bearer": [scope.value]}] if scope else [])
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


async def test_no_socket_is_opened(home: Path) -> None:
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async with a_service(home) as service:
        scope = {"type": "websocket", "path": "/v1/tasks", "headers": [], "query_string": b""}
        await service.app(scope, None, send)  # type: ignore[arg-type]

    assert [message["type"] for message in sent] == ["websocket.close"]
