"""The generalist inside this process: for the nano checkpoint and machines without vLLM."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from service import spans
from service.domain import Completion, GeneralistIdentity, Image, Prompt
from service.errors import GeneralistUnavailable, Overloaded, PromptTooLong
from service.generalist import choice
from service.generalist.checkpoint import load
from service.generalist.choice import Distribution
from service.generalist.decoder import CACHE_BYTES, Asked, Decoder, spell
from specialists.batcher import Batcher
from specialists.errors import PoolOverloaded

SAMPLING = "greedy, float32"
AT_ONCE = 8  # answers that are being found; others wait for a place among them
BATCH = 4  # prompts in one computation: most of the gain, and a step waits for no longer one

T = TypeVar("T")


class EmbeddedGeneralist:
    """Answers from a checkpoint folder in a thread of its own.

    Prompts with choices that wait are computed together, free text one token after another.
    At most `queue_size` prompts wait or run, more raise Overloaded. A prompt whose caller is gone
    is dropped: before it starts, or between two tokens. `threads` are torch's own per computation.
    """

    def __init__(
        self,
        folder: Path,
        *,
        adapter: Path | None = None,
        threads: int | None = None,
        queue_size: int = 32,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._folder = folder
        self._adapter = adapter
        self._threads = threads
        self._queue_size = queue_size
        self._cache_bytes = cache_bytes
        self._prompts = 0
        self._identity: GeneralistIdentity | None = None
        self._decoder: Decoder | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._batcher: Batcher[_Turn, Distribution | PromptTooLong] | None = None
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
            decoder, self._identity = await self._in_worker(self._load)
        except BaseException:
            await self.close()
            raise
        self._decoder = decoder
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
        worker, self._worker, self._decoder = self._worker, None, None
        batcher, self._batcher = self._batcher, None
        if batcher is not None:
            await batcher.close()
        if worker is not None:
            await asyncio.to_thread(worker.shutdown, cancel_futures=True)

    async def check(self) -> None:
        self._demand_decoder()

    async def answer(self, prompt: Prompt) -> Completion:
        """The permitted answer that is most probable, with a probability per choice; or free text.

        Raises Overloaded, PromptTooLong for more tokens than the model's context holds, and
        GeneralistUnavailable before the start and after the end.
        """
        if not prompt.choices:
            return Completion("".join([piece async for piece in self.stream(prompt)]).strip())
        self._demand_decoder()
        with self._place_in_queue():
            return await self._choose(prompt)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[str, None]:
        """Free text in pieces, as it is written; together they are what `answer` gives.

        Between two tokens other prompts have their turn, and a caller who has left ends it.
        Raises as `answer` does.
        """
        decoder = self._demand_decoder()
        with self._place_in_queue():
            pieces = decoder.pieces(prompt.image, prompt.text, prompt.max_tokens)
            begun, first_came = spans.until(spans.GENERALIST_QUEUE), spans.until(spans.FIRST_TOKEN)
            write = _after(begun, lambda: next(pieces, None))
            while (piece := await self._in_worker(write)) is not None:
                first_came()
                if piece:
                    yield piece

    async def _choose(self, prompt: Prompt) -> Completion:
        answers = choice.permitted(prompt, spell)
        begun = spans.until(spans.GENERALIST_QUEUE)

        async def step(emitted: str) -> Distribution:
            asked = Asked(prompt.image, prompt.text, answers, emitted)
            return await self._weigh(_Turn(asked, begun))

        async with self._choosing:
            return choice.completion(prompt, await choice.weigh(answers, step))

    async def _weigh(self, turn: "_Turn") -> Distribution:
        if self._batcher is None:
            raise GeneralistUnavailable("the generalist is closed")
        try:
            found = await self._batcher.submit(turn)
        except PoolOverloaded:
            raise GeneralistUnavailable("the generalist was closed") from None
        if isinstance(found, PromptTooLong):
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

    def _demand_decoder(self) -> Decoder:
        if self._decoder is None:
            raise GeneralistUnavailable(f"the generalist of '{self._folder}' is not started")
        return self._decoder

    def _load(self) -> tuple[Decoder, GeneralistIdentity]:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        checkpoint = load(self._folder, self._adapter)
        decoder = Decoder(checkpoint, self._cache_bytes)
        _warm_up(decoder)
        identity = GeneralistIdentity(
            "embedded", self._folder.name, checkpoint.weights_sha256, SAMPLING
        )
        return decoder, identity


@dataclass(frozen=True, slots=True)
class _Turn:
    """What is asked, and whom to tell that its turn has come."""

    asked: Asked
    begun: Callable[[], None]


def _in_turn(decoder: Decoder, turns: Sequence[_Turn]) -> list[Distribution | PromptTooLong]:
    for turn in turns:
        turn.begun()
    return decoder.distributions([turn.asked for turn in turns])


def _after(begun: Callable[[], None], work: Callable[[], T]) -> Callable[[], T]:
    """The work, and that it has begun is said first: its turn has come."""

    def turn() -> T:
        begun()
        return work()

    return turn


def _warm_up(decoder: Decoder) -> None:
    """The first computation allocates and compiles: not at the cost of the first case."""
    blank = Image(np.zeros((8, 8, 3), np.uint8), sha256="", media_type="image/png")
    decoder.distribution(blank, "Ready?", choice.Answers(("yes", "no")), "")
