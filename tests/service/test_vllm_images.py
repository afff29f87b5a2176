"""An image travels to vLLM once: afterwards its name is enough, and nobody else knows the name."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import a_prompt
from openai_server import TOO_LONG, OpenAiServer, a_listing, an_event
from tiny_generalist import a_checkpoint

from service.domain import Prompt
from service.errors import GeneralistUnavailable, Overloaded, PromptTooLong
from service.generalist import images, vllm
from service.generalist.vllm import VllmGeneralist


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generalist") / "tiny"
    a_checkpoint(folder)
    return folder


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "RETRY_PAUSES_SECONDS", (0.0, 0.0))


async def test_an_arbitration_names_the_image_that_its_initial_diagnosis_sent(folder: Path) -> None:
    server = OpenAiServer(folder, "meddr")
    initial, arbitration = the_two_prompts()

    async with a_generalist(server) as generalist:
        await generalist.answer(initial)
        await generalist.answer(arbitration)

    sent, *named = pictures(server)
    assert sent["image_url"]["url"].startswith("data:image/png;base64,")
    assert named
    assert all(x == {**sent, "image_url": None} for x in named)


async def test_what_is_answered_by_name_is_what_is_answered_to_the_image(folder: Path) -> None:
    initial, arbitration = the_two_prompts()

    async with a_generalist(OpenAiServer(folder, "meddr")) as generalist:
        await generalist.answer(initial)
        by_name = await generalist.answer(arbitration)
        spoken = [piece async for piece in generalist.stream(replace(initial, choices=()))]
    async with a_generalist(OpenAiServer(folder, "meddr", keeps=False)) as generalist:
        assert await generalist.answer(arbitration) == by_name
        assert [x async for x in generalist.stream(replace(initial, choices=()))] == spoken


async def test_an_image_that_the_server_lost_is_sent_again(folder: Path) -> None:
    server = OpenAiServer(folder, "meddr")
    initial, arbitration = the_two_prompts()

    async with a_generalist(server) as generalist:
        await generalist.answer(initial)
        server.kept.clear()
        server.requests.clear()
        await generalist.answer(arbitration)

    lost, again, *known = [is_whole(x) for x in pictures(server)]
    assert (lost, again, any(known)) == (False, True, False)


async def test_a_stream_about_a_lost_image_is_begun_with_the_image(folder: Path) -> None:
    server = OpenAiServer(folder, "meddr")
    question = replace(the_two_prompts()[0], choices=())

    async with a_generalist(server) as generalist:
        first = [piece async for piece in generalist.stream(question)]
        server.kept.clear()
        second = [piece async for piece in generalist.stream(question)]

    assert first == second
    assert [is_whole(x) for x in pictures(server)[-3:]] == [True, False, True]


async def test_other_servers_get_every_image_whole_and_no_name(folder: Path) -> None:
    server = OpenAiServer(folder, "meddr", keeps=False)
    initial, arbitration = the_two_prompts()

    async with a_generalist(server) as generalist:
        await generalist.answer(initial)
        await generalist.answer(arbitration)

    assert all(is_whole(x) and "uuid" not in x for x in pictures(server))


async def test_who_uses_the_same_server_does_not_know_the_name(folder: Path) -> None:
    server = OpenAiServer(folder, "meddr")
    initial, _ = the_two_prompts()
    names: set[str] = set()

    for _ in range(2):
        async with a_generalist(server) as generalist:
            await generalist.answer(initial)
        names |= {x["uuid"] for x in pictures(server)}

    assert initial.image.pixels_sha256 not in names
    assert len(names) == 2


async def test_a_busy_server_is_not_sent_the_image_once_more() -> None:
    generalist, asked = a_server_that_then(httpx.Response(429, headers={"Retry-After": "60"}))
    await generalist.check()
    initial, arbitration = the_two_prompts()

    await generalist.answer(initial)
    with pytest.raises(Overloaded):
        await generalist.answer(arbitration)

    assert [is_whole(x) for x in asked] == [True, False]


async def test_a_prompt_that_is_too_long_is_so_with_any_image() -> None:
    generalist, asked = a_server_that_then(httpx.Response(400, text=TOO_LONG))
    await generalist.check()
    initial, arbitration = the_two_prompts()

    await generalist.answer(initial)
    with pytest.raises(PromptTooLong):
        await generalist.answer(arbitration)

    assert [is_whole(x) for x in asked] == [True, False]


async def test_a_stream_that_ends_for_a_lost_image_is_begun_with_the_image() -> None:
    """vLLM's front answers 200, and then hears from its engine that the image is gone."""
    told = an_event("meddr", content="Clear.") + "data: [DONE]\n\n"
    lost = an_event("meddr", role="assistant") + 'data: {"error": {"message": "gone"}}\n\n'
    generalist, asked = a_server_that_then(a_stream(lost), a_stream(told))
    await generalist.check()
    initial, arbitration = the_two_prompts()

    await generalist.answer(initial)
    spoken = [piece async for piece in generalist.stream(replace(arbitration, choices=()))]

    assert spoken == ["Clear."]
    assert [is_whole(x) for x in asked] == [True, False, True]


async def test_a_stream_that_breaks_off_within_the_text_is_not_begun_again() -> None:
    broken = an_event("meddr", content="Clear") + 'data: {"error": {"message": "gone"}}\n\n'
    generalist, asked = a_server_that_then(a_stream(broken))
    await generalist.check()
    initial, arbitration = the_two_prompts()

    await generalist.answer(initial)
    with pytest.raises(GeneralistUnavailable, match="broke off"):
        _ = [piece async for piece in generalist.stream(replace(arbitration, choices=()))]

    assert [is_whole(x) for x in asked] == [True, False]


async def test_a_server_that_keeps_nothing_is_hardly_asked_by_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As vLLM does with `--mm-processor-cache-gb 0`: each name in vain costs a request."""
    server = OpenAiServer(folder, "meddr")
    monkeypatch.setattr(server, "kept", Forgetful())
    question = replace(the_two_prompts()[0], choices=())

    async with a_generalist(server) as generalist:
        for _ in range(images.MOST_IN_VAIN + 5):
            await generalist.answer(question)
        in_vain = [is_whole(x) for x in pictures(server)].count(False)
        generalist._images._resumed = 0.0  # when the pause is over
        await generalist.answer(question)

    assert 0 < in_vain <= images.MOST_IN_VAIN
    assert [is_whole(x) for x in pictures(server)[-2:]] == [False, True]


async def test_a_server_that_is_away_is_not_waited_for_twice_at_the_start() -> None:
    asked: list[str] = []

    def away(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        raise httpx.ConnectError("refused")

    generalist = VllmGeneralist("http://g", "meddr", transport=httpx.MockTransport(away))
    await generalist.start()

    assert asked == ["GET"] * vllm.CHECK_ATTEMPTS


class Forgetful(dict[str, Any]):
    def __setitem__(self, name: str, image: Any) -> None:
        pass


@asynccontextmanager
async def a_generalist(server: OpenAiServer) -> AsyncIterator[VllmGeneralist]:
    transport = httpx.ASGITransport(server.app)
    generalist = VllmGeneralist("http://g", "meddr", transport=transport)
    await generalist.start()
    server.requests.clear()
    yield generalist
    await generalist.close()


def a_server_that_then(*later: httpx.Response) -> tuple[VllmGeneralist, list[dict[str, Any]]]:
    """It answers the first question, then so, the last reply stays; and what it was shown."""
    asked: list[dict[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"data": [{"id": "meddr", "owned_by": "vllm"}]})
        asked.append(picture(json.loads(request.content)))
        first = httpx.Response(200, json=a_listing(("normal", -0.0001)))
        return (first, *later)[min(len(asked) - 1, len(later))]

    transport = httpx.MockTransport(handler)
    return VllmGeneralist("http://g", "meddr", transport=transport), asked


def a_stream(told: str) -> httpx.Response:
    return httpx.Response(200, text=told)


def the_two_prompts() -> tuple[Prompt, Prompt]:
    initial = a_prompt("Which diagnosis?")
    return initial, replace(initial, text="Which diagnosis? Specialist models: normal.")


def pictures(server: OpenAiServer) -> list[dict[str, Any]]:
    return [picture(body) for body in server.requests]


def picture(body: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = body["messages"][0]["content"][0]
    return shown


def is_whole(shown: dict[str, Any]) -> bool:
    return shown["image_url"] is not None
