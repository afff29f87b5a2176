"""Specialists from disk until they can answer, in a thread that no request waits for."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

from specialists import head, loader, memory, runtime
from specialists.catalogue import panel_of
from specialists.description import Resting, described
from specialists.errors import InvalidSpecialist, PoolOverloaded
from specialists.loader import Specialist
from specialists.stamps import Stamp, stamp, stamps
from specialists.task import Task
from specialists.threads import single_core_workers

GIVES_WAY = 10
T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A specialist that can answer, and how its folder looked before it was read."""

    specialist: Specialist
    stamp: Stamp
    seconds: float  # of one image


class Reader:
    """Reads one specialist after another; those with an equal trunk share it."""

    def __init__(self, folder: Path, device: str) -> None:
        self._folder, self._device = folder, device
        self._thread: ThreadPoolExecutor | None = None
        self._stop = threading.Event()
        self._sharing: dict[str, WeakSet[Specialist]] = {}  # by what they have in common

    async def start(self) -> None:
        self._stop.clear()
        work = partial(single_core_workers, 1, "specialist-reader", nice=GIVES_WAY)
        self._thread = await asyncio.to_thread(work)

    async def close(self) -> None:
        """What is being read is given up."""
        thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None:
            await asyncio.to_thread(thread.shutdown, cancel_futures=True)

    async def read(self, task: Task, name: str) -> Ready:
        """One specialist of a task; raises InvalidSpecialist, also where memory is short."""
        return await self._run(partial(self._read, task, name))

    async def whole(self, task: Task, specialist: Specialist) -> Specialist:
        """One with all its tensors, for heat maps; raises InvalidSpecialist."""
        folder = self._folder / task.name / specialist.name
        return await self._run(partial(runtime.whole, specialist, folder))

    async def stamps(self, task: Task) -> dict[str, Stamp]:
        """How the folders of a task's panel look now, by specialist."""
        work = partial(stamps, self._folder / task.name, panel_of(task))
        return await asyncio.to_thread(work)

    async def described(self, task: Task, stamps: dict[str, Stamp]) -> Resting:
        """What the manifests say of a task's panel, without any weights."""
        return Resting(task, stamps, await self._run(partial(described, self._folder, task)))

    async def expected_bytes(self, task: Task, names: tuple[str, ...]) -> int:
        """About the memory that some of a task's specialists would take, were they read now."""
        folders = [self._folder / task.name / name for name in names]
        return await self._run(partial(memory.expected, folders, self._trunks()))

    async def _run(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise PoolOverloaded("the panel is not running")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _read(self, task: Task, name: str) -> Ready:
        folder = self._folder / task.name / name
        seen = stamp(folder)
        try:
            specialist = self._shared(folder, task)
            return Ready(specialist, seen, runtime.rehearsed(specialist))
        except InvalidSpecialist:
            raise
        except Exception as error:  # whatever is wrong with one stops no other
            logger.exception("specialist %s of %s could not be loaded", name, task.name)
            kind = type(error).__name__
            raise InvalidSpecialist(f"specialist {name!r} could not be loaded: {kind}") from error

    def _shared(self, folder: Path, task: Task) -> Specialist:
        """Made fast, once for all that have the same trunk."""
        trunk = head.trunk_of(loader.read_manifest(folder))
        if trunk is None:
            return runtime.ready(folder, task, self._device, self._stop)
        sharing = self._sharing.setdefault(trunk, WeakSet())
        donor = next(iter(sharing), None)
        if donor is None:
            specialist = runtime.ready(folder, task, self._device, self._stop)
        else:
            specialist = head.load_beside(donor, folder, task, self._device)
        sharing.add(specialist)
        return specialist

    def _trunks(self) -> frozenset[str]:
        """What is in memory and could be shared."""
        return frozenset(trunk for trunk, sharing in self._sharing.items() if len(sharing))
