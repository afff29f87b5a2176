"""Everything a generalist's server can do wrong, over a real socket: an error, never an answer."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from builders import a_prompt
from openai_server import a_listing, a_reply, an_event, serving

from service.domain import Prompt
from service.errors import GeneralistUnavailable, Overloaded
from service.generalist import vllm
from service.generalist.vllm import VllmGeneralist

ANSWER = a_reply(a_listing(("normal", -0.0001)))
FREE = a_reply({"choices": [{"message": {"content": "Clear lungs."}, "finish_reason": "stop"}]})
PIECES = [an_event("meddr", role="assistant", content=""), an_event("meddr", content="Clear ")]
REST = [an_event("meddr", content="lungs."), an_event("meddr", "stop"), "data: [DONE]\n\n"]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "RETRY_PAUSES_SECONDS", (0.0, 0.0))


@pytest.mark.parametrize(
    ("fault", "attempts", "error", "sentence"),
    [
        (a_reply("{" * 20), 1, GeneralistUnavailable, "did not answer in JSON"),
        (a_reply(a_listing(("normal", 0.0)), cut=20), 2, GeneralistUnavailable, "broke off"),
        (b"", 2, GeneralistUnavailable, "broke off"),
        (b"hello\r\n\r\n", 2, GeneralistUnavailable, "speaks no HTTP"),
        (a_reply("", 500), 2, GeneralistUnavailable, "refused with 500"),
        (a_reply("", 502), 2, GeneralistUnavailable, "refused with 502"),
        (a_reply("", 503), 3, GeneralistUnavailable, "refused with 503"),
        (a_reply("", 503, Retry_After=600), 1, GeneralistUnavailable, "refused with 503"),
        (a_reply("", 429), 3, Overloaded, "is busy: 429"),
        (a_reply("", 429, Retry_After=0), 3, Overloaded, "is busy: 429"),
        (a_reply("", 429, Retry_After=600), 1, Overloaded, "is busy: 429"),
        (a_reply("", 429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), 3, Overloaded, "busy"),
        (a_reply("", 400), 1, GeneralistUnavailable, "refused with 400"),
        (a_reply("", 302), 1, GeneralistUnavailable, "refused with 302"),
    ],
)
async def test_a_fault_that_stays_ends_after_few_attempts(
    fault: bytes, attempts: int, error: type[Exception], sentence: str
) -> None:
    async with serving(fault) as server, remote(server.base_url) as generalist:
        with pytest.raises(error, match=sentence):
            await generalist.answer(a_prompt())

    assert server.requests == attempts


@pytest.mark.parametrize(
    "fault",
    [
        a_reply("", 500),
        a_reply("", 429, Retry_After=0),
        a_reply("", 503),
        a_reply("{}", cut=1),
        b"",
    ],
)
async def test_a_fault_that_passes_costs_nothing_but_time(fault: bytes) -> None:
    async with serving(fault, ANSWER) as server, remote(server.base_url) as generalist:
        assert (await generalist.answer(a_prompt())).text == "normal"


async def test_a_busy_server_gets_the_time_it_asks_for() -> None:
    busy = a_reply("", 429, Retry_After=1)
    began = time.monotonic()

    async with serving(busy, ANSWER) as server, remote(server.base_url) as generalist:
        await generalist.answer(a_prompt())

    assert 1.0 <= time.monotonic() - began < 4.0


@pytest.mark.parametrize("begun", [b"", ANSWER[:-10]])
async def test_a_slow_server_is_not_waited_for_longer_than_agreed(begun: bytes) -> None:
    async with (
        serving(begun, stall_seconds=5) as server,
        remote(server.base_url, timeout_seconds=0.2) as generalist,
    ):
        with pytest.raises(GeneralistUnavailable, match=r"no answer within 0\.2 s"):
            await generalist.answer(a_prompt())

    assert server.requests == 1


async def test_a_stream_gives_pieces_until_its_end() -> None:
    async with serving(a_stream(PIECES + REST)) as server, remote(server.base_url) as generalist:
        pieces = [piece async for piece in generalist.stream(a_question())]

    assert pieces == ["Clear ", "lungs."]
    assert server.bodies[0]["stream"] is True


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        ([], "in the middle of its answer"),
        (["data: {broken\n\n"], "did not answer in JSON"),
        (['data: {"error": {"message": "sk-1"}}\n\n', *REST], "broke off its answer"),
        ([an_event("meddr", "abort"), *REST], "broke off its answer"),
        (['data: {"choices": [{}]}\n\n', *REST], "out of protocol: no text"),
        ([an_event("gpt", content="Hm."), *REST], "but 'gpt' answered"),
        ([an_event("meddr", content="")] * 2000, "does not come to an end"),
    ],
)
async def test_half_a_stream_is_no_answer(events: list[str], sentence: str) -> None:
    pieces: list[str] = []
    async with (
        serving(a_stream([*PIECES, *events])) as server,
        remote(server.base_url) as generalist,
    ):
        with pytest.raises(GeneralistUnavailable, match=sentence):
            await collect(generalist.stream(a_question()), pieces)

    assert pieces == ["Clear "]
    assert server.requests == 1


async def test_a_stream_that_stalls_is_not_waited_for_longer_than_agreed() -> None:
    async with (
        serving(a_reply("".join(PIECES + REST), cut=60), stall_seconds=5) as server,
        remote(server.base_url, timeout_seconds=0.2) as generalist,
    ):
        with pytest.raises(GeneralistUnavailable, match=r"no answer within 0\.2 s"):
            await collect(generalist.stream(a_question()), [])


async def test_the_beginning_of_a_stream_is_asked_for_again() -> None:
    busy, whole = a_reply("", 503), a_stream(PIECES + REST)
    async with serving(busy, whole) as server, remote(server.base_url) as generalist:
        pieces = [piece async for piece in generalist.stream(a_question())]

    assert "".join(pieces) == "Clear lungs."
    assert server.requests == 2


async def test_free_text_is_the_servers() -> None:
    async with serving(FREE) as server, remote(server.base_url) as generalist:
        assert (await generalist.answer(a_question())).text == "Clear lungs."


@asynccontextmanager
async def remote(base_url: str, **fields: Any) -> AsyncIterator[VllmGeneralist]:
    generalist = VllmGeneralist(base_url, "meddr", **fields)
    try:
        yield generalist
    finally:
        await generalist.close()


def a_stream(events: list[str]) -> bytes:
    """A reply of unknown length, as streams are: its end is that of the connection."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    return head + "".join(events).encode()


def a_question() -> Prompt:
    return Prompt(a_prompt().image, "What is seen?", max_tokens=64)


async def collect(stream: AsyncIterator[str], pieces: list[str]) -> None:
    async for piece in stream:
        pieces.append(piece)  # noqa: PERF401 what came before a failure counts
