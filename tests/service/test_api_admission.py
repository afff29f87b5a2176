"""Stories of callers who find no room, and of callers who leave."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from builders import png_bytes
from fakes import FakeGeneralist, FakeStore
from serving import a_service, problem_of

from service.domain import Completion, Prompt

STREAM = {"accept": "text/event-stream"}


async def test_more_cases_than_allowed_at_once_are_asked_to_come_again(home: Path) -> None:
    slow = FakeGeneralist(delay_seconds=0.1)
    async with a_service(home, generalist=slow, max_concurrent_cases=1) as service:
        replies = await asyncio.gather(service.diagnose(), service.diagnose())
        afterwards = await service.diagnose()

    assert sorted(reply.status_code for reply in replies) == [201, 503]
    assert afterwards.status_code == 201


async def test_a_full_service_refuses_before_the_body_is_sent(home: Path) -> None:
    sent: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        sent.append(b"x")
        yield b"x"

    slow = FakeGeneralist(delay_seconds=0.3)
    headers = {"content-type": "multipart/form-data; boundary=line"}
    async with a_service(home, generalist=slow, max_concurrent_cases=1) as service:
        first = asyncio.create_task(service.diagnose())
        await until(lambda: slow.asked)
        refused = await service.client.post("/v1/diagnoses", content=body(), headers=headers)
        readable = await service.client.get("/v1/tasks")

    assert (refused.status_code, problem_of(refused)) == (503, "overloaded")
    assert sent == []
    assert readable.status_code == 200
    assert (await first).status_code == 201


async def test_a_full_service_refuses_a_stream_by_its_status(home: Path) -> None:
    slow = FakeGeneralist(delay_seconds=0.3)
    async with a_service(home, generalist=slow, max_concurrent_cases=1) as service:
        first = asyncio.create_task(service.diagnose())
        await until(lambda: slow.asked)
        refused = await service.client.post("/v1/diagnoses", headers=STREAM)
        await first

    assert (refused.status_code, problem_of(refused)) == (503, "overloaded")
    assert "retry-after" in refused.headers


async def test_a_caller_who_leaves_stops_the_work(home: Path) -> None:
    async with a_service(home, generalist=FakeGeneralist(delay_seconds=30)) as service:
        status = await post_and_leave(service.app)

    assert status == 499
    assert service.store.saved == {}


async def test_a_caller_who_leaves_a_stream_stops_the_work(home: Path) -> None:
    calls: list[str] = []
    away = NotesWhenCancelled(delay_seconds=30, calls=calls)
    async with a_service(home, generalist=away) as service:
        await post_and_leave(service.app, when=lambda: bool(away.asked), headers=STREAM)
        await until(lambda: "cancelled" in calls)
        figures = await service.figures()

    assert "gsco_cases_in_progress 0.0" in figures
    assert service.store.saved == {}


@pytest.mark.parametrize("headers", [{}, STREAM])
async def test_a_caller_who_leaves_during_the_save_comes_too_late(
    home: Path, headers: dict[str, str]
) -> None:
    store = FakeStore(delay_seconds=0.1)
    async with a_service(home, store=store) as service:
        status = await post_and_leave(service.app, when=lambda: bool(store.asked), headers=headers)
        await until(lambda: store.saved)
        await asyncio.sleep(0.05)
        figures = await service.figures()

    assert status == 201
    assert "gsco_diagnoses_total{" in figures


class NotesWhenCancelled(FakeGeneralist):
    async def answer(self, prompt: Prompt) -> Completion:
        try:
            return await super().answer(prompt)
        except asyncio.CancelledError:
            self.calls.append("cancelled")
            raise


async def until(holds: Callable[[], object]) -> None:
    """Returns when something has come about."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - fakes announce nothing
            await asyncio.sleep(0.005)


async def post_and_leave(
    app: object,
    when: Callable[[], object] = lambda: True,
    headers: dict[str, str] | None = None,
) -> int:
    """Sends a whole request and hangs up; the status that would have been sent."""
    request = httpx.Request(
        "POST",
        "http://localhost/v1/diagnoses",
        files={"file": ("image.png", png_bytes())},
        data={"task": "cxr-pneumonia"},
        headers=headers,
    )
    messages = iter([{"type": "http.request", "body": request.read()}, {"type": "http.disconnect"}])
    sent: list[dict[str, int]] = []

    async def receive() -> object:
        await asyncio.sleep(0.02)
        message = next(messages)
        if message["type"] == "http.disconnect":
            await until(when)
        return message

    async def send(message: dict[str, int]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/diagnoses",
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
    }
    await app(scope, receive, send)  # type: ignore[operator]
    return sent[0]["status"]
