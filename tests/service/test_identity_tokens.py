"""Tokens: which hold, which do not, and how seldom their issuer is asked."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from issuer import AUDIENCE, DISCOVERY, KEYS, Issuer, an_issuer, ec_key, public, rsa_key

from service.errors import IssuerUnavailable, Unauthenticated
from service.identity.caller import Role, Scope
from service.identity.issuer import SigningKeys
from service.identity.tokens import Rules, Tokens

HOUR, DAY = 3600.0, 24 * 3600.0


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Checked:
    """Tokens of one issuer, checked by a clock that stories set."""

    issuer: Issuer
    client: httpx.AsyncClient
    clock: Clock = field(default_factory=Clock)
    rules: dict[str, Any] = field(default_factory=dict)
    jwks_url: str = ""

    def __post_init__(self) -> None:
        url, jwks = self.issuer.url, self.jwks_url
        keys = SigningKeys(url, self.client, jwks_url=jwks, clock=self.clock)
        self.tokens = Tokens(Rules(url, AUDIENCE, **self.rules), keys)

    async def caller(self, token: str) -> Any:
        return await self.tokens.caller(token)

    async def reason(self, token: str) -> str:
        with pytest.raises(Unauthenticated) as told:
            await self.caller(token)
        return str(told.value)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with an_issuer() as issuer:
        yield issuer


@pytest.fixture
async def checked(issuer: Issuer) -> AsyncIterator[Checked]:
    async with httpx.AsyncClient() as client:
        yield Checked(issuer, client)


async def test_a_token_says_who_asks_and_as_what(issuer: Issuer, checked: Checked) -> None:
    caller = await checked.caller(issuer.token("submitter", "gardener"))

    assert caller.name == "user:dr-house"
    assert caller.scopes == {Scope.READ, Scope.SUBMIT}


async def test_a_token_without_a_role_of_ours_may_nothing(issuer: Issuer, checked: Checked) -> None:
    assert (await checked.caller(issuer.token("gardener"))).scopes == frozenset()
    assert (await checked.caller(issuer.token(roles=7))).scopes == frozenset()


async def test_words_of_the_issuer_that_look_like_roles_are_none_once_others_are_named(
    issuer: Issuer, checked: Checked
) -> None:
    mapped = Checked(issuer, checked.client, rules={"roles": {"staff": Role.READER}})

    assert (await mapped.caller(issuer.token("admin"))).scopes == frozenset()
    assert (await mapped.caller(issuer.token("staff"))).scopes == {Scope.READ}


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": int(time.time()) - 120}, "expired"),
        ({"nbf": int(time.time()) + 600}, "not valid yet"),
        ({"aud": "another"}, "another service"),
        ({"iss": "https://another.example"}, "another issuer"),
        ({"sub": None}, "does not hold"),
        ({"exp": None}, "does not hold"),
        ({"aud": None}, "does not hold"),
        ({"sub": "two\nlines"}, "no name"),
        ({"sub": "x" * 256}, "no name"),
        ({"sub": ""}, "no name"),
        ({"exp": "soon"}, "does not hold"),
    ],
)
async def test_a_token_that_does_not_hold_is_refused_with_the_reason(
    issuer: Issuer, checked: Checked, claims: dict[str, Any], reason: str
) -> None:
    assert reason in await checked.reason(issuer.token("reader", **claims))


async def test_clocks_may_differ_by_seconds(issuer: Issuer, checked: Checked) -> None:
    late = issuer.token("reader", exp=int(time.time()) - 10)

    assert (await checked.caller(late)).name == "user:dr-house"


def unsigned(issuer: Issuer) -> str:
    payload = issuer.token("admin").split(".")[1]
    return f"{encoded({'alg': 'none', 'kid': 'first'})}.{payload}."


def signed_with_the_public_key(issuer: Issuer) -> str:
    """The confusion of a public RSA key with a secret that is shared."""
    head = {"alg": "HS256", "typ": "JWT", "kid": "first"}
    pem = rsa_key(0).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    payload = issuer.token("admin").split(".")[1]
    text = f"{encoded(head)}.{payload}"
    mac = hmac.new(pem, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def with_another_payload(issuer: Issuer) -> str:
    head, _, signature = issuer.token("reader").split(".")
    return f"{head}.{issuer.token('admin').split('.')[1]}.{signature}"


def signed_by_a_stranger(issuer: Issuer) -> str:
    return jwt.encode({"sub": "x"}, rsa_key(7), "RS256", {"kid": "first"})


def nested_without_end(_: Issuer) -> str:
    deep = base64.urlsafe_b64encode(b'{"a":' + b"[" * 9000).rstrip(b"=").decode()
    return f"{deep}.e30.AAAA"


def too_long(issuer: Issuer) -> str:
    return issuer.token("reader", more="x" * 20000)


def encoded(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


FORGERIES = [
    unsigned,
    signed_with_the_public_key,
    with_another_payload,
    signed_by_a_stranger,
    nested_without_end,
    too_long,
]


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_token_is_refused(
    issuer: Issuer, checked: Checked, forgery: Callable[[Issuer], str]
) -> None:
    assert await checked.reason(forgery(issuer))


async def test_a_key_too_short_to_trust_signs_nothing(issuer: Issuer, checked: Checked) -> None:
    issuer.signing = {"first": rsa_key(0, 1024)}
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        token = issuer.token("admin")

    assert "does not hold" in await checked.reason(token)


async def test_a_key_that_is_for_encryption_signs_nothing(issuer: Issuer, checked: Checked) -> None:
    issuer.documents[KEYS] = {"keys": [{**public("first", rsa_key(0)), "use": "enc"}]}

    assert "does not list" in await checked.reason(issuer.token("admin"))


async def test_keys_that_cannot_be_read_leave_the_others_usable(
    issuer: Issuer, checked: Checked
) -> None:
    odd = [{"kty": "RSA", "kid": "odd"}, {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"}, 7]
    issuer.documents[KEYS] = {"keys": [*odd, public("first", rsa_key(0))]}

    assert (await checked.caller(issuer.token("reader"))).name == "user:dr-house"


async def test_elliptic_curves_are_understood(issuer: Issuer, checked: Checked) -> None:
    issuer.signing = {"curve": ec_key(0)}

    token = issuer.token("reader", by="curve", algorithm="ES256")

    assert (await checked.caller(token)).name == "user:dr-house"


async def test_only_the_ways_to_sign_that_are_allowed_are_good(
    issuer: Issuer, checked: Checked
) -> None:
    strict = Checked(issuer, checked.client, rules={"algorithms": ("ES256",)})

    assert "not allowed" in await strict.reason(issuer.token("reader"))
    assert issuer.asked == []


async def test_a_token_that_names_no_key_is_checked_with_the_only_one(
    issuer: Issuer, checked: Checked
) -> None:
    payload = jwt.decode(issuer.token("reader"), options={"verify_signature": False})
    nameless = jwt.encode(payload, rsa_key(0), "RS256")
    assert (await checked.caller(nameless)).name == "user:dr-house"

    issuer.signing["second"] = rsa_key(1)
    two = Checked(issuer, checked.client)
    assert "does not list" in await two.reason(nameless)


async def test_the_issuer_is_asked_once_for_many_tokens(issuer: Issuer, checked: Checked) -> None:
    await asyncio.gather(*(checked.caller(issuer.token("reader")) for _ in range(20)))

    assert issuer.asked == [DISCOVERY, KEYS]


async def test_made_up_keys_do_not_make_us_ask_again_and_again(
    issuer: Issuer, checked: Checked
) -> None:
    await checked.caller(issuer.token("reader"))
    for number in range(50):
        await checked.reason(issuer.token("reader", header={"kid": f"made up {number}"}))

    assert issuer.asked.count(KEYS) == 1
    checked.clock.now += 31
    await checked.reason(issuer.token("reader", header={"kid": "made up"}))
    assert issuer.asked.count(KEYS) == 2


async def test_a_new_key_is_found_without_a_restart(issuer: Issuer, checked: Checked) -> None:
    await checked.caller(issuer.token("reader"))
    issuer.signing["second"] = rsa_key(1)
    checked.clock.now += 31

    assert (await checked.caller(issuer.token("reader", by="second"))).name == "user:dr-house"


async def test_a_withdrawn_key_is_forgotten_within_the_hour(
    issuer: Issuer, checked: Checked
) -> None:
    old = issuer.token("admin")
    await checked.caller(old)
    issuer.signing = {"second": rsa_key(1)}
    checked.clock.now += HOUR + 1

    assert "does not list" in await checked.reason(old)


async def test_an_issuer_that_is_away_for_a_while_stops_nobody(
    issuer: Issuer, checked: Checked
) -> None:
    token = issuer.token("reader")
    await checked.caller(token)
    issuer.status = 503
    checked.clock.now += DAY - 1
    assert (await checked.caller(token)).name == "user:dr-house"

    checked.clock.now += 60
    with pytest.raises(IssuerUnavailable):
        await checked.caller(token)


@pytest.mark.parametrize(
    "documents",
    [
        {DISCOVERY: {"issuer": "https://another.example", "jwks_uri": "https://another.example"}},
        {DISCOVERY: {}},
        {DISCOVERY: []},
        {DISCOVERY: b"<html>"},
        {KEYS: {"keys": "none"}},
        {KEYS: b'{"keys": ["' + b"x" * 2_000_000},
        {KEYS: b"\xff\xfe"},
        {KEYS: b"[" * 1_000_000},
    ],
)
async def test_an_issuer_that_says_something_odd_is_as_good_as_away(
    issuer: Issuer, checked: Checked, documents: dict[str, Any]
) -> None:
    issuer.documents = documents

    with pytest.raises(IssuerUnavailable):
        await checked.caller(issuer.token("reader"))


async def test_keys_are_taken_from_no_address_that_others_can_write_to(
    issuer: Issuer, checked: Checked
) -> None:
    issuer.documents[DISCOVERY] = {"issuer": issuer.url, "jwks_uri": "http://10.0.0.9/keys"}

    with pytest.raises(IssuerUnavailable):
        await checked.caller(issuer.token("reader"))


async def test_an_issuer_that_moves_its_keys_is_not_followed(
    issuer: Issuer, checked: Checked
) -> None:
    issuer.status = 302

    with pytest.raises(IssuerUnavailable):
        await checked.caller(issuer.token("reader"))


async def test_keys_may_be_where_the_settings_say(issuer: Issuer, checked: Checked) -> None:
    issuer.documents[DISCOVERY] = b"none"
    direct = Checked(issuer, checked.client, jwks_url=f"{issuer.url}{KEYS}")

    assert (await direct.caller(issuer.token("reader"))).name == "user:dr-house"
    assert issuer.asked == [KEYS]
