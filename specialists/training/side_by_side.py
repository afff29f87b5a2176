"""Several backbones trained at the same time, each in a process of its own on one core.

Small models are not worth dividing among cores: two processes of one core finish nearly twice as
fast as one process of two, and do not stall when the machine is busy with other things.
"""

import multiprocessing
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.context import SpawnProcess
from typing import Generic, Protocol, TypeVar

import torch

from specialists.training.trainer import Epoch

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

POLL_SECONDS = 1.0


class Trainable(Protocol[T_co]):
    """Something picklable that trains one backbone."""

    def train(self, key: str, on_progress: Callable[[Epoch], None]) -> T_co: ...


class TrainingProcessDied(RuntimeError):
    """A process ended without saying why, for instance for want of memory."""


def train_side_by_side(
    work: Trainable[T], keys: Sequence[str], workers: int, on_progress: Callable[[Epoch], None]
) -> list[T]:
    """Trains the backbones, `workers` at a time; what went wrong in one is raised here."""
    processes = _Processes(work, keys)
    try:
        return processes.run(workers, on_progress)
    finally:
        processes.stop()


class _Processes(Generic[T]):
    def __init__(self, work: Trainable[T], keys: Sequence[str]) -> None:
        self._context = multiprocessing.get_context("spawn")  # torch's threads do not survive fork
        self._messages = self._context.Queue()
        self._work, self._keys, self._waiting = work, keys, deque(keys)
        self._running: dict[str, SpawnProcess] = {}
        self._results: dict[str, T] = {}

    def run(self, workers: int, on_progress: Callable[[Epoch], None]) -> list[T]:
        while self._waiting or self._running:
            while self._waiting and len(self._running) < workers:
                self._start(self._waiting.popleft())
            self._handle_next(on_progress)
        return [self._results[key] for key in self._keys]

    def stop(self) -> None:
        for process in self._running.values():
            process.terminate()
            process.join()
        self._messages.close()

    def _start(self, key: str) -> None:
        process = self._context.Process(
            target=_train_alone, args=(self._work, key, self._messages), name=key, daemon=True
        )
        process.start()
        self._running[key] = process

    def _handle_next(self, on_progress: Callable[[Epoch], None]) -> None:
        dead = [key for key, process in self._running.items() if not process.is_alive()]
        try:
            key, message = self._messages.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if dead:
                raise TrainingProcessDied(f"training of {dead[0]!r} ended unexpectedly") from None
            return
        if isinstance(message, Epoch):
            on_progress(message)
            return
        self._running.pop(key).join()
        if isinstance(message, BaseException):
            raise message
        self._results[key] = message


def _train_alone(work: Trainable[T], key: str, messages: "multiprocessing.Queue[object]") -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        messages.put((key, work.train(key, lambda epoch: messages.put((key, epoch)))))
    except Exception as error:  # noqa: BLE001 raised again in the parent
        messages.put((key, error))


def _end_with_parent() -> None:
    """A parent that was killed cannot stop its children, and the next run would meet them."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
