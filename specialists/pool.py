"""Every panel of a folder, loaded when needed and consulted off the event loop."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from specialists import gradcam, runtime
from specialists.batcher import Batcher
from specialists.catalogue import panel_of
from specialists.errors import InvalidSpecialist, PoolOverloaded
from specialists.loader import Specialist, load
from specialists.panel import LoadedPanel, Member, Panel, answer
from specialists.prediction import Consultation, Explanation, MissingSpecialist, Pixels
from specialists.segmentation.serving import Segmenters, beside
from specialists.task import Task

COMPILED = ".compiled"
"""Beside the tasks' folders: graphs kept from one start to the next."""
WORKERS = 2
"""On two cores one nano consultation takes 22 ms with one worker as with two, 64 at once 0.7 s."""


class SpecialistPool:
    """All panels of `folder/TASK/BACKBONE`, and the segmentation specialists beside them.

    `threads` specialists run at the same time on one core each. `queue_size` images may wait per
    specialist, and up to `max_batch` of them are answered together.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "cpu",
        queue_size: int = 64,
        max_batch: int = 16,
        threads: int | None = None,
    ) -> None:
        self._folder, self._device = folder, device
        self._queue_size, self._max_batch = queue_size, max_batch
        self._threads = threads or (WORKERS if device == "cpu" else 1)
        self._workers = asyncio.Semaphore(self._threads)
        self._executor: ThreadPoolExecutor | None = None
        self._panels: dict[str, Panel] = {}
        self._loading: dict[str, asyncio.Task[Panel]] = {}
        self._segmenters = Segmenters(folder, device)

    async def start(self) -> None:
        """Starts the threads; a panel is loaded by `load`, or when it is first consulted."""
        if self._executor is None:
            self._executor = await asyncio.to_thread(_single_core_workers, self._threads)
            self._segmenters.start(self._executor, self._workers)

    async def close(self) -> None:
        """Stops; a consultation under way gets PoolOverloaded."""
        executor, self._executor = self._executor, None
        loading = list(self._loading.values())
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)
        await self._segmenters.close()
        await _close([member for panel in self._panels.values() for member in panel.members])
        self._panels.clear()
        if executor is not None:
            await asyncio.to_thread(executor.shutdown)

    async def load(self, task: Task) -> LoadedPanel:
        """Loads a task's panel, or whoever an earlier attempt found missing."""
        panel = self._known(task)
        if panel is None or panel.missing:
            panel = await self._load_once(task)
        work = partial(self._segmenters.find, task)
        await asyncio.get_running_loop().run_in_executor(self._started(), work)
        return self._segmenters.described(panel.describe(), task)

    def loaded(self) -> tuple[LoadedPanel, ...]:
        """Every panel loaded so far."""
        panels = self._panels.values()
        return tuple(self._segmenters.described(one.describe(), one.task) for one in panels)

    async def consult(self, pixels: Pixels, task: Task) -> Consultation:
        """What every specialist of a task says of an image, (height, width, 3) uint8 RGB.

        Where the task has a segment, its segmentation specialists outline it meanwhile. Who is
        missing or fails is reported in `missing`. Raises PoolOverloaded where a queue of the panel
        is full or the pool is closed, ValueError on pixels of another shape.
        """
        panel = self._known(task) or await self._load_once(task)
        return beside(
            *await asyncio.gather(panel.consult(pixels), self._segmenters.outline(pixels, task))
        )

    async def explain(
        self, pixels: Pixels, task: Task, specialist: str, label: str | None = None
    ) -> Explanation:
        """Where one specialist of a task looked, for its most probable label unless told which.

        Raises UnknownBackbone, UnknownLabel, SpecialistUnavailable, PoolOverloaded, ValueError.
        """
        panel = self._known(task) or await self._load_once(task)
        chosen = panel.find(specialist)
        work = partial(gradcam.explain, chosen, pixels, label)
        async with self._workers:
            return await asyncio.get_running_loop().run_in_executor(self._started(), work)

    def _known(self, task: Task) -> Panel | None:
        """The loaded panel; a task whose description has changed since is loaded again."""
        panel = self._panels.get(task.name)
        return panel if panel is not None and panel.task == task else None

    async def _load_once(self, task: Task) -> Panel:
        """Whoever asks meanwhile waits for the same loading, which outlives each of them."""
        loading = self._loading.get(task.name)
        if loading is None:
            loading = asyncio.create_task(self._load(task), name=f"load panel {task.name}")
            self._loading[task.name] = loading
            loading.add_done_callback(lambda _: self._loading.pop(task.name))
        panel = await asyncio.shield(loading)
        return panel if panel.task == task else await self._load_once(task)

    async def _load(self, task: Task) -> Panel:
        known, old = self._known(task), self._panels.get(task.name)
        kept = {m.specialist.name: m for m in known.members} if known else {}
        found = [kept.get(key) or await self._load_member(key, task) for key in panel_of(task)]
        panel = Panel(
            task=task,
            members=tuple(one for one in found if isinstance(one, Member)),
            missing=tuple(one for one in found if isinstance(one, MissingSpecialist)),
        )
        self._panels[task.name] = panel
        if old is not None and old is not known:
            await _close(old.members)
        return panel

    async def _load_member(self, key: str, task: Task) -> Member | MissingSpecialist:
        executor = self._started()
        loop = asyncio.get_running_loop()
        folder = self._folder / task.name / key
        try:
            specialist = await loop.run_in_executor(executor, self._read, folder, task)
        except InvalidSpecialist as error:
            return MissingSpecialist(key, str(error))
        batcher = Batcher(
            key,
            partial(answer, specialist),
            executor=executor,
            workers=self._workers,
            queue_size=self._queue_size,
            max_batch=self._max_batch,
        )
        return Member(specialist, batcher)

    def _read(self, folder: Path, task: Task) -> Specialist:
        """From disk, and made fast: seconds for a full-size one, hence never in a request's way."""
        cache = self._folder / COMPILED
        return runtime.accelerated(load(folder, task, self._device), self._device, cache)

    def _started(self) -> ThreadPoolExecutor:
        if self._executor is None:
            raise PoolOverloaded("the panel is not running")
        return self._executor


async def _close(members: Sequence[Member]) -> None:
    await asyncio.gather(*(member.batcher.close() for member in members))


def _single_core_workers(threads: int) -> ThreadPoolExecutor:
    """Threads in which torch uses one core; in all others it goes on using as many as before.

    torch.set_num_threads sets the calling thread's number and the default of threads yet to come,
    so the default is put back once the workers have theirs. A thread takes the default over when
    it first asks for its number, also after its own was set; so it asks first.
    """
    before = torch.get_num_threads()
    everyone = threading.Barrier(threads)

    def begin(_: int) -> None:
        torch.get_num_threads()
        torch.set_num_threads(1)
        everyone.wait()

    executor = ThreadPoolExecutor(threads, thread_name_prefix="specialist")
    list(executor.map(begin, range(threads)))
    torch.set_num_threads(before)
    return executor
