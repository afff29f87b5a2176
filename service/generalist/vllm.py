"""The generalist behind an OpenAI-compatible API: vLLM with MedDr, or any vision–language model."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from typing import Any, TypeVar

import httpx
import numpy as np

from service import spans
from service.domain import Completion, GeneralistIdentity, Image, Prompt
from service.errors import GeneralistUnavailable, GscoError
from service.generalist import choice, protocol, refusals
from service.generalist.chat import plain
from service.generalist.images import SentImages
from service.generalist.refusals import ImageLost, Passing

SAMPLING = "temperature 0"
CONNECT_SECONDS = 5.0
RETRY_PAUSES_SECONDS = (0.2, 1.0)
MOST_ATTEMPTS = 1 + len(RETRY_PAUSES_SECONDS)
CHECK_ATTEMPTS = 2  # who asks whether the server is there asks again soon
NEGLIGIBLE = 1e-3  # share of the probability that an answer may leave unlisted
COMPLETIONS = "chat/completions"

T = TypeVar("T")


class VllmGeneralist:
    """Answers from a server; asking is free of side effects, so what may pass is asked again.

    Three attempts: no connection, 503 (starting), 429 (busy; Overloaded in the end). Two: 500,
    502, a connection that breaks. One: everything else, a timeout first of all. `Retry-After` is
    heeded up to `refusals.LONGEST_PAUSE_SECONDS`; with a longer one there is no further attempt. A
    request that named an image which is lost is followed by one with the image, and its attempts.

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
        self._images = SentImages()
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
            await self.check()
            await self.answer(Prompt(_blank(), "Ready?", ("yes", "no")))

    async def close(self) -> None:
        await self._client.aclose()

    async def check(self) -> None:
        """Returns when the server is there and serves the model."""
        listed = await self._ask("GET", "models", attempts=CHECK_ATTEMPTS)
        served = protocol.models(listed)
        self._images.server_keeps = protocol.keeps_images(listed, self._model)
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
        if prompt.choices:
            return await self._choose(prompt)
        first = await self._complete(prompt, lambda user: _text_of(user, prompt))
        return Completion(protocol.text(first).strip())

    async def stream(self, prompt: Prompt) -> AsyncGenerator[str, None]:
        """Free text in pieces, as they come; together they are what `answer` gives.

        Raises as `answer` does, and GeneralistUnavailable for a text that ends half-way: what was
        given until then is no answer. Only the beginning is asked for again.
        """

        async def begin(user: protocol.Body) -> tuple[str, AsyncGenerator[str, None]]:
            pieces = self._pieces(_text_of(user, prompt) | {"stream": True})
            return await anext(pieces, ""), pieces

        first_came = spans.until(spans.FIRST_TOKEN)
        first, others = await self._showing(prompt, begin)
        async with aclosing(others) as rest:
            if first:
                first_came()
                yield first
            async for piece in rest:
                yield piece

    async def _pieces(self, asked: protocol.Body) -> AsyncGenerator[str, None]:
        """The text as it comes; ImageLost where the server says so after it has begun to reply."""
        body = self._asking(asked)
        opened = await self._patiently(lambda: self._open("POST", COMPLETIONS, body))
        may_be_lost = protocol.relies_on_name(body)
        async with aclosing(opened) as response:
            lines = response.aiter_lines()
            for _ in range(4 * body["max_tokens"] + 64):  # a line per token and one between them
                carried = protocol.event(await self._next(lines))
                if carried == protocol.DONE:
                    return
                try:
                    piece = protocol.piece(carried, self._model) if carried else ""
                except GeneralistUnavailable as error:
                    if may_be_lost:
                        raise ImageLost from error
                    raise
                if piece:
                    may_be_lost = False
                    yield piece
        raise GeneralistUnavailable("the generalist's server does not come to an end")

    async def _showing(self, prompt: Prompt, send: Callable[[protocol.Body], Awaitable[T]]) -> T:
        """What `send` gets for the user's turn; the image whole where its name is not enough."""
        if named := self._images.by_name(prompt.image):
            try:
                got = await send(protocol.message(prompt, named))
            except ImageLost:
                self._images.lost(prompt.image)
            else:
                self._images.known()
                return got
        whole = await asyncio.to_thread(self._images.whole, prompt.image)
        got = await send(protocol.message(prompt, whole))
        self._images.arrived(prompt.image)
        return got

    async def _choose(self, prompt: Prompt) -> Completion:
        answers = choice.permitted(prompt)

        async def step(emitted: str) -> choice.Distribution:
            free = await self._unconstrained(prompt, answers, emitted)
            return free or await self._constrained(prompt, answers, emitted)

        return choice.completion(prompt, await choice.weigh(answers, step))

    async def _unconstrained(
        self, prompt: Prompt, answers: choice.Answers, emitted: str
    ) -> choice.Distribution:
        """The tokens that continue an answer, where those not listed weigh next to nothing.

        Asked first, because a server's grammar can be wrong: xgrammar 0.2.8 was seen to forbid a
        token that is a choice, which then silently had the probability 0. Empty where the list
        does not tell: much of the probability lies elsewhere, or where an answer may end, on
        tokens that neither continue one nor are seen to end it.
        """
        first = await self._complete(prompt, lambda user: protocol.next_token(user, emitted))
        listed = protocol.distribution(first)
        fitting = {t: p for t, p in listed.items() if answers.permits(emitted + t)}
        may_end = answers.whole(emitted) is not None
        if may_end:
            fitting[choice.END] = sum(p for token, p in listed.items() if _is_control(token))
        known = fitting if may_end else listed
        unknown = max(0.0, 1 - sum(known.values()))
        return fitting if unknown <= NEGLIGIBLE * sum(fitting.values()) else {}

    async def _constrained(
        self, prompt: Prompt, answers: choice.Answers, emitted: str
    ) -> choice.Distribution:
        def offering(user: protocol.Body) -> protocol.Body:
            offered = {"structured_outputs": {"choice": answers.offered(emitted)}}
            return protocol.next_token(user, emitted) | offered

        listed = protocol.distribution(await self._complete(prompt, offering))
        if listed:
            return listed
        # Nothing but tokens that end within a character: the likeliest continuation decides.
        most = {"max_tokens": prompt.max_tokens}
        whole = await self._complete(prompt, lambda user: offering(user) | most)
        return {protocol.text(whole): 1.0}

    async def _complete(
        self, prompt: Prompt, ask: Callable[[protocol.Body], protocol.Body]
    ) -> Mapping[str, Any]:
        """`ask` makes the request of the user's turn."""
        completion = await self._showing(
            prompt, lambda user: self._ask("POST", COMPLETIONS, self._asking(ask(user)))
        )
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
                octets = await response.aread()
        by_name = body is not None and protocol.relies_on_name(body)
        raise refusals.reason(response, octets, self._model, by_name=by_name)

    async def _next(self, lines: AsyncIterator[str]) -> str:
        """The next line of a stream that is not to end yet."""
        try:
            with self._in_our_words():
                async with asyncio.timeout(self._timeout_seconds):
                    return await anext(lines)
        except (StopAsyncIteration, Passing) as error:
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
            except Passing as passing:
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
            raise Passing(GeneralistUnavailable(words), attempts=3) from error
        except (httpx.TimeoutException, TimeoutError) as error:
            raise GeneralistUnavailable(
                f"the generalist's server gave no answer within {self._timeout_seconds:g} s"
            ) from error
        except httpx.NetworkError as error:
            words = "the connection to the generalist's server broke"
            raise Passing(GeneralistUnavailable(words), attempts=2) from error
        except httpx.RemoteProtocolError as error:  # also: closed before the end of the reply
            words = "the generalist's server broke off its answer, or speaks no HTTP"
            raise Passing(GeneralistUnavailable(words), attempts=2) from error
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: the client is closed
            raise GeneralistUnavailable("the generalist's server cannot be asked") from error


def _text_of(user: protocol.Body, prompt: Prompt) -> protocol.Body:
    return {"messages": [user], "max_tokens": prompt.max_tokens}


def _is_control(token: str) -> bool:
    return plain(token) != token


def _blank() -> Image:
    return Image(np.zeros((32, 32, 3), np.uint8), sha256="", media_type="image/png")
