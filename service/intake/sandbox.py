"""Decoding in processes of their own: a hostile file ends a worker, never the service.

A worker is a fresh Python process (never a fork: that would deadlock after torch started its
threads), with bounded memory and time, no environment, and no pickle on its pipes. One that
crashes or overstays is killed and replaced; the caller gets one sentence.
"""

import asyncio
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

from service.errors import ImageTooLarge, Overloaded, UnreadableImage, UnsupportedImage
from service.intake.deidentify import DicomReferences
from service.intake.limits import Limits
from service.intake.process import Worker
from service.intake.result import IntakeResult, intake_result
from service.intake.viewable import Frame

Found = TypeVar("Found")

WORKER = (sys.executable, "-m", "service.intake.worker")
_STOPPING = "the service is stopping"


class Sandbox:
    """Decodes images from outside in `workers` limited processes, each one image at a time.

    `key` makes patients' pseudonyms and never reaches a worker. With `refuse_text`, an image into
    which text is burned is refused (UnsupportedImage) rather than flagged. At most `limits.queue`
    images wait; more are refused with Overloaded. `command` starts a worker: tests pass their own.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        workers: int = 1,
        key: bytes = b"",
        refuse_text: bool = False,
        command: Sequence[str] = WORKER,
    ) -> None:
        self._limits = limits
        self._key = key
        self._refuse_text = refuse_text
        self._workers = [Worker(command, limits) for _ in range(workers)]
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._places = threading.BoundedSemaphore(workers + limits.queue)
        self._threads: ThreadPoolExecutor | None = None
        self._closing = threading.Event()

    async def start(self) -> None:
        """Start the workers and wait until all are ready: call it before any model loads.

        Raises Misconfigured when they do not start.
        """
        threads = ThreadPoolExecutor(len(self._workers), thread_name_prefix="decode")
        self._threads = threads
        self._closing.clear()
        try:
            await asyncio.gather(
                *(asyncio.wrap_future(threads.submit(worker.start)) for worker in self._workers)
            )
        except BaseException:
            await self.close()
            raise
        for worker in self._workers:
            self._idle.put(worker)

    async def close(self) -> None:
        """Stop the workers; images still waiting are refused with Overloaded."""
        self._closing.set()
        threads, self._threads = self._threads, None
        for worker in self._workers:
            worker.end()
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)
        for worker in self._workers:
            worker.discard()
        self._idle = SimpleQueue()

    @property
    def processes(self) -> tuple[int, ...]:
        """The ids of the workers that run: for those who watch their memory."""
        return tuple(id for worker in self._workers if (id := worker.process_id) is not None)

    async def decode(self, data: bytes, *, frame: int | None = None) -> IntakeResult:
        """The image in `data`; `frame` counts from 1 (default: DICOM's middle one, else the first).

        Raises UnreadableImage, ImageTooLarge, UnsupportedImage, or Overloaded.
        """
        self._limits.check_bytes(len(data))

        def decode(worker: Worker) -> IntakeResult:
            decoded = worker.decode(data, frame)
            self._require_no_text(decoded.cautions)
            return intake_result(data, decoded, self._key)

        return await self._in_worker(decode)

    async def view(self, data: bytes, *, frame: int | None = None) -> Frame:
        """The same frame for a person to look at, before any window; raises as `decode` does."""
        self._limits.check_bytes(len(data))

        def view(worker: Worker) -> Frame:
            shown = worker.view(data, frame)
            self._require_no_text(shown.cautions)
            return shown

        return await self._in_worker(view)

    def _require_no_text(self, cautions: Sequence[str]) -> None:
        if self._refuse_text and cautions:
            raise UnsupportedImage(cautions[0])

    async def identify(self, data: bytes) -> DicomReferences | None:
        """Which instance a DICOM file is, for those who must answer for one that was refused.

        None where that cannot be told. Raises Overloaded.
        """
        try:
            self._limits.check_bytes(len(data))
            return await self._in_worker(lambda worker: worker.identify(data))
        except (UnreadableImage, ImageTooLarge):
            return None

    async def _in_worker(self, work: Callable[[Worker], Found]) -> Found:
        if self._threads is None:
            raise Overloaded("images cannot be decoded: the service is starting or stopping")
        if not self._places.acquire(blocking=False):
            raise Overloaded(f"{self._limits.queue} images are waiting to be decoded already")
        job = self._threads.submit(self._with_worker, work)
        job.add_done_callback(self._free_place)
        return await asyncio.wrap_future(job)

    def _with_worker(self, work: Callable[[Worker], Found]) -> Found:
        if self._closing.is_set():
            raise Overloaded(_STOPPING)
        worker = self._idle.get()
        try:
            return work(worker)
        except UnreadableImage:
            if self._closing.is_set():  # its worker was ended: that says nothing of the image
                raise Overloaded(_STOPPING) from None
            raise
        finally:
            self._hand_back(worker)

    def _hand_back(self, worker: "Worker") -> None:
        try:
            if not self._closing.is_set():
                worker.renew_if_needed()
        finally:
            self._idle.put(worker)

    def _free_place(self, _: "Future[Any]") -> None:
        self._places.release()
