"""Stories of the page that sends people to their issuer: what it is told, and what it may fetch."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from issuer import AUDIENCE, AUTHORIZE, CLIENT, DISCOVERY, TOKEN, Issuer, an_issuer
from pydantic import ValidationError
from serving import Service, a_service, problem_of

from service.api.page import POLICY
from service.errors import IssuerUnavailable
from service.identity.sign_in import PublicClient, SignIn
from service.settings import Settings

SIGN_IN = "/v1/sign-in"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with an_issuer() as issuer:
        yield issuer


@asynccontextmanager
async def a_service_of(issuer: Issuer, home: Path, **settings: Any) -> AsyncIterator[Service]:
    names = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE, "oidc_client_id": CLIENT}
    async with a_service(home, authentication=True, **{**names, **settings}) as service:
        yield service


def policy_of(reply: httpx.Response) -> str:
    return str(reply.headers["content-security-policy"])


async def test_everybody_is_told_where_to_sign_in(issuer: Issuer, home: Path) -> None:
    async with a_service_of(issuer, home, oidc_scopes="openid;api://gsco/use") as service:
        told = await service.client.get(SIGN_IN)

    assert told.json() == {
        "client_id": CLIENT,
        "authorization_endpoint": issuer.url + AUTHORIZE,
        "token_endpoint": issuer.url + TOKEN,
        "scopes": ["openid", "api://gsco/use"],
    }


async def test_the_page_may_fetch_from_the_issuer_and_its_files_may_not(
    issuer: Issuer, home: Path
) -> None:
    async with a_service_of(issuer, home) as service:
        page, script = await service.client.get("/"), await service.client.get("/web/main.js")

    assert f"connect-src 'self' {issuer.url};" in policy_of(page)
    assert policy_of(page).replace(f" {issuer.url}", "") == POLICY
    assert policy_of(script) == POLICY


async def test_a_page_under_another_policy_is_sent_again(issuer: Issuer, home: Path) -> None:
    async with a_service(home) as service:
        kept = (await service.client.get("/")).headers["etag"]
    async with a_service_of(issuer, home) as service:
        fresh = await service.client.get("/", headers={"if-none-match": kept})
        kept = fresh.headers["etag"]
        same = await service.client.get("/", headers={"if-none-match": kept})

    assert (fresh.status_code, same.status_code) == (200, 304)


async def test_without_a_client_id_nothing_is_offered(issuer: Issuer, home: Path) -> None:
    async with a_service_of(issuer, home, oidc_client_id="") as service:
        told, page = await service.client.get(SIGN_IN), await service.client.get("/")

    assert problem_of(told) == "not-found"
    assert policy_of(page) == POLICY
    assert issuer.asked == []


@pytest.mark.parametrize(
    "said",
    [
        {"token_endpoint": "http://idp.example/token"},
        {"token_endpoint": "https://idp.example; script-src *"},
        {"token_endpoint": "https://*/token"},
        {"token_endpoint": "https://somebody@idp.example/token"},
        {"token_endpoint": "https://[/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": None},
        {"issuer": "https://another.example"},
    ],
)
async def test_an_issuer_that_says_something_else_is_as_one_that_is_away(
    issuer: Issuer, home: Path, said: dict[str, Any]
) -> None:
    issuer.documents[DISCOVERY] = {**issuer.answer(DISCOVERY), **said}
    async with a_service_of(issuer, home) as service:
        told, page = await service.client.get(SIGN_IN), await service.client.get("/")

    assert problem_of(told) == "issuer-unavailable"
    assert (page.status_code, policy_of(page)) == (200, POLICY)


async def test_an_issuer_is_asked_once_an_hour_and_left_alone_while_it_is_away(
    issuer: Issuer,
) -> None:
    now = [0.0]
    async with httpx.AsyncClient() as http:
        sign_in = SignIn(PublicClient(issuer.url, CLIENT), http, clock=lambda: now[0])
        issuer.status = 500
        for now[0] in (0.0, 29.0):
            with pytest.raises(IssuerUnavailable):
                await sign_in.endpoints()
        issuer.status = 200
        for now[0] in (31.0, 3600.0):
            assert (await sign_in.endpoints()).token_origin == issuer.url

    assert issuer.asked == [DISCOVERY, DISCOVERY]


def test_a_client_id_needs_an_issuer(home: Path) -> None:
    with pytest.raises(ValidationError, match="GSCO_OIDC_CLIENT_ID needs GSCO_OIDC_ISSUER"):
        Settings(home=home, authentication=True, oidc_client_id=CLIENT)
