"""The generalist behind an OpenAI-compatible API: vLLM with MedDr, or any vision–language model."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from http import HTTPStatus
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import httpx
import numpy as np

from service import spans
from service.domain import Completion, GeneralistIdentity, Image, Prompt
from service.errors import GeneralistUnavailable, GscoError, Overloaded
from service.generalist import choice, protocol
from service.generalist.chat import plain

SAMPLING = "temperature 0"
CONNECT_SECONDS = 5.0
RETRY_PAUSES_SECONDS = (0.2, 1.0)
MOST_ATTEMPTS = 1 + len(RETRY_PAUSES_SECONDS)
CHECK_ATTEMPTS = 2  # who asks whether the server is there asks again soon
LONGEST_PAUSE_SECONDS = 5.0  # a server that asks for more patience is answered for at once
NEGLIGIBLE = 1e-3  # share of the probability that an answer may leave unlisted
COMPLETIONS = "chat/completions"

T = TypeVar("T")


class VllmGeneralist:
    """Answers from a server; asking is free of side effects, so what may pass is asked again.

    Three attempts: no connection, 503 (starting), 429 (busy; Overloaded in the end). Two: 500,
    502, a connection that breaks. One: everything else, a timeout first of all. `Retry-After` is
    heeded up to LONGEST_PAUSE_SECONDS; with a longer one there is no further attempt.

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
        self._image_urls: WeakKeyDictionary[Image, str] = WeakKeyDictionary()
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

        A server that is away or unfit does not hinder the start: `check` and answers say so.
        """
        with suppress(GscoError):
            await self.answer(Prompt(_blank(), "Ready?", ("yes", "no")))

    async def close(self) -> None:
        await self._client.aclose()

    async def check(self) -> None:
        """Returns when the server is there and serves the model."""
        served = protocol.models(await self._ask("GET", "models", attempts=CHECK_ATTEMPTS))
        if self._model not in served:
            raise GeneralistUnavailable(
                f"the generalist's server has no model '{self._model}', only {', '.join(served)}"
            )

    async def answer(self, prompt: Prompt) -> Completion:
        """The permitted answer that is most probable, with a probability per choice; or free text.

        Raises GeneralistUnavailable when the server is away, too slow, refuses or talks nonsense,
        PromptTooLong for more tokens than its context holds, Overloaded when it is busy, and
        UnparsableAnswer when none of its likeliest tokens begins a choice.
        """
        user = await asyncio.to_thread(self._turn, prompt)
        if prompt.choices:
            return await self._choose(user, prompt)
        body = {"messages": [user], "max_tokens": prompt.max_tokens}
        return Completion(protocol.text(await self._complete(body)).strip())

    async def stream(self, prompt: Prompt) -> AsyncGenerator[str, None]:
        """Free text in pieces, as they come; together they are what `answer` gives.

        Raises as `answer` does, and GeneralistUnavailable for a text that ends half-way: what was
        given until then is no answer. Only the beginning is asked for again.
        """
        user = await asyncio.to_thread(self._turn, prompt)
        body = {"messages": [user], "max_tokens": prompt.max_tokens, "stream": True}
        first_came = spans.until(spans.FIRST_TOKEN)
        opened = await self._patiently(lambda: self._open("POST", COMPLETIONS, self._asking(body)))
        async with aclosing(opened) as response:
            lines = response.aiter_lines()
            for _ in range(4 * prompt.max_tokens + 64):  # a line per token and one between them
                carried = protocol.event(await self._next(lines))
                if carried == protocol.DONE:
                    return
                if carried and (piece := protocol.piece(carried, self._model)):
                    first_came()
                    yield piece
        raise GeneralistUnavailable("the generalist's server does not come to an end")

    def _turn(self, prompt: Prompt) -> protocol.Body:
        """The user's turn; an image is encoded once for the initial prompt and the arbitration."""
        url = self._image_urls.get(prompt.image) or protocol.data_url(prompt.image)
        self._image_urls[prompt.image] = url
        return protocol.message(prompt, url)

    async def _choose(self, user: protocol.Body, prompt: Prompt) -> Completion:
        answers = choice.permitted(prompt)

        async def step(emitted: str) -> choice.Distribution:
            free = await self._unconstrained(user, answers, emitted)
            return free or await self._constrained(user, answers, emitted, prompt.max_tokens)

        return choice.completion(prompt, await choice.weigh(answers, step))

    async def _unconstrained(
        self, user: protocol.Body, answers: choice.Answers, emitted: str
    ) -> choice.Distribution:
        """The tokens that continue an answer, where those not listed weigh next to nothing.

        Asked first, because a server's grammar can be wrong: xgrammar 0.2.8 was seen to forbid a
        token that is a choice, which then silently had the probability 0. Empty where the list
        does not tell: much of the probability lies elsewhere, or where an answer may end, on
        tokens that neither continue one nor are seen to end it.
        """
        first = await self._complete(protocol.next_token(user, emitted))
        listed = protocol.distribution(first)
        fitting = {t: p for t, p in listed.items() if answers.permits(emitted + t)}
        may_end = answers.whole(emitted) is not None
        if may_end:
            fitting[choice.END] = sum(p for token, p in listed.items() if _is_control(token))
        known = fitting if may_end else listed
        unknown = max(0.0, 1 - sum(known.values()))
        return fitting if unknown <= NEGLIGIBLE * sum(fitting.values()) else {}

    async def _constrained(
        self, user: protocol.Body, answers: choice.Answers, emitted: str, max_tokens: int
    ) -> choice.Distribution:
        body = protocol.next_token(user, emitted)
        body["structured_outputs"] = {"choice": answers.offered(emitted)}
        listed = protocol.distribution(await self._complete(body))
        if listed:
            return listed
        # Nothing but tokens that end within a character: the likeliest continuation decides.
        whole = await self._complete(body | {"max_tokens": max_tokens})
        return {protocol.text(whole): 1.0}

    async def _complete(self, body: protocol.Body) -> Mapping[str, Any]:
        completion = await self._ask("POST", COMPLETIONS, self._asking(body))
        return protocol.first_choice(completion, self._model)

    def _asking(self, body: protocol.Body) -> protocol.Body:
        return {"model": self._model, "temperature": 0, **body}

    async def _ask(
        self,
        method: str,
        path: str,
        body: protocol.Body | None = None,
        attempts: int = MOST_ATTEMPTS,
    ) -> Any:
        """The JSON of the reply."""

        async def once() -> bytes:
            async with aclosing(await self._open(method, path, body)) as response:
                with self._in_our_words():
                    return await response.aread()

        return protocol.document(await self._patiently(once, attempts))

    async def _open(self, method: str, path: str, body: protocol.Body | None) -> httpx.Response:
        """A reply that is no refusal (nor a redirection), its body still to be read."""
        with self._in_our_words():
            trace = spans.headers()  # the server's own spans join ours
            request = self._client.build_request(method, path, json=body, headers=trace)
            response = await self._client.send(request, stream=True)
        if response.is_success:
            return response
        async with aclosing(response):
            with self._in_our_words():
                raise _refusal(response, await response.aread(), self._model)

    async def _next(self, lines: AsyncIterator[str]) -> str:
        """The next line of a stream that is not to end yet."""
        try:
            with self._in_our_words():
                async with asyncio.timeout(self._timeout_seconds):
                    return await anext(lines)
        except (StopAsyncIteration, _Passing) as error:
            raise GeneralistUnavailable(
                "the generalist's server broke off in the middle of its answer"
            ) from error

    async def _patiently(
        self, once: Callable[[], Awaitable[T]], attempts: int = MOST_ATTEMPTS
    ) -> T:
        """The outcome of an attempt; what may pass is tried again, a few times."""
        attempt = 0
        while True:
            try:
                with self._in_our_words():
                    async with asyncio.timeout(self._timeout_seconds):
                        return await once()
            except _Passing as passing:
                if attempt + 1 >= min(passing.attempts, attempts):
                    raise passing.error from passing.__cause__
                default = RETRY_PAUSES_SECONDS[attempt]
                await asyncio.sleep(default if passing.pause is None else passing.pause)
            attempt += 1

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            words = f"no connection to the generalist's server: {error}"
            raise _Passing(GeneralistUnavailable(words), attempts=3) from error
        except (httpx.TimeoutException, TimeoutError) as error:
            raise GeneralistUnavailable(
                f"the generalist's server gave no answer within {self._timeout_seconds:g} s"
            ) from error
        except httpx.NetworkError as error:
            words = "the connection to the generalist's server broke"
            raise _Passing(GeneralistUnavailable(words), attempts=2) from error
        except httpx.RemoteProtocolError as error:  # also: closed before the end of the reply
            words = "the generalist's server broke off its answer, or speaks no HTTP"
            raise _Passing(GeneralistUnavailable(words), attempts=2) from error
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: the client is closed
            raise GeneralistUnavailable("the generalist's server cannot be asked") from error


class _Passing(Exception):
    """A failure that may pass; `error` is what it is called when it does not."""

    def __init__(self, error: GscoError, *, attempts: int, pause: float | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.attempts = attempts
        self.pause = pause  # seconds


def _refusal(response: httpx.Response, octets: bytes, model: str) -> Exception:
    """What a status that is no success means, and whether it may pass."""
    error: GscoError = protocol.refusal(response.status_code, octets, model)
    match response.status_code:
        case HTTPStatus.TOO_MANY_REQUESTS:
            error = Overloaded("the generalist's server is busy: 429 Too Many Requests")
            attempts = 3
        case HTTPStatus.SERVICE_UNAVAILABLE:
            attempts = 3
        case HTTPStatus.INTERNAL_SERVER_ERROR | HTTPStatus.BAD_GATEWAY:
            attempts = 2
        case _:
            return error
    pause = _retry_after_seconds(response)
    too_long = pause is not None and pause > LONGEST_PAUSE_SECONDS
    return _Passing(error, attempts=1 if too_long else attempts, pause=pause)


def _retry_after_seconds(response: httpx.Response) -> float | None:
    """What the server asks for in seconds; a date, which is rare, counts as nothing said."""
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isascii() and asked.isdigit() else None


def _is_control(token: str) -> bool:
    return plain(token) != token


def _blank() -> Image:
    return Image(np.zeros((32, 32, 3), np.uint8), sha256="", media_type="image/png")
