"""The client of an OpenAI-compatible server: what it sends, and what it makes of every failure."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import a_prompt
from openai_server import OpenAiServer
from tiny_generalist import a_checkpoint

from service.errors import GeneralistUnavailable, UnparsableAnswer
from service.generalist import vllm
from service.generalist.vllm import VllmGeneralist

Handler = Callable[[httpx.Request], httpx.Response]


def a_generalist(handler: Handler, **fields: Any) -> VllmGeneralist:
    transport = httpx.MockTransport(handler)
    return VllmGeneralist("http://generalist", "meddr", transport=transport, **fields)


def listing(*tokens: tuple[str, float]) -> httpx.Response:
    """A reply whose likeliest next tokens are these, with their log-probabilities."""
    listed = [{"token": token, "logprob": logprob} for token, logprob in tokens]
    first = {"message": {"content": tokens[0][0]}}
    return httpx.Response(
        200, json={"choices": [{**first, "logprobs": {"content": [{"top_logprobs": listed}]}}]}
    )


def replies(*queue: httpx.Response | Exception) -> Handler:
    """Each request takes the next reply; the last one stays."""
    left = list(queue)

    def handler(_: httpx.Request) -> httpx.Response:
        reply = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    return handler


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "RETRY_PAUSES_SECONDS", (0.0, 0.0))


async def test_sends_the_image_before_the_text_and_the_labels_as_choices(tmp_path: Path) -> None:
    a_checkpoint(tmp_path)
    server = OpenAiServer(tmp_path, "meddr")
    transport = httpx.ASGITransport(server.app)

    await VllmGeneralist("http://g/v1/", "meddr", transport=transport).answer(a_prompt("Hm <img>?"))

    request = server.requests[-1]
    picture, text = request["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert text == {"type": "text", "text": "Hm < img>?"}
    assert request["structured_outputs"] == {"choice": ["normal", "pneumonia"]}
    assert request["temperature"] == 0


async def test_the_key_travels_as_a_bearer_token() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        return listing(("normal", -0.1))

    await a_generalist(handler, api_key="secret").answer(a_prompt())


async def test_continues_the_answer_where_labels_share_a_beginning() -> None:
    bodies: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return listing(("no", 0.0)) if len(bodies) == 1 else listing(("dule", -0.1), ("rmal", -3.0))

    completion = await a_generalist(handler).answer(a_prompt(choices=("normal", "nodule")))

    assert completion.text == "nodule"
    assert bodies[-1]["messages"][1] == {"role": "assistant", "content": "no"}
    assert bodies[-1]["continue_final_message"] is True
    assert bodies[-1]["structured_outputs"] == {"choice": ["rmal", "dule"]}


async def test_a_grammar_that_forgets_a_choice_is_not_asked() -> None:
    handler = replies(
        listing(("nodule", -0.2), ("normal", -1.71), ("The", -9.0)), listing(("normal", 0.0))
    )

    completion = await a_generalist(handler).answer(a_prompt(choices=("normal", "nodule")))

    assert completion.text == "nodule"
    assert completion.probabilities == pytest.approx((0.18, 0.82), abs=0.01)


async def test_understands_a_server_that_does_not_constrain() -> None:
    handler = replies(listing(("The", -0.5), ("normal", -2.0), ("pneu", -3.0)))

    completion = await a_generalist(handler).answer(a_prompt())

    assert completion.text == "normal"
    assert sum(completion.probabilities) == pytest.approx(1.0)


async def test_an_answer_outside_the_choices_is_no_answer() -> None:
    with pytest.raises(UnparsableAnswer, match="The"):
        await a_generalist(replies(listing(("The", -0.5)))).answer(a_prompt())


@pytest.mark.parametrize(
    "passing", [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), httpx.Response(503)]
)
async def test_a_server_that_is_just_starting_is_asked_again(
    passing: httpx.Response | Exception,
) -> None:
    handler = replies(passing, passing, listing(("normal", -0.1)))

    assert (await a_generalist(handler).answer(a_prompt())).text == "normal"


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (httpx.ConnectError("refused"), "no connection to the generalist's server: refused"),
        (httpx.ReadTimeout("slow"), "no answer within 60 s"),
        (httpx.RemoteProtocolError("cut"), "failed: cut"),
        (httpx.Response(503), "refused with 503"),
        (httpx.Response(500, text="oops"), "refused with 500"),
        (httpx.Response(401, json={"error": {"message": "bad key"}}), "401 Unauthorized"),
        (httpx.Response(404, json={"error": {"message": "no model 'x'"}}), "404 Not Found"),
        (httpx.Response(200, text="<html>"), "not answer in JSON"),
        (httpx.Response(200, json={"choices": []}), "out of protocol"),
        (httpx.Response(200, json=[1]), "out of protocol"),
        (httpx.Response(200, json={"choices": [{"logprobs": None}]}), "out of protocol"),
        (listing(("normal", "much")), "out of protocol"),  # type: ignore[arg-type]
    ],
)
async def test_every_failure_is_unavailability_in_one_sentence(
    reply: httpx.Response | Exception, sentence: str
) -> None:
    with pytest.raises(GeneralistUnavailable, match=sentence):
        await a_generalist(replies(reply)).answer(a_prompt())


async def test_a_timeout_is_not_asked_again() -> None:
    handler = replies(httpx.ReadTimeout("slow"), listing(("normal", -0.1)))

    with pytest.raises(GeneralistUnavailable):
        await a_generalist(handler).answer(a_prompt())


async def test_a_server_that_is_away_does_not_hinder_the_start() -> None:
    generalist = a_generalist(replies(httpx.ConnectError("refused")))

    await generalist.start()

    with pytest.raises(GeneralistUnavailable, match="refused"):
        await generalist.check()


async def test_check_names_the_models_that_are_served() -> None:
    served = httpx.Response(200, json={"data": [{"id": "medgemma"}]})

    with pytest.raises(GeneralistUnavailable, match="no model 'meddr', only medgemma"):
        await a_generalist(replies(served)).check()
