"""Requests that arrive together are answered together: dynamic batching without waiting."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from specialists.errors import PoolOverloaded

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Turn:
    """How long a request waited, and how long the batch took that answered it."""

    name: str
    queue_seconds: float
    seconds: float


Told = Callable[[Turn], None]
"""Called in the event loop when a request was answered, in the context of whoever asked."""


def nobody(turn: Turn) -> None:
    """No one is told."""
    del turn


class Batcher(Generic[Q, A]):
    """A bounded queue in front of a function that answers many requests at once.

    A request is taken as soon as a worker is free, with whatever else has queued up meanwhile:
    nobody waits for company. Requests whose caller has gone are dropped before the work is done.
    Where the function fails, every request of that batch gets the error.

    `answer` runs in `executor`; `workers` bounds how many batches of all the batchers that share
    it run at once, and a batch is put together only when its turn has come.
    """

    def __init__(
        self,
        name: str,
        answer: Callable[[Sequence[Q]], Sequence[A]],
        *,
        executor: Executor,
        workers: asyncio.Semaphore,
        queue_size: int,
        max_batch: int,
        told: Told = nobody,
    ) -> None:
        self.name = name
        self._answer, self._executor, self._workers = answer, executor, workers
        self._queue_size, self._max_batch = queue_size, max_batch
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._told = told
        self._begun: dict[asyncio.Future[A], float] = {}
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def submit(self, request: Q) -> asyncio.Future[A]:
        """The answer to come; cancel it to withdraw. Raises PoolOverloaded when full."""
        self._forget_abandoned()
        if self._closed or len(self._waiting) >= self._queue_size:
            raise PoolOverloaded(
                f"specialist {self.name!r} has {len(self._waiting)} images waiting"
            )
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        future.add_done_callback(partial(self._tell, time.perf_counter()))
        self._waiting.append((request, future))
        self._arrived.set()
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name=f"batcher {self.name}")
        return future

    async def close(self) -> None:
        """Stops; whoever still waits gets PoolOverloaded."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail([future for _, future in self._waiting], _closing(self.name))
        self._waiting.clear()

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            async with self._workers:
                batch = self._next_batch()
                if batch:
                    await self._run(batch)

    def _next_batch(self) -> list[tuple[Q, asyncio.Future[A]]]:
        self._forget_abandoned()
        count = min(len(self._waiting), self._max_batch)
        batch = [self._waiting.popleft() for _ in range(count)]
        if not self._waiting:
            self._arrived.clear()
        return batch

    def _forget_abandoned(self) -> None:
        if any(future.done() for _, future in self._waiting):
            self._waiting = deque(entry for entry in self._waiting if not entry[1].done())

    async def _run(self, batch: list[tuple[Q, asyncio.Future[A]]]) -> None:
        futures = [future for _, future in batch]
        self._begun.update(dict.fromkeys(futures, time.perf_counter()))
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(
                self._executor, self._answer, [request for request, _ in batch]
            )
            for future, answer in zip(futures, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        except asyncio.CancelledError:
            self._fail(futures, _closing(self.name))
            raise
        except Exception as error:  # noqa: BLE001 whatever went wrong, no caller may wait for ever
            self._fail(futures, error)

    def _tell(self, since: float, future: asyncio.Future[A]) -> None:
        begun = self._begun.pop(future, None)
        if begun is not None and not future.cancelled():
            self._told(Turn(self.name, begun - since, time.perf_counter() - begun))

    @staticmethod
    def _fail(futures: Sequence[asyncio.Future[A]], error: Exception) -> None:
        for future in futures:
            if not future.done():
                future.set_exception(error)


def _closing(name: str) -> PoolOverloaded:
    return PoolOverloaded(f"specialist {name!r} is closing")
