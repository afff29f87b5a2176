"""Every panel of a folder, read when needed and consulted off the event loop."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from specialists import gradcam
from specialists.batcher import Batcher, Told, nobody
from specialists.description import LoadedPanel
from specialists.draft import Draft
from specialists.errors import InvalidSpecialist, PoolOverloaded, SpecialistUnavailable
from specialists.loader import Specialist
from specialists.panel import Member, Panel, answer
from specialists.prediction import Consultation, Explanation, Hear, Pixels, unheard
from specialists.reader import Reader, Ready
from specialists.segmentation.serving import Segmented, Segmenters, beside
from specialists.shelf import Shelf
from specialists.stamps import Stamp
from specialists.task import Task
from specialists.threads import single_core_workers

WATCH_SECONDS = 2.0
WORKERS = 2
"""On two cores one nano consultation takes 22 ms with one worker as with two, 64 at once 0.7 s."""
MAX_BATCH, MAX_BATCH_ON_GPU = 8, 64

logger = logging.getLogger(__name__)


class SpecialistPool:
    """All panels of `folder/TASK/BACKBONE`, and the segmentation specialists beside them.

    They answer as they lie there: what changes on disk is noticed and taken over.
    `threads` specialists run at the same time on one core each. `queue_size` images may wait per
    specialist, and up to `max_batch` of them are answered together. `memory_bytes` bounds the
    weights in memory: tasks that have gone unused for longest are read again when they are asked.
    `told` hears of every turn.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "cpu",
        queue_size: int = 64,
        max_batch: int | None = None,
        threads: int | None = None,
        memory_bytes: int | None = None,
        watch_seconds: float = WATCH_SECONDS,
        told: Told = nobody,
    ) -> None:
        self._queue_size, self._told = queue_size, told
        self._max_batch = max_batch or (MAX_BATCH if device == "cpu" else MAX_BATCH_ON_GPU)
        self._threads = threads or WORKERS
        self._workers = asyncio.Semaphore(self._threads)
        self._executor: ThreadPoolExecutor | None = None
        self._reader, self._shelf = Reader(folder, device), Shelf(memory_bytes)
        self._segmenters = Segmenters(folder, device)
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._watch_seconds = watch_seconds
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the threads; a panel is loaded by `load`, or when it is first consulted."""
        if self._executor is None:
            work = partial(single_core_workers, self._threads, "specialist")
            self._executor = await asyncio.to_thread(work)
            self._segmenters.start(self._executor, self._workers, self._told)
            await self._reader.start()
            self._watching = asyncio.create_task(self._watch(), name="watch specialists")

    async def close(self) -> None:
        """Stops; a consultation under way gets PoolOverloaded."""
        executor, self._executor = self._executor, None
        jobs = [*self._loading.values(), *([self._watching] if self._watching else [])]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        await self._reader.close()
        await self._segmenters.close()
        await self._shelf.close()
        if executor is not None:
            await asyncio.to_thread(executor.shutdown)

    async def load(self, task: Task) -> LoadedPanel:
        """Makes a task's panel ready, or whoever an earlier attempt found missing.

        Where memory is short it is described only, and read when it is first consulted.
        """
        panel = self._shelf.use(task)
        if panel is None or panel.missing:
            await self._load_once(task, wanted=False)
        await self._find_segmenters(task)
        return next(panel for panel in self.loaded() if panel.task == task.name)

    async def load_segmenters(self, task: Task) -> LoadedPanel:
        """Makes a task's segmentation specialists ready, and nobody else."""
        await self._find_segmenters(task)
        return self._segmenters.described(LoadedPanel(task.name, (), ()), task)

    def loaded(self) -> tuple[LoadedPanel, ...]:
        """Every panel known so far, those first that are in memory."""
        panels = self._shelf.described()
        return tuple(self._segmenters.described(panel, task) for task, panel in panels)

    async def consult(self, pixels: Pixels, task: Task, hear: Hear = unheard) -> Consultation:
        """What every specialist of a task says of an image, (height, width, 3) uint8 RGB.

        `hear` is told of each prediction as it comes, in no particular order. Where the task has
        a segment, its segmentation specialists outline it meanwhile. Who is
        missing or fails is reported in `missing`. Raises PoolOverloaded where a queue of the panel
        is full or the pool is closed, ValueError on pixels of another shape.
        """
        panel = await self._panel(task)
        with panel.used():
            said = panel.consult(pixels, hear)
            return beside(*await asyncio.gather(said, self._segmenters.outline(pixels, task)))

    async def outline(self, pixels: Pixels, task: Task) -> Segmented:
        """What the segmentation specialists of a task outline, and nothing of the panel's."""
        return await self._segmenters.outline(pixels, task)

    async def explain(
        self, pixels: Pixels, task: Task, specialist: str, label: str | None = None
    ) -> Explanation:
        """Where one specialist of a task looked, for its most probable label unless told which.

        Raises UnknownBackbone, UnknownLabel, SpecialistUnavailable, PoolOverloaded, ValueError.
        """
        panel = await self._panel(task)
        chosen = panel.find(specialist)
        with chosen.used():
            whole = await self._whole(chosen, task)
            work = partial(gradcam.explain, whole, pixels, label)
            async with self._workers:
                return await asyncio.get_running_loop().run_in_executor(self._started(), work)

    async def _whole(self, member: Member, task: Task) -> Specialist:
        """A specialist that computes as a graph has its gradients on disk only."""
        if member.specialist.is_whole:
            return member.specialist
        try:
            return await self._reader.whole(task, member.specialist)
        except InvalidSpecialist as error:
            raise SpecialistUnavailable(str(error)) from error

    async def _find_segmenters(self, task: Task) -> None:
        work = partial(self._segmenters.find, task)
        await asyncio.get_running_loop().run_in_executor(self._started(), work)

    async def _panel(self, task: Task) -> Panel:
        """The panel, read first if need be; nothing is awaited between finding and giving it."""
        self._started()
        while (panel := self._shelf.use(task)) is None:
            await self._load_once(task, wanted=True)
        return panel

    async def _load_once(self, task: Task, *, wanted: bool) -> None:
        """Whoever asks meanwhile waits for the same loading, which outlives each of them."""
        loading = self._loading.get(task.name)
        if loading is None:
            work = self._load(task, wanted=wanted)
            loading = asyncio.create_task(work, name=f"load panel {task.name}")
            self._loading[task.name] = loading
            loading.add_done_callback(lambda _: self._loading.pop(task.name))
        try:
            await asyncio.shield(loading)
        except asyncio.CancelledError:
            if loading.cancelled():
                raise PoolOverloaded("the panel is closing") from None
            raise

    async def _load(self, task: Task, *, wanted: bool) -> None:
        """Reads what is new of a panel; one that nobody has asked yet makes no other go."""
        async with self._one_at_a_time:
            stamps = await self._reader.stamps(task)
            former = self._shelf.get(task.name)
            draft = Draft.of(task, former)
            new = draft.new(stamps)
            needed = await self._reader.expected_bytes(task, new)
            if wanted or former is not None:
                self._shelf.make_room(needed, spare=task.name)
            if wanted or former is not None or self._shelf.has_room(needed):
                await self._fill(draft, former, new, stamps)
            else:
                self._shelf.rest(await self._reader.described(task, stamps))

    async def _fill(
        self, draft: Draft, former: Panel | None, new: Sequence[str], stamps: Mapping[str, Stamp]
    ) -> None:
        """One specialist after another; where the panel answers already, each as it is ready."""
        for name in new:
            await self._read(draft, name, stamps[name])
            if former is not None and former.task == draft.task:
                self._shelf.put(draft.panel())
        self._shelf.put(draft.panel())

    async def _read(self, draft: Draft, name: str, stamp: Stamp) -> None:
        try:
            ready = await self._reader.read(draft.task, name)
        except InvalidSpecialist as error:
            draft.refuse(name, stamp, str(error))
            if name in draft.members:
                logger.warning("%s of %s is not replaced: %s", name, draft.task.name, error)
        else:
            draft.take(self._member(ready), ready.stamp)

    def _member(self, ready: Ready) -> Member:
        batcher = Batcher(
            ready.specialist.name,
            partial(answer, ready.specialist),
            executor=self._started(),
            workers=self._workers,
            queue_size=self._queue_size,
            max_batch=self._max_batch,
            told=self._told,
        )
        return Member(ready.specialist, batcher, ready.seconds)

    async def _watch(self) -> None:
        """Takes over what has changed on disk, once it has looked the same twice."""
        before: dict[str, Mapping[str, Stamp]] = {}
        while True:
            await asyncio.sleep(self._watch_seconds)
            self._shelf.trim()
            for task, taken in self._shelf.stamps():
                try:
                    now = await self._reader.stamps(task)
                    if now != taken and now == before.get(task.name):
                        await self._load_once(task, wanted=False)
                    before[task.name] = now
                except Exception:  # whatever is wrong with one task, the others are watched
                    logger.exception("specialists of %s are not watched", task.name)

    def _started(self) -> ThreadPoolExecutor:
        if self._executor is None:
            raise PoolOverloaded("the panel is not running")
        return self._executor
