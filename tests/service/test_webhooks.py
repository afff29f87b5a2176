"""Stories of receivers who are told that a job has ended, and of those who should not be."""

import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes import FakeGeneralist
from receiver import Receiver, a_receiver
from serving import Service, a_service, problem_of
from standardwebhooks import Webhook, WebhookVerificationError
from waiting import until, until_told

from service.errors import GeneralistUnavailable, InvalidInput, Misconfigured
from service.jobs import overview, queue, webhooks
from service.jobs.job import Job, Retry, State
from service.jobs.webhooks import Webhooks, secrets_of

SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes that are secret").decode()
PROMPT = Retry(attempts=3, first_seconds=0.05, longest_seconds=0.1)


@asynccontextmanager
async def telling(home: Path, receiver: Receiver, **more: Any) -> AsyncIterator[Service]:
    """A service that may tell this receiver."""
    allowed = {"webhook_urls": (receiver.url,), "webhook_secret": SECRET}
    async with a_service(home, in_sql=True, **allowed, **more) as service:
        yield service


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "RETRY", PROMPT)


async def deliveries(service: Service, *states: State) -> tuple[Job, ...]:
    queue = service.app.state.serving.parts.queue
    return await queue.read(overview.recent, [webhooks.NAME], states or tuple(State), 10)  # type: ignore[no-any-return]


async def test_the_end_of_a_job_is_told_under_a_signature(home: Path) -> None:
    with a_receiver() as receiver:
        async with telling(home, receiver) as service:
            id = (await service.ask_for_job(webhook=receiver.url)).json()["id"]
            await until(lambda: receiver.received)
            job = await service.job(id)

    headers, body = receiver.received[0]
    event = Webhook(SECRET).verify(body, headers)
    assert event["type"] == "job.succeeded"
    assert event["data"] == {
        "id": id,
        "status": "succeeded",
        "kind": "diagnosis",
        "job": f"/v1/jobs/{id}",
        "result": job["result"],
    }
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + b" ", headers)


@pytest.mark.usefixtures("_impatient")
async def test_what_is_not_taken_is_sent_again_under_the_same_id(home: Path) -> None:
    with a_receiver(500, 429) as receiver:
        async with telling(home, receiver) as service:
            await service.ask_for_job(webhook=receiver.url)
            await until(lambda: len(receiver.received) == 3)
            await until_none_is_open(service)

    ids = {headers["webhook-id"] for headers, _ in receiver.received}
    bodies = {body for _, body in receiver.received}
    assert (len(ids), len(bodies)) == (1, 1)


@pytest.mark.usefixtures("_impatient")
async def test_what_is_never_taken_is_a_dead_letter_and_can_be_sent_anew(home: Path) -> None:
    with a_receiver(500, 500, 500) as receiver:
        async with telling(home, receiver) as service:
            await service.ask_for_job(webhook=receiver.url)
            await until(lambda: len(receiver.received) == 3)
            await until_none_is_open(service)
            (dead,) = await deliveries(service, State.FAILED)
            figures = await service.figures()
            durable = service.app.state.serving.parts.queue
            await durable.run(queue.resend, [webhooks.NAME])
            await until(lambda: len(receiver.received) == 4)
            await until_none_is_open(service)
            (sent,) = await deliveries(service)

    assert dead.problem is not None
    assert dead.problem.detail == "the receiver answered 500"
    assert 'gsco_jobs{name="webhook",state="failed"} 1.0' in figures
    assert (sent.id, sent.state) == (dead.id, State.SUCCEEDED)
    assert receiver.received[3][0]["webhook-id"] == dead.id


async def test_a_receiver_that_is_gone_is_not_asked_again(home: Path) -> None:
    with a_receiver(410) as receiver:
        async with telling(home, receiver) as service:
            await service.ask_for_job(webhook=receiver.url)
            await until(lambda: receiver.received)
            await until_none_is_open(service)
            (dead,) = await deliveries(service)

    assert (dead.state, dead.attempts) == (State.FAILED, 1)


@pytest.mark.usefixtures("_impatient")
async def test_no_redirect_is_followed(home: Path) -> None:
    with a_receiver() as other, a_receiver(307, 307, 307, location=other.url) as receiver:
        async with telling(home, receiver) as service:
            await service.ask_for_job(webhook=receiver.url)
            await until(lambda: len(receiver.received) == 3)

    assert other.received == []


async def test_a_cancelled_job_is_told_too(home: Path) -> None:
    away = FakeGeneralist(failure=GeneralistUnavailable("away"))
    with a_receiver() as receiver:
        async with telling(home, receiver, generalist=away) as service:
            job = await service.ask_for_job(webhook=receiver.url)
            await service.client.delete(job.headers["location"])
            await until(lambda: receiver.received)

    assert Webhook(SECRET).verify(receiver.received[0][1], receiver.received[0][0])["type"] == (
        "job.cancelled"
    )


async def test_an_address_that_is_no_longer_allowed_is_not_told(home: Path) -> None:
    away = FakeGeneralist(failure=GeneralistUnavailable("away"))
    with a_receiver() as receiver:
        async with telling(home, receiver, generalist=away) as service:
            job = await service.ask_for_job(webhook=receiver.url)
        async with a_service(home, in_sql=True) as service:
            await service.ended(job.json()["id"])
            await until_none_is_open(service)
            (dead,) = await deliveries(service)

    assert (dead.state, receiver.received) == (State.FAILED, [])


async def test_a_webhook_to_anywhere_else_is_refused_with_its_job(home: Path) -> None:
    with a_receiver() as receiver:
        async with telling(home, receiver) as service:
            refused = await service.ask_for_job(webhook="http://169.254.169.254/latest/meta-data")
            counted = await service.figures()

    assert problem_of(refused) == "invalid-input"
    assert service.generalist.asked == []
    assert "gsco_jobs{" not in counted


ALLOWED = ("https://ris.example.org/hooks", "http://127.0.0.1:9000/")


@pytest.mark.parametrize(
    "url",
    [
        "https://ris.example.org/hooks",
        "https://ris.example.org:443/hooks/gsco?site=a",
        "https://RIS.example.org/hooks/",
        "http://127.0.0.1:9000/any/where",
    ],
)
def test_addresses_at_or_below_an_allowed_one_may_be_told(url: str) -> None:
    assert Webhooks(ALLOWED, (), httpx.AsyncClient()).work(url, {}).argument["url"] == url


@pytest.mark.parametrize(
    "url",
    [
        "https://ris.example.org/hooksome",
        "https://ris.example.org/hooks/../admin",
        "https://ris.example.org/hooks/%2e%2e/admin",
        "https://ris.example.org/hooks/..;/admin",
        "https://ris.example.org/hooks\\..\\admin",
        "https://ris.example.org/",
        "https://ris.example.org.evil.example/hooks",
        "https://evil.example/https://ris.example.org/hooks",
        "https://ris.example.org@evil.example/hooks",
        "https://user:word@ris.example.org/hooks",
        "https://evil.example#@ris.example.org/hooks",
        "http://ris.example.org/hooks",
        "https://ris.example.org:8443/hooks",
        "http://127.0.0.1/",
        "http://2130706433:9000/",
        "http://localhost:9000/",
        "http://[::1]:9000/",
        "https://ris.example.org/hooks\r\nHost: evil.example",
        "https://rís.example.org/hooks",
        "file:///etc/passwd",
        "//ris.example.org/hooks",
        "https://ris.example.org:99999/hooks",
        "",
        "https://ris.example.org/hooks/" + "a" * 500,
    ],
)
def test_every_other_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="not among those"):
        Webhooks(ALLOWED, (), httpx.AsyncClient()).work(url, {})


def test_while_a_secret_is_replaced_both_sign() -> None:
    other = "whsec_" + base64.b64encode(b"another secret, as long as that one").decode()
    secrets = secrets_of(f"{SECRET}; {other}")
    body = b'{"type":"job.succeeded"}'

    headers = webhooks.signed(secrets, "id", int(time.time()), body)

    for secret in (SECRET, other):
        assert Webhook(secret).verify(body, headers)


@pytest.mark.parametrize("secret", ["secret", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64"])
def test_a_secret_that_is_none_is_named_at_the_start(secret: str) -> None:
    with pytest.raises(Misconfigured, match="GSCO_WEBHOOK_SECRET"):
        secrets_of(secret)


async def until_none_is_open(service: Service) -> None:
    await until_told(
        lambda: deliveries(service, State.QUEUED, State.RUNNING), lambda jobs: not jobs
    )
