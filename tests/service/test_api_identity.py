"""Stories of callers: with keys, with tokens, too often, from elsewhere, from a browser."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import png_bytes
from callers import a_key, bearing, holding
from databases import kept_in
from fakes import FakeGeneralist, FakeIntake, FakeRetriever, FakeSpecialists, FakeStore
from issuer import AUDIENCE, Issuer, an_issuer
from listening import listening
from serving import Service, a_service, problem_of
from sqlalchemy.exc import OperationalError

from service.api.dependencies import Parts
from service.app import create_app
from service.domain import Diagnosis
from service.errors import Misconfigured
from service.identity.caller import Scope
from service.persistence import keys as kept
from service.pipeline import Pipeline
from service.settings import Settings, read_settings

pytestmark = pytest.mark.usefixtures("either_database")

TASKS = "/v1/tasks"


async def ask(service: Service, credential: str) -> httpx.Response:
    return await service.client.get(TASKS, headers=bearing(credential))


async def test_a_key_opens_what_it_is_for(home: Path) -> None:
    async with a_service(home, authentication=True) as service:
        reply = await service.client.get(TASKS, headers=holding(service.engine, Scope.READ))

    assert reply.status_code == 200


async def test_when_a_key_was_last_used_is_known_to_the_minute(home: Path) -> None:
    async with a_service(home, authentication=True) as service:
        key, text = a_key(service.engine, Scope.READ)
        assert key.last_used_at is None
        for _ in range(3):
            await ask(service, text)
        used = kept.find(service.engine, key.id)

    assert used is not None
    assert used.last_used_at is not None
    assert datetime.now(UTC) - used.last_used_at < timedelta(minutes=1)


async def test_a_revoked_key_is_refused_from_that_moment(home: Path) -> None:
    async with a_service(home, authentication=True) as service:
        key, text = a_key(service.engine, Scope.READ)
        before = await ask(service, text)
        kept.revoke(service.engine, key.id, "local:test")
        after = await ask(service, text)

    assert before.status_code == 200
    assert problem_of(after) == "unauthenticated"
    assert f"{key.id} is revoked" in after.json()["detail"]
    assert after.headers["www-authenticate"] == 'Bearer realm="gsco", error="invalid_token"'


async def test_an_expired_key_is_refused(home: Path) -> None:
    async with a_service(home, authentication=True) as service:
        _, text = a_key(service.engine, Scope.READ, age_days=31)
        reply = await ask(service, text)

    assert "is expired" in reply.json()["detail"]
    assert reply.status_code == 401


async def test_which_keys_there_are_is_not_told(home: Path) -> None:
    async with a_service(home, authentication=True) as service:
        key, text = a_key(service.engine, Scope.READ)
        other_secret = text[:-4] + ("AAAA" if not text.endswith("AAAA") else "BBBB")
        wrong = await ask(service, other_secret)
        unknown = await ask(service, text.replace(key.id, "0" * 12))

    assert wrong.json()["detail"] == unknown.json()["detail"]
    assert (wrong.status_code, unknown.status_code) == (401, 401)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic Z3Njbzo=", "gsco_x", "Bearer gsco_short", "Bearer a.b.c",
     "Bearer gsco_000000000000_" + "ä" * 43, "Bearer " + "x" * 9000, "Bearer '; DROP TABLE x"],
)  # fmt: skip
async def test_what_is_no_credential_is_refused_in_one_sentence(home: Path, header: str) -> None:
    async with a_service(home, authentication=True) as service:
        headers = {"Authorization": header.encode()}
        reply = await service.client.get(TASKS, headers=headers)

    assert problem_of(reply) == "unauthenticated"
    assert len(reply.json()["detail"]) < 100


async def test_a_stranger_s_body_is_not_even_read(home: Path) -> None:
    read: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        for number in range(3):
            read.append(number)
            yield b"0" * 100

    async with a_service(home, authentication=True, max_upload_bytes=10) as service:
        reply = await service.client.post("/v1/diagnoses", content=body())

    assert problem_of(reply) == "unauthenticated"
    assert read == []


def test_a_stranger_who_sends_much_hears_why_it_is_refused(home: Path) -> None:
    four = FakeSpecialists(), FakeRetriever(), FakeGeneralist(), FakeStore()
    with kept_in(home) as kept:
        parts = Parts(Pipeline(*four), *four, FakeIntake(), *kept)
        with listening(create_app(Settings(home=home, authentication=True), parts)) as url:
            much = {"file": b"0" * 20_000_000}
            reply = httpx.post(f"{url}/v1/diagnoses", files=much, timeout=20)

    assert problem_of(reply) == "unauthenticated"


async def test_no_answer_repeats_a_key(home: Path) -> None:
    async with a_service(home, authentication=True) as service:
        _, text = a_key(service.engine, Scope.METRICS)
        reply = await ask(service, text)

    assert reply.status_code == 403
    assert text.rpartition("_")[2] not in reply.text


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with an_issuer() as issuer:
        yield issuer


def trusting(issuer: Issuer, **more: Any) -> dict[str, Any]:
    return {
        "authentication": True,
        "oidc_issuer": issuer.url,
        "oidc_audience": AUDIENCE,
        **more,
    }


async def test_a_person_s_roles_say_what_they_may_do(home: Path, issuer: Issuer) -> None:
    reader, nobody = issuer.token("reader"), issuer.token("janitor")
    async with a_service(home, **trusting(issuer)) as service:
        read = await ask(service, reader)
        submitted = await service.client.post("/v1/diagnoses", headers=bearing(reader))
        wondered = await ask(service, nobody)

    assert read.status_code == 200
    assert problem_of(submitted) == "forbidden"
    assert problem_of(wondered) == "forbidden"


@pytest.mark.parametrize(
    ("claims", "settings"),
    [
        ({"roles": "openid reader"}, {}),
        ({"realm_access": {"roles": ["reader"]}}, {"oidc_roles_claim": "realm_access.roles"}),
        ({"https://x.org/r": ["reader"]}, {"oidc_roles_claim": "https://x.org/r"}),
        ({"roles": ["Ward 3=staff"]}, {"oidc_roles": "Ward 3=staff=reader;IT=admin"}),
    ],
)
async def test_roles_are_found_where_issuers_put_them(
    home: Path, issuer: Issuer, claims: dict[str, Any], settings: dict[str, Any]
) -> None:
    async with a_service(home, **trusting(issuer, **settings)) as service:
        reply = await ask(service, issuer.token(**claims))

    assert reply.status_code == 200


async def test_keys_and_tokens_live_side_by_side(home: Path, issuer: Issuer) -> None:
    async with a_service(home, **trusting(issuer)) as service:
        by_key = await service.client.get(TASKS, headers=holding(service.engine, Scope.READ))

    assert by_key.status_code == 200
    assert issuer.asked == []


async def test_without_an_issuer_a_token_is_no_credential(home: Path, issuer: Issuer) -> None:
    async with a_service(home, authentication=True) as service:
        reply = await ask(service, issuer.token("admin"))

    assert problem_of(reply) == "unauthenticated"


async def test_an_issuer_that_is_away_is_waited_for(home: Path, issuer: Issuer) -> None:
    issuer.status = 500
    async with a_service(home, **trusting(issuer)) as service:
        reply = await ask(service, issuer.token("reader"))

    assert problem_of(reply) == "issuer-unavailable"
    assert reply.headers["retry-after"]


async def test_callers_are_told_what_is_left_to_them(home: Path) -> None:
    async with a_service(home, authentication=True, rate_limit="3/minute") as service:
        headers = holding(service.engine, Scope.READ)
        replies = [await service.client.get(TASKS, headers=headers) for _ in range(4)]

    assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
    assert replies[0].headers["ratelimit-policy"] == '"default";q=3;w=60'
    assert [reply.headers["ratelimit"].split(";")[1] for reply in replies] == [
        "r=2", "r=1", "r=0", "r=0",
    ]  # fmt: skip
    assert problem_of(replies[3]) == "rate-exceeded"
    assert 1 <= int(replies[3].headers["retry-after"]) <= 120
    assert "retry-after" not in replies[0].headers


async def test_one_caller_s_haste_is_nobody_else_s_wait(home: Path) -> None:
    async with a_service(home, authentication=True, rate_limit="1/minute") as service:
        hasty, other = (holding(service.engine, Scope.READ) for _ in range(2))
        patient = holding(service.engine, Scope.READ, rate="5/minute")
        for _ in range(2):
            refused = await service.client.get(TASKS, headers=hasty)
        served = await service.client.get(TASKS, headers=other)
        more = [await service.client.get(TASKS, headers=patient) for _ in range(5)]

    assert (refused.status_code, served.status_code) == (429, 200)
    assert [reply.status_code for reply in more] == [200] * 5


async def test_rates_are_not_counted_where_nobody_is_asked_who_they_are(home: Path) -> None:
    async with a_service(home, rate_limit="1/minute") as service:
        replies = [await service.client.get(TASKS) for _ in range(3)]

    assert [reply.status_code for reply in replies] == [200] * 3
    assert "ratelimit" not in replies[0].headers


async def test_a_database_that_is_away_lets_nobody_in(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    async with a_service(home, authentication=True) as service:
        headers = holding(service.engine, Scope.READ)
        monkeypatch.setattr(type(service.app.state.serving.parts.keys), "find", away)
        reply = await service.client.get(TASKS, headers=headers)

    assert problem_of(reply) == "database-unavailable"


@pytest.mark.parametrize(
    ("client", "host"),
    [
        (("10.0.0.7", 1), "localhost"),
        (("127.0.0.1", 1), "evil.example"),  # a browser that was led here (DNS rebinding)
        (("127.0.0.1", 1), "127.0.0.1.evil.example:8000"),
        (("127.0.0.1", 1), ""),
    ],
)
async def test_without_authentication_strangers_are_refused(
    home: Path, client: tuple[str, int], host: str
) -> None:
    async with a_service(home) as service:
        transport = httpx.ASGITransport(service.app, client=client)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as stranger:
            reply = await stranger.get(TASKS, headers={"Host": host})
            alive = await stranger.get("/livez", headers={"Host": host})

    assert problem_of(reply) == "forbidden"
    assert alive.status_code == 200


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
async def test_without_authentication_nobody_comes_through_a_proxy(home: Path, header: str) -> None:
    async with a_service(home) as service:
        reply = await service.client.get(TASKS, headers={header: "127.0.0.1"})

    assert problem_of(reply) == "forbidden"


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"])
async def test_without_authentication_this_machine_is_answered(home: Path, host: str) -> None:
    async with a_service(home) as service:
        reply = await service.client.get(TASKS, headers={"Host": host})

    assert reply.status_code == 200


async def test_behind_a_gateway_of_their_own_everybody_may_be_answered(home: Path) -> None:
    async with a_service(home, allow_anonymous=True) as service:
        transport = httpx.ASGITransport(service.app, client=("10.0.0.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as stranger:
            reply = await stranger.get(TASKS)

    assert reply.status_code == 200


async def test_another_site_s_page_cannot_send_images_through_its_reader_s_browser(
    home: Path,
) -> None:
    async with a_service(home) as service:
        own = {"Origin": "http://localhost"}
        same = await service.client.get(TASKS, headers=own)
        files, form = {"file": ("x.png", png_bytes())}, {"task": "cxr-pneumonia"}
        for origin in ("https://evil.example", "null", "http://localhost:9"):
            foreign = {"Origin": origin}
            reply = await service.client.post(
                "/v1/diagnoses", files=files, data=form, headers=foreign
            )
            assert problem_of(reply) == "forbidden"

    assert same.status_code == 200
    assert service.store.saved == {}


async def test_no_other_origin_is_let_in_by_a_browser(home: Path) -> None:
    origin = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    async with a_service(home) as service:
        preflight = await service.client.options("/v1/diagnoses", headers=origin)
        reply = await service.client.get(TASKS, headers=origin)

    assert preflight.status_code == 405
    for headers in (preflight.headers, reply.headers):
        assert not [name for name in headers if name.startswith("access-control-")]


async def test_every_reply_tells_browsers_to_do_nothing_with_it(home: Path) -> None:
    async with a_service(home, authentication=True) as service:
        replies = [await service.client.get(path) for path in ("/livez", TASKS, "/nowhere")]

    for reply in replies:
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["content-security-policy"].startswith("default-src 'none'")
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert "server" not in reply.headers


@pytest.mark.parametrize(
    "settings",
    [
        {"rate_limit": "600"},
        {"rate_limit": "0/minute"},
        {"rate_limit": "5/minute;6/hour"},
        {"oidc_issuer": "http://idp.example", "oidc_audience": "a", "authentication": True},
        {"oidc_issuer": "https://idp.example", "oidc_audience": "a", "authentication": True,
         "oidc_jwks_url": "file:///etc/passwd"},
        {"oidc_issuer": "https://idp.example", "oidc_audience": "a", "authentication": True,
         "oidc_algorithms": "RS256;HS256"},
        {"oidc_issuer": "https://idp.example", "oidc_audience": "a", "authentication": True,
         "oidc_algorithms": "none"},
        {"oidc_issuer": "https://idp.example", "oidc_audience": "a", "authentication": True,
         "oidc_roles": "staff=king"},
    ],
)  # fmt: skip
def test_settings_that_would_let_in_too_many_stop_the_start(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(Misconfigured):
        create_app(read_settings(home=tmp_path, **settings))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"authentication": True, "allow_anonymous": True}, "set one of them"),
        ({"oidc_issuer": "https://x.example"}, "needs GSCO_OIDC_AUDIENCE"),
        ({"oidc_issuer": "https://x.example", "oidc_audience": "a"}, "needs GSCO_AUTHENTICATION"),
    ],
)
def test_settings_that_contradict_each_other_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        read_settings(**settings)


async def test_who_asked_is_known_to_the_diagnosis(home: Path) -> None:
    async with a_service(home, authentication=True, in_sql=True) as service:
        key, text = a_key(service.engine, Scope.SUBMIT)
        files, form = {"file": ("image.png", png_bytes())}, {"task": "cxr-pneumonia"}
        reply = await service.client.post(
            "/v1/diagnoses", files=files, data=form, headers=bearing(text)
        )
        made = await service.store.get(Diagnosis, reply.json()["id"])

    assert made.provenance.requested_by == f"key:{key.id}"


async def test_callers_learn_who_they_are_and_what_they_may_do(home: Path) -> None:
    async with a_service(home, authentication=True) as service:
        key, text = a_key(service.engine, Scope.READ, Scope.SUBMIT)
        reply = await service.client.get("/v1/caller", headers=bearing(text))

    assert reply.json() == {"name": f"key:{key.id}", "scopes": ["read", "submit"]}


async def test_without_authentication_everybody_may_do_everything(home: Path) -> None:
    async with a_service(home) as service:
        reply = await service.client.get("/v1/caller")

    assert reply.json() == {"name": "anonymous", "scopes": [scope.value for scope in Scope]}
