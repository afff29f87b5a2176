"""Is an OpenAI-compatible server fit to be the generalist? Each thing needed, tried out.

What is asked has the form in which `vllm` asks, so what passes here works there. A server that
ignores a field without a word is found out by what it answers, not by its status.
"""

import asyncio
import re
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx
import numpy as np

from service.domain import Image, Prompt
from service.errors import GeneralistUnavailable, Misconfigured
from service.generalist import protocol

TIMEOUT_SECONDS = 60.0
# With the image longer than a block of a server's prefix cache, and no hint at the choices.
QUESTION = "The picture shows coloured blotches, made by chance and without meaning. " * 6
EVIDENCE = "Somebody else has described them already. "
CHOICES = ("umbrella", "giraffe")
BEGUN = "umbrella"
TIMED = 3
SIDE = 224  # pixels

# The count of prompt tokens not computed again: of vLLM, of SGLang.
COUNTERS = ("vllm:prefix_cache_hits_total", "sglang:cached_tokens_total")
_METRIC = re.compile(r"^([\w:]+)(?:\{[^}]*\})?\s+([-+.\deE]+)")


class State(StrEnum):
    """What was found; UNKNOWN where the server does not let it be seen."""

    GOOD = "good"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing tried: what was seen, and what it means for us where it is not good."""

    what: str
    state: State
    seen: str
    meaning: str = ""
    needed: bool = True


@dataclass(frozen=True, slots=True)
class Timing:
    """Median seconds of a constrained answer: on a new image, and of the same with evidence."""

    cold_seconds: float
    warm_seconds: float


@dataclass(frozen=True, slots=True)
class Fitness:
    """What a server can do; `models` are those it serves, `model` the one that was tried."""

    url: str
    model: str | None
    models: tuple[str, ...]
    findings: tuple[Finding, ...]
    timing: Timing | None

    @property
    def is_fit(self) -> bool:
        """Nothing that is needed is missing."""
        return all(one.state is not State.MISSING or not one.needed for one in self.findings)


async def probe(
    url: str,
    model: str | None = None,
    *,
    api_key: str | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Fitness:
    """Tries the server at `url` (with or without its `/v1`), in some twenty requests.

    `model` names one of several. No request takes longer than `timeout_seconds`, and what is
    wrong with the server is a finding, never an exception. Raises Misconfigured for no address.
    """
    root = _root(url)
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(
        base_url=root,
        headers=headers,
        timeout=timeout_seconds,
        transport=transport,
        trust_env=False,
    ) as client:
        return await _Probe(client, root, model, timeout_seconds).fitness()


def _root(url: str) -> str:
    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Misconfigured(f"'{url}' is no address of a server: {error}") from error
    return url.rstrip("/").removesuffix("/v1")


Seen = tuple[State, str]


class _Probe:
    def __init__(
        self, client: httpx.AsyncClient, url: str, model: str | None, timeout_seconds: float
    ) -> None:
        self._client = client
        self._url = url
        self._model = model
        self._timeout_seconds = timeout_seconds
        self._models: tuple[str, ...] = ()
        self._keeps_images = False
        self._findings: list[Finding] = []
        self._timing: Timing | None = None

    async def fitness(self) -> Fitness:
        if await self._has("server", self._server, "nothing else could be tried"):
            await self._look_closer()
        findings = tuple(self._findings)
        return Fitness(self._url, self._model, self._models, findings, self._timing)

    async def _look_closer(self) -> None:
        """The order matters: the first requests warm the server up for those that are timed."""
        if not await self._has("images", self._images, "it does not see the case"):
            return
        without = "no label gets a probability, and no case is diagnosed"
        if not await self._has("log-probabilities", self._log_probabilities, without):
            return
        without = "an answer may be none of the labels, and that case fails"
        await self._has("structured outputs", self._structured_outputs, without)
        without = "labels that begin alike, and several labels at once, are not told apart"
        await self._has("continued answers", self._continuation, without)
        without = "arbitration computes again what the initial diagnosis had computed: slower"
        await self._has("prefix cache", self._prefix_cache, without, needed=False)
        without = "a case's image is sent with each of its requests: slower where it is large"
        await self._has("images by name", self._by_name, without, needed=False)
        if self._keeps_images:
            without = "a case whose image it has forgotten is answered without the image"
            await self._has("forgotten images", self._forgotten, without)
        await self._has("time", self._time, "it may be too slow", needed=False)

    async def _has(
        self, what: str, attempt: Callable[[], Awaitable[Seen]], without: str, needed: bool = True
    ) -> bool:
        """Not missing; a failure of the attempt is a finding too."""
        try:
            state, seen = await attempt()
        except GeneralistUnavailable as error:
            state, seen = State.MISSING, str(error)
        meanings = {State.GOOD: "", State.MISSING: without, State.UNKNOWN: f"if not, {without}"}
        self._findings.append(Finding(what, state, seen, meanings[state], needed))
        return state is not State.MISSING

    async def _server(self) -> Seen:
        reply = await self._ask("GET", "/v1/models")
        self._models = tuple(protocol.models(reply))
        if not self._models:
            return State.MISSING, "it serves no model"
        self._model = self._model or self._models[0]
        if self._model not in self._models:
            return State.MISSING, f"no model '{self._model}', only {', '.join(self._models)}"
        self._keeps_images = protocol.keeps_images(reply, self._model)
        contexts = (e.get("max_model_len") for e in reply["data"] if e["id"] == self._model)
        context = next(contexts, None)
        return State.GOOD, f"serves '{self._model}'" + (f", context {context}" if context else "")

    async def _images(self) -> Seen:
        words = {"role": "user", "content": QUESTION}
        with_image = _counted(await self._complete(self._body(_blotches())))
        without = _counted(await self._complete({"messages": [words], "max_tokens": 1}))
        if with_image is None or without is None:
            return State.UNKNOWN, "accepted; the server does not count tokens"
        if with_image <= without:
            return State.MISSING, "accepted, but it adds nothing to the prompt"
        return State.GOOD, f"one image takes {with_image - without} tokens"

    async def _log_probabilities(self) -> Seen:
        listed = protocol.distribution(self._first(await self._complete(self._asked(_blotches()))))
        state = State.GOOD if listed else State.MISSING
        return state, f"{len(listed)} of the likeliest tokens listed"

    async def _structured_outputs(self) -> Seen:
        body = self._body(_blotches()) | _constraint() | {"max_tokens": 16}
        answer = protocol.text(self._first(await self._complete(body))).strip()
        if answer in CHOICES:
            return State.GOOD, "the answer is one of the choices"
        return State.MISSING, "the answer is none of the choices: the constraint is ignored"

    async def _continuation(self) -> Seen:
        """A server that ignores the field ends the beginning and opens another turn after it."""
        begun = self._asked(_blotches(), emitted=BEGUN)
        opened = {"continue_final_message": False, "add_generation_prompt": True}
        continued = await self._complete(begun)
        try:
            new = await self._complete(begun | opened)
        except GeneralistUnavailable:
            return State.GOOD, "it goes on where the answer stopped, and opens no turn there"
        if self._is_same_prompt(continued, new):
            return State.MISSING, "it opens a new turn instead: the field is ignored"
        return State.GOOD, "it goes on where the answer stopped"

    def _is_same_prompt(self, one: Any, other: Any) -> bool:
        """By the count of tokens, or else by what is likely to come next."""
        counts = _counted(one), _counted(other)
        if None not in counts:
            return counts[0] == counts[1]
        listed = [protocol.distribution(self._first(reply)) for reply in (one, other)]
        return listed[0] == listed[1]

    async def _prefix_cache(self) -> Seen:
        image = _blotches()
        await self._complete(self._asked(image))
        before = await self._counter()
        reply = await self._complete(self._asked(image, EVIDENCE))
        reused = _cached(reply)
        if reused is None and before is not None:
            after = await self._counter()
            reused = None if after is None else round(after - before)
        if reused is None:
            return State.UNKNOWN, "the server tells neither in its replies nor under /metrics"
        if not reused:
            return State.MISSING, "no token of a repeated beginning was reused"
        return State.GOOD, f"{reused} of {_counted(reply) or '?'} tokens reused"

    async def _by_name(self) -> Seen:
        if not self._keeps_images:
            return State.MISSING, "it is not vLLM by its list of models: it is told no names"
        image, name = _blotches(), secrets.token_hex(16)
        await self._complete(self._shown(protocol.image_part(protocol.data_url(image), name)))
        await self._complete(self._shown(protocol.image_part(None, name)))
        return State.GOOD, "one that was sent is known by its name"

    async def _forgotten(self) -> Seen:
        unknown = protocol.image_part(None, secrets.token_hex(16))
        try:
            await self._complete(self._shown(unknown))
        except GeneralistUnavailable as error:
            return State.GOOD, f"asked by a name that nobody gave, {error}"
        return State.MISSING, "it answers about an image that it was never sent"

    async def _time(self) -> Seen:
        cold, warm = [], []
        for _ in range(TIMED):
            image = _blotches()
            cold.append(await self._seconds(self._asked(image) | _constraint()))
            warm.append(await self._seconds(self._asked(image, EVIDENCE) | _constraint()))
        self._timing = Timing(statistics.median(cold), statistics.median(warm))
        seconds = f"{self._timing.cold_seconds:.3f} s", f"{self._timing.warm_seconds:.3f} s"
        return State.GOOD, f"{seconds[0]} for a new image, {seconds[1]} for the same with evidence"

    async def _seconds(self, body: protocol.Body) -> float:
        started = time.perf_counter()
        await self._complete(body)
        return time.perf_counter() - started

    def _body(self, image: Image, evidence: str = "") -> protocol.Body:
        return {"messages": [protocol.message(Prompt(image, QUESTION + evidence))], "max_tokens": 1}

    def _shown(self, image: protocol.Body) -> protocol.Body:
        return protocol.next_token(protocol.message(Prompt(_blotches(), QUESTION), image), "")

    def _asked(self, image: Image, evidence: str = "", emitted: str = "") -> protocol.Body:
        """As the client asks for the next token of an answer."""
        return protocol.next_token(protocol.message(Prompt(image, QUESTION + evidence)), emitted)

    def _first(self, completion: Any) -> Mapping[str, Any]:
        return protocol.first_choice(completion, self._model or "")

    async def _complete(self, body: protocol.Body) -> Any:
        asked = {"model": self._model, "temperature": 0, **body}
        completion = await self._ask("POST", "/v1/chat/completions", asked)
        self._first(completion)
        return completion

    async def _counter(self) -> float | None:
        """How many tokens the server has reused so far; None where it does not tell."""
        try:
            octets = await self._fetch("GET", "/metrics")
        except GeneralistUnavailable:
            return None
        found = map(_METRIC.match, octets.decode(errors="replace").splitlines())
        values = [float(line[2]) for line in found if line and line[1] in COUNTERS]
        return sum(values) if values else None

    async def _ask(self, method: str, path: str, body: protocol.Body | None = None) -> Any:
        return protocol.document(await self._fetch(method, path, body))

    async def _fetch(self, method: str, path: str, body: protocol.Body | None = None) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._client.request(method, path, json=body)
        except (TimeoutError, httpx.TimeoutException) as error:
            seconds = f"{self._timeout_seconds:g} s"
            raise GeneralistUnavailable(f"no answer within {seconds}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise GeneralistUnavailable(f"no connection to {self._url}: {error}") from error
        if not response.is_success:
            raise protocol.refusal(response.status_code, response.content, self._model or "")
        return response.content


def _constraint() -> protocol.Body:
    return {"structured_outputs": {"choice": list(CHOICES)}}


def _counted(completion: Any) -> int | None:
    """How many tokens the prompt had, when the server says so."""
    usage = completion.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _cached(completion: Any) -> int | None:
    """How many of them the server had kept, when it says so."""
    usage = completion.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    count = details.get("cached_tokens") if isinstance(details, dict) else None
    return count if isinstance(count, int) else None


def _blotches() -> Image:
    """An image that no server has seen before."""
    pixels = np.random.default_rng().integers(0, 256, (8, 8, 3), np.uint8)
    return Image(np.kron(pixels, np.ones((SIDE // 8, SIDE // 8, 1), np.uint8)), "", "image/png")
