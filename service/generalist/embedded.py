"""The generalist inside this process: for the nano checkpoint and machines without vLLM."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TypeVar

import numpy as np
import torch

from service.domain import Completion, GeneralistIdentity, Image, Prompt
from service.errors import GeneralistUnavailable, Overloaded
from service.generalist import choice
from service.generalist.checkpoint import load
from service.generalist.decoder import CACHE_BYTES, Decoder, spell

SAMPLING = "greedy, float32"

T = TypeVar("T")


class EmbeddedGeneralist:
    """Answers from a checkpoint folder, one prompt at a time in a thread of its own.

    At most `queue_size` prompts wait or run, more raise Overloaded. A prompt whose caller is gone
    is dropped: before it starts, or between two tokens. `threads` are torch's own per computation.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int | None = None,
        queue_size: int = 32,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._folder = folder
        self._threads = threads
        self._queue_size = queue_size
        self._cache_bytes = cache_bytes
        self._prompts = 0
        self._identity: GeneralistIdentity | None = None
        self._decoder: Decoder | None = None
        self._worker: ThreadPoolExecutor | None = None

    @property
    def identity(self) -> GeneralistIdentity:
        """Known once started; raises GeneralistUnavailable before."""
        if self._identity is None:
            raise GeneralistUnavailable(f"the generalist of '{self._folder}' is not started")
        return self._identity

    async def start(self) -> None:
        """Load and warm up; raises InvalidCheckpoint."""
        self._worker = ThreadPoolExecutor(1, "generalist")
        try:
            self._decoder, self._identity = await self._in_worker(self._load)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Drop what waits, let what runs finish."""
        worker, self._worker, self._decoder = self._worker, None, None
        if worker is not None:
            await asyncio.to_thread(worker.shutdown, cancel_futures=True)

    async def check(self) -> None:
        self._demand_decoder()

    async def answer(self, prompt: Prompt) -> Completion:
        """One of the choices with a probability each, or free text.

        Raises Overloaded, and GeneralistUnavailable before the start, after the end and for a
        prompt longer than the model's context.
        """
        decoder = self._demand_decoder()
        with self._place_in_queue():
            if prompt.choices:
                return await self._choose(decoder, prompt)
            return await self._write(decoder, prompt)

    async def _choose(self, decoder: Decoder, prompt: Prompt) -> Completion:
        spelled = [spell(label) for label in prompt.choices]

        async def step(emitted: str) -> choice.Distribution:
            return await self._in_worker(
                lambda: decoder.distribution(prompt.image, prompt.text, spelled, emitted)
            )

        probabilities = await choice.probabilities(spelled, step)
        return Completion(choice.best(prompt.choices, probabilities), probabilities)

    async def _write(self, decoder: Decoder, prompt: Prompt) -> Completion:
        abandoned = Event()
        try:
            text = await self._in_worker(
                lambda: decoder.text(prompt.image, prompt.text, prompt.max_tokens, abandoned.is_set)
            )
        finally:
            abandoned.set()
        return Completion(text)

    async def _in_worker(self, work: Callable[[], T]) -> T:
        """Cancelling the caller cancels the work where it has not begun."""
        if self._worker is None:
            raise GeneralistUnavailable("the generalist is closed")
        future = asyncio.wrap_future(self._worker.submit(work))
        try:
            return await future
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
        checkpoint = load(self._folder)
        decoder = Decoder(checkpoint, self._cache_bytes)
        _warm_up(decoder)
        identity = GeneralistIdentity(
            "embedded", self._folder.name, checkpoint.weights_sha256, SAMPLING
        )
        return decoder, identity


def _warm_up(decoder: Decoder) -> None:
    """The first computation allocates and compiles: not at the cost of the first case."""
    blank = Image(np.zeros((8, 8, 3), np.uint8), sha256="", media_type="image/png")
    decoder.distribution(blank, "Ready?", ("yes", "no"), "")
