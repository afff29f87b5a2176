"""The generalist behind an OpenAI-compatible API: vLLM with MedDr, or any vision–language model."""

import asyncio
import base64
import io
import math
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import httpx
import numpy as np
from PIL import Image as Pictures

from service.domain import Completion, GeneralistIdentity, Image, Prompt
from service.errors import GeneralistUnavailable
from service.generalist import choice
from service.generalist.chat import plain

SAMPLING = "temperature 0"
CONNECT_SECONDS = 5.0
RETRY_PAUSES_SECONDS = (0.2, 1.0)
TOP_LOGPROBS = 20  # the most that vLLM gives by default
NEGLIGIBLE = 1e-3  # share of the probability that an answer may leave unlisted


class VllmGeneralist:
    """Answers from a server; asking is free of side effects, so what never arrived is asked again.

    `base_url` with or without its `/v1`. Choices become vLLM's `structured_outputs`, whose
    log-probabilities are those after masking (measured with vLLM 0.32); a server that ignores
    the field is still understood as long as its likeliest tokens begin a choice.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 60,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._model = model
        self._timeout_seconds = timeout_seconds
        self._client = httpx.AsyncClient(
            base_url=base_url.rstrip("/").removesuffix("/v1") + "/v1/",
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds)),
            transport=transport,
            trust_env=False,
        )

    @property
    def identity(self) -> GeneralistIdentity:
        """Without the weights' sha256, which the API does not tell."""
        return GeneralistIdentity("vllm", self._model, "", SAMPLING)

    async def start(self) -> None:
        """Warm up: vLLM compiles its first grammar for seconds.

        A server that is away does not hinder the start: `check` and every answer say so.
        """
        with suppress(GeneralistUnavailable):
            await self.answer(Prompt(_blank(), "Ready?", ("yes", "no")))

    async def close(self) -> None:
        await self._client.aclose()

    async def check(self) -> None:
        """Returns when the server is there and serves the model."""
        served = _models(await self._send("GET", "models"))
        if self._model not in served:
            raise GeneralistUnavailable(
                f"the generalist's server has no model '{self._model}', only {', '.join(served)}"
            )

    async def answer(self, prompt: Prompt) -> Completion:
        """One of the choices with a probability each, or free text.

        Raises GeneralistUnavailable when the server is away, too slow, refuses or talks nonsense,
        and UnparsableAnswer when none of its likeliest tokens begins a choice.
        """
        message = await asyncio.to_thread(_message, prompt)
        if prompt.choices:
            return await self._choose(message, prompt)
        body = {"max_tokens": prompt.max_tokens}
        return Completion(_text(await self._complete([message], body)).strip())

    async def _choose(self, message: dict[str, Any], prompt: Prompt) -> Completion:
        async def step(emitted: str) -> choice.Distribution:
            if free := await self._unconstrained(message, prompt, emitted):
                return free
            messages, body = _step(message, prompt, emitted)
            listed = _distribution(await self._complete(messages, body))
            if listed:
                return listed
            # Nothing but tokens that end within a character: the likeliest ending decides.
            whole = await self._complete(messages, body | {"max_tokens": prompt.max_tokens})
            return {_text(whole): 1.0}

        probabilities = await choice.probabilities(prompt.choices, step)
        return Completion(choice.best(prompt.choices, probabilities), probabilities)

    async def _unconstrained(
        self, message: dict[str, Any], prompt: Prompt, emitted: str
    ) -> choice.Distribution:
        """The tokens that continue a choice, where those not listed weigh next to nothing.

        Asked first, because a server's grammar can be wrong: xgrammar 0.2.8 was seen to forbid a
        token that is a choice, which then silently had the probability 0. Empty where the list
        does not tell: the ending is possible, or much of the probability lies elsewhere.
        """
        if emitted in prompt.choices:
            return {}
        messages, body = _step(message, prompt, emitted)
        del body["structured_outputs"]
        first = await self._complete(messages, body)
        if not first.get("logprobs"):
            return {}
        listed = _distribution(first)
        rest = choice.continuations(prompt.choices, emitted)
        fitting = {t: p for t, p in listed.items() if any(c.startswith(t) for c in rest)}
        unlisted = max(0.0, 1 - sum(listed.values()))
        return fitting if unlisted <= NEGLIGIBLE * sum(fitting.values()) else {}

    async def _complete(
        self, messages: list[dict[str, Any]], body: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        request = {"model": self._model, "messages": messages, "temperature": 0, **body}
        return _first_choice(await self._send("POST", "chat/completions", request))

    async def _send(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of the reply; a server not reached or not ready is asked again, a few times."""
        for pause in RETRY_PAUSES_SECONDS:
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):
                response = await self._once(method, path, body)
                if response.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                    return _document(response)
            await asyncio.sleep(pause)
        try:
            return _document(await self._once(method, path, body))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise GeneralistUnavailable(
                f"no connection to the generalist's server: {error}"
            ) from error

    async def _once(self, method: str, path: str, body: Any) -> httpx.Response:
        try:
            return await self._client.request(method, path, json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise
        except httpx.TimeoutException as error:
            raise GeneralistUnavailable(
                f"the generalist's server gave no answer within {self._timeout_seconds:g} s"
            ) from error
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: the client is closed
            raise GeneralistUnavailable(f"the generalist's server failed: {error}") from error


def _message(prompt: Prompt) -> dict[str, Any]:
    """The image before the text, as MedDr was trained."""
    image = {"type": "image_url", "image_url": {"url": _data_url(prompt.image)}}
    return {"role": "user", "content": [image, {"type": "text", "text": plain(prompt.text)}]}


def _data_url(image: Image) -> str:
    """PNG keeps every pixel; the least compression, as it travels a short way."""
    octets = io.BytesIO()
    Pictures.fromarray(image.pixels).save(octets, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(octets.getvalue()).decode()


def _step(
    message: dict[str, Any], prompt: Prompt, emitted: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The messages and the rest of the request for the one token that follows `emitted`."""
    body: dict[str, Any] = {
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": TOP_LOGPROBS,
        "structured_outputs": {"choice": choice.continuations(prompt.choices, emitted)},
    }
    if not emitted:
        return [message], body
    begun = {"role": "assistant", "content": plain(emitted)}
    continued = {"continue_final_message": True, "add_generation_prompt": False}
    return [message, begun], body | continued


def _document(response: httpx.Response) -> Any:
    """The answer; what a server says of a refusal may quote keys or prompts, so only its code."""
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        raise GeneralistUnavailable(
            f"the generalist's server refused with {response.status_code} {response.reason_phrase}"
        )
    try:
        return response.json()
    except ValueError as error:
        raise GeneralistUnavailable("the generalist's server did not answer in JSON") from error


def _models(document: Any) -> list[str]:
    try:
        return [str(entry["id"]) for entry in document["data"]]
    except (KeyError, TypeError) as error:
        raise _nonsense(error) from error


def _first_choice(document: Any) -> Mapping[str, Any]:
    try:
        first: Mapping[str, Any] = document["choices"][0]
    except (KeyError, IndexError, TypeError) as error:
        raise _nonsense(error) from error
    return first


def _text(first: Mapping[str, Any]) -> str:
    try:
        return str(first["message"]["content"] or "")
    except (KeyError, TypeError) as error:
        raise _nonsense(error) from error


def _distribution(first: Mapping[str, Any]) -> choice.Distribution:
    """Probabilities by token; one that ends within a character has no text and is left out."""
    try:
        listed = first["logprobs"]["content"][0]["top_logprobs"]
        found = [(str(entry["token"]), math.exp(float(entry["logprob"]))) for entry in listed]
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise _nonsense(error) from error
    distribution: dict[str, float] = {}
    for token, probability in found:
        if token and probability > 0.0 and math.isfinite(probability):
            distribution[token] = distribution.get(token, 0.0) + probability
    return distribution


def _nonsense(error: Exception) -> GeneralistUnavailable:
    return GeneralistUnavailable(f"the generalist's server answered out of protocol: {error!r}")


def _blank() -> Image:
    return Image(np.zeros((32, 32, 3), np.uint8), sha256="", media_type="image/png")
