"""Stories of a service whose panel is elsewhere, and not always well. With a real one: e2e."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import numpy as np
import pytest
from builders import a_task
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from waiting import until

from service.remote_specialists import MAX_ANSWER_BYTES, RemoteSpecialists
from specialists import wire
from specialists.catalogue import PANEL, Scale
from specialists.description import LoadedPanel, LoadedSpecialist
from specialists.errors import (
    PoolOverloaded,
    SpecialistUnavailable,
    UnknownBackbone,
    UnknownLabel,
)
from specialists.prediction import Consultation, Embedding, SpecialistPrediction
from specialists.segmentation.models import MODELS
from specialists.task import Label

PIXELS = np.zeros((20, 30, 3), np.uint8)
TASK = a_task()


def a_consultation(task: str = TASK.name) -> Consultation:
    probabilities = (0.25, 0.75)
    return Consultation(
        task,
        (SpecialistPrediction("vgg16", probabilities, "f" * 64, 0.9),),
        (Embedding("vgg16", "f" * 64, np.array([0.6, 0.8], np.float32)),),
    )


@dataclass
class Elsewhere:
    """The panel's server: answers as scripted, the last for ever."""

    answers: Sequence[tuple[int, bytes]]
    asked: list[bytes] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(await Request(scope, receive).body())
        status, body = self.answers[min(len(self.asked), len(self.answers)) - 1]
        await Response(body, status)(scope, receive, send)


@asynccontextmanager
async def asking(server: Elsewhere) -> AsyncIterator[RemoteSpecialists]:
    transport = httpx.ASGITransport(server)
    remote = RemoteSpecialists("http://panel", refresh_seconds=0.02, transport=transport)
    await remote.start()
    yield remote
    await remote.close()


async def test_an_image_and_its_task_arrive_as_they_are() -> None:
    server = Elsewhere([(200, wire.consultation(a_consultation()))])
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)

    async with asking(server) as remote:
        said = await remote.consult(pixels, TASK)

    task, image, _ = wire.read_question(server.asked[0])
    assert task == TASK
    np.testing.assert_array_equal(image, pixels)
    assert said.predictions == a_consultation().predictions
    np.testing.assert_array_equal(said.embeddings[0].vector, np.array([0.6, 0.8], np.float32))


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_what_may_pass_is_asked_again(status: int) -> None:
    server = Elsewhere([(status, b""), (200, wire.consultation(a_consultation()))])

    async with asking(server) as remote:
        said = await remote.consult(PIXELS, TASK)

    assert len(said.predictions) == 1
    assert len(server.asked) == 2


async def test_a_panel_that_stays_busy_is_overloaded() -> None:
    server = Elsewhere([(503, b"")])

    async with asking(server) as remote:
        with pytest.raises(PoolOverloaded):
            await remote.consult(PIXELS, TASK)

    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "answer",
    [
        (500, b"Traceback"),
        (418, b""),
        (200, b""),
        (200, b"\x80\x04pickle"),
        (200, wire.consultation(a_consultation("another-task"))),
        (200, bytes(MAX_ANSWER_BYTES + 1)),
    ],
    ids=["broken", "refusing", "silent", "pickled", "another task's", "endless"],
)
async def test_a_panel_that_gives_no_answer_leaves_everyone_missing(
    answer: tuple[int, bytes],
) -> None:
    async with asking(Elsewhere([answer])) as remote:
        said = await remote.consult(PIXELS, TASK)

    assert said.predictions == ()
    assert [one.specialist for one in said.missing] == list(PANEL)
    assert all("Traceback" not in one.reason for one in said.missing)


async def test_whom_the_server_does_not_know_of_is_missing() -> None:
    async with asking(Elsewhere([(200, wire.consultation(a_consultation()))])) as remote:
        said = await remote.consult(PIXELS, TASK)

    assert [one.specialist for one in said.predictions] == ["vgg16"]
    assert [one.specialist for one in said.missing] == list(PANEL[1:])


async def test_who_should_outline_and_is_not_named_is_missing_too() -> None:
    task = a_task(segment=Label("opacity"))
    nobody = wire.panel(LoadedPanel(task.name, (), ()))
    server = Elsewhere([(200, wire.consultation(a_consultation())), (200, nobody)])

    async with asking(server) as remote:
        said, panel = await remote.consult(PIXELS, task), await remote.load(task)

    assert [one.specialist for one in said.missing] == [*PANEL[1:], *MODELS]
    assert [one.specialist for one in panel.missing] == [*PANEL, *MODELS]


async def drip() -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(0.02)
        yield b"."


async def garbled() -> AsyncIterator[bytes]:
    yield b"not gzip"


@pytest.mark.parametrize(("headers", "body"), [({}, drip), ({"content-encoding": "gzip"}, garbled)])
async def test_a_panel_that_trickles_or_garbles_leaves_everyone_missing_too(
    headers: dict[str, str], body: Callable[[], AsyncIterator[bytes]]
) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, content=body()))
    remote = RemoteSpecialists("http://panel", timeout_seconds=0.1, transport=transport)

    async with asyncio.timeout(10):
        said = await remote.consult(PIXELS, TASK)
        panel = await remote.load(TASK)
    await remote.close()

    assert len(said.missing) == len(panel.missing) == len(PANEL)


async def test_nobody_there_leaves_everyone_missing_too() -> None:
    remote = RemoteSpecialists("http://127.0.0.1:1")

    said = await remote.consult(PIXELS, TASK)
    panel = await remote.load(TASK)
    await remote.close()

    assert len(said.missing) == len(panel.missing) == len(PANEL)
    assert said.missing[0].reason == "the panel's server does not answer"


async def test_who_can_answer_is_noticed_once_the_panel_is_back() -> None:
    back = LoadedPanel(TASK.name, (LoadedSpecialist("vgg16", Scale.NANO, "f" * 64, {}),), ())
    server = Elsewhere([(404, b"starting"), (200, wire.panel(back))])

    async with asking(server) as remote:
        assert (await remote.load(TASK)).specialists == ()
        await until(lambda: [one.specialists for one in remote.loaded()] == [back.specialists])


async def test_a_heat_map_that_cannot_be_made_is_told_with_its_reason() -> None:
    async with asking(Elsewhere([(404, b"no machine serves specialist 'vgg16'")])) as remote:
        with pytest.raises(SpecialistUnavailable, match="no machine serves"):
            await remote.explain(PIXELS, TASK, "vgg16")


async def test_a_specialist_or_label_that_there_is_not_is_not_even_asked_for() -> None:
    async with asking(server := Elsewhere([(500, b"")])) as remote:
        with pytest.raises(UnknownBackbone, match="no specialist 'lenet'"):
            await remote.explain(PIXELS, TASK, "lenet")
        with pytest.raises(UnknownLabel, match="no label 'gout'"):
            await remote.explain(PIXELS, TASK, "vgg16", "gout")

    assert server.asked == []
