"""The generalist without a server: for the nano checkpoint and machines without vLLM."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from service import spans
from service.domain import Completion, GeneralistIdentity, Prompt
from service.errors import GeneralistUnavailable, GscoError, Overloaded
from service.generalist import choice
from service.generalist.asked import CACHE_BYTES, Asked, Decoding, as_seen, spell
from service.generalist.choice import Distribution
from service.generalist.process import DecodingProcess
from specialists.batcher import Batcher
from specialists.errors import PoolOverloaded

SAMPLING = "greedy, float32"
AT_ONCE = 8  # answers that are being found; others wait for a place among them
BATCH = 4  # prompts in one computation: most of the gain, and a step waits for no longer one

_ENDED = "the generalist's process has ended and is started again"

T = TypeVar("T")


class EmbeddedGeneralist:
    """Answers from a checkpoint folder by a process of its own.

    Prompts with choices that wait are computed together, free text one token after another.
    At most `queue_size` prompts wait or run, more raise Overloaded. A prompt whose caller is gone
    is dropped: before it starts, or between two tokens. `threads` are torch's own per computation,
    `cache_bytes` the memory for earlier prompts. A process that ends, or computes for longer than
    `timeout_seconds`, is replaced; whom it was computing for gets ComputationLost. Who shared a
    computation with a prompt that ends it is computed for once more, alone.
    """

    def __init__(
        self,
        folder: Path,
        *,
        adapter: Path | None = None,
        threads: int | None = None,
        queue_size: int = 32,
        cache_bytes: int = CACHE_BYTES,
        timeout_seconds: float = 60.0,
    ) -> None:
        self._folder = folder
        self._begin: Callable[[], Decoding] = partial(
            DecodingProcess,
            folder,
            adapter=adapter,
            threads=threads,
            cache_bytes=cache_bytes,
            timeout_seconds=timeout_seconds,
        )
        self._queue_size = queue_size
        self._prompts = 0
        self._identity: GeneralistIdentity | None = None
        self._decoder: Decoding | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._why = _ENDED
        self._worker: ThreadPoolExecutor | None = None
        self._batcher: Batcher[_Turn, Distribution | Exception] | None = None
        self._choosing = asyncio.Semaphore(AT_ONCE)  # an answer of many steps waits only once
        self._free = asyncio.Semaphore(1)  # while the worker is

    @property
    def identity(self) -> GeneralistIdentity:
        """Known once started; raises GeneralistUnavailable before."""
        if self._identity is None:
            raise GeneralistUnavailable(f"the generalist of '{self._folder}' is not started")
        return self._identity

    async def start(self) -> None:
        """Load and warm up; raises InvalidCheckpoint."""
        self._worker = ThreadPoolExecutor(1, "generalist")
        self._choosing, self._free = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(1)
        try:
            decoder = await self._in_worker(self._load)
        except BaseException:
            await self.close()
            raise
        self._identity = GeneralistIdentity(
            "embedded", self._folder.name, decoder.weights_sha256, SAMPLING
        )
        self._batcher = Batcher(
            "generalist",
            partial(_in_turn, decoder),
            executor=self._worker,
            workers=self._free,
            queue_size=AT_ONCE * choice.STATES_AT_ONCE,
            max_batch=BATCH,
        )

    async def close(self) -> None:
        """Whoever waits for an answer gets GeneralistUnavailable; what runs is waited for."""
        worker, self._worker = self._worker, None
        known, self._decoder = self._decoder, None
        batcher, self._batcher = self._batcher, None
        if self._recovery is not None:
            self._recovery.cancel()
        if batcher is not None:
            await batcher.close()
        if worker is not None:
            await asyncio.to_thread(worker.shutdown, cancel_futures=True)
        decoder, self._decoder = known or self._decoder, None
        if decoder is not None:
            await asyncio.to_thread(decoder.close)

    async def check(self) -> None:
        """Whoever finds that the decoder has ended has it started again."""
        decoder = self._demand_decoder()
        if decoder.is_ready:
            self._why = _ENDED
            return
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.create_task(self._recover(decoder), name="recover generalist")
        raise GeneralistUnavailable(self._why)

    async def answer(self, prompt: Prompt) -> Completion:
        """The permitted answer that is most probable, with a probability per choice; or free text.

        Raises Overloaded, PromptTooLong for more tokens than the model's context holds, and
        GeneralistUnavailable before the start and after the end.
        """
        if not prompt.choices:
            return Completion("".join([piece async for piece in self.stream(prompt)]).strip())
        decoder = self._demand_decoder()
        with self._place_in_queue():
            image = await asyncio.to_thread(as_seen, prompt.image, decoder.image_size)
            return await self._choose(replace(prompt, image=image))

    async def stream(self, prompt: Prompt) -> AsyncGenerator[str, None]:
        """Free text in pieces, as it is written; together they are what `answer` gives.

        Between two tokens other prompts have their turn, and a caller who has left ends it.
        Raises as `answer` does.
        """
        decoder = self._demand_decoder()
        with self._place_in_queue():
            image = await asyncio.to_thread(as_seen, prompt.image, decoder.image_size)
            pieces = decoder.pieces(image, prompt.text, prompt.max_tokens)
            begun, first_came = spans.until(spans.GENERALIST_QUEUE), spans.until(spans.FIRST_TOKEN)
            write = _after(begun, lambda: next(pieces, None))
            while (piece := await self._in_worker(write)) is not None:
                first_came()
                if piece:
                    yield piece

    def _load(self) -> Decoding:
        decoder = self._decoder = self._begin()  # `close` finds it where the start was cancelled
        return decoder

    async def _choose(self, prompt: Prompt) -> Completion:
        answers = choice.permitted(prompt, spell)
        begun, first_came = spans.until(spans.GENERALIST_QUEUE), spans.until(spans.FIRST_TOKEN)

        async def step(emitted: str) -> Distribution:
            asked = Asked(prompt.image, prompt.text, answers, emitted)
            return await self._weigh(_Turn(asked, begun))

        async with self._choosing:
            weights = await choice.weigh(answers, step, first_came=first_came)
        return choice.completion(prompt, weights)

    async def _weigh(self, turn: "_Turn") -> Distribution:
        if self._batcher is None:
            raise GeneralistUnavailable("the generalist is closed")
        try:
            found = await self._batcher.submit(turn)
        except PoolOverloaded:
            raise GeneralistUnavailable("the generalist was closed") from None
        if isinstance(found, Exception):
            raise found
        return found

    async def _in_worker(self, work: Callable[[], T]) -> T:
        """Cancelling the caller cancels the work where it has not begun."""
        async with self._free:
            if self._worker is None:
                raise GeneralistUnavailable("the generalist is closed")
            try:
                return await asyncio.wrap_future(self._worker.submit(work))
            except asyncio.CancelledError:
                caller = asyncio.current_task()
                if caller is not None and caller.cancelling():
                    raise
                raise GeneralistUnavailable("the generalist was closed") from None

    @contextmanager
    def _place_in_queue(self) -> Iterator[None]:
        if self._prompts >= self._queue_size:
            raise Overloaded(f"{self._prompts} prompts already wait for the generalist")
        self._prompts += 1
        try:
            yield
        finally:
            self._prompts -= 1

    def _demand_decoder(self) -> Decoding:
        if self._decoder is None:
            raise GeneralistUnavailable(f"the generalist of '{self._folder}' is not started")
        return self._decoder

    async def _recover(self, decoder: Decoding) -> None:
        try:
            await self._in_worker(decoder.be_ready)
        except GscoError as error:
            self._why = str(error)


@dataclass(frozen=True, slots=True)
class _Turn:
    """What is asked, and whom to tell that its turn has come."""

    asked: Asked
    begun: Callable[[], None]


def _in_turn(decoder: Decoding, turns: Sequence[_Turn]) -> Sequence[Distribution | Exception]:
    for turn in turns:
        turn.begun()
    return decoder.distributions([turn.asked for turn in turns])


def _after(begun: Callable[[], None], work: Callable[[], T]) -> Callable[[], T]:
    """The work, and that it has begun is said first: its turn has come."""

    def turn() -> T:
        begun()
        return work()

    return turn
