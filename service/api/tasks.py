"""The tasks of the home folder, while files are added, changed and removed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from specialists import task as tasks
from specialists.errors import InvalidTask, UnknownTask
from specialists.task import Task

Stamp = tuple[tuple[str, int, int], ...]  # name, nanoseconds of the last change, bytes

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the folder held when it was last read; `broken` gives reasons by file."""

    stamp: Stamp = ()
    tasks: dict[str, Task] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


class TaskFolder:
    """Tasks by name, read again when a file changed; new ones are loaded in the background.

    A broken file is left out and logged, and stops no other task. `load` makes a task's
    specialists ready; it is called for one task at a time.
    """

    def __init__(self, folder: Path, load: Callable[[Task], Awaitable[object]]) -> None:
        self._folder = folder
        self._load = load
        self._shelf = Shelf()
        self._reading = asyncio.Lock()
        self._one_at_a_time = asyncio.Lock()
        self._loading: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Reads the folder and begins to load; does not wait for the loading."""
        await self.all()

    async def close(self) -> None:
        """Gives up what is still being loaded."""
        loading = list(self._loading.values())
        for job in loading:
            job.cancel()
        await asyncio.gather(*loading, return_exceptions=True)

    @property
    def loading(self) -> frozenset[str]:
        """Names of the tasks whose specialists are not ready yet."""
        return frozenset(name for name, job in self._loading.items() if not job.done())

    @property
    def broken(self) -> dict[str, str]:
        """Files that hold no usable task, with the reason."""
        return self._shelf.broken

    async def all(self) -> dict[str, Task]:
        """Every task by name, in the order of their files."""
        async with self._reading:
            if await asyncio.to_thread(_stamp, self._folder) != self._shelf.stamp:
                self._take(await asyncio.to_thread(_read, self._folder))
        return self._shelf.tasks

    async def find(self, name: str) -> Task:
        """One task; raises UnknownTask with the names that there are."""
        known = await self.all()
        if name not in known:
            names = ", ".join(known) or "none yet"
            raise UnknownTask(f"unknown task {name[:80]!r}; known tasks: {names}")
        return known[name]

    async def loaded(self) -> None:
        """Returns when everything that is being loaded now has been."""
        await asyncio.gather(*self._loading.values(), return_exceptions=True)

    def _take(self, shelf: Shelf) -> None:
        old, self._shelf = self._shelf.tasks, shelf
        for file, reason in shelf.broken.items():
            log.warning("broken task file", task_file=file, reason=reason)
        for name, task in shelf.tasks.items():
            if old.get(name) != task:
                self._begin_loading(task)

    def _begin_loading(self, task: Task) -> None:
        previous = self._loading.get(task.name)
        if previous is not None:
            previous.cancel()
        self._loading[task.name] = asyncio.create_task(self._load_quietly(task))

    async def _load_quietly(self, task: Task) -> None:
        async with self._one_at_a_time:
            try:
                await self._load(task)
            except Exception:  # one task's specialists must not stop the others'
                log.exception("specialists not loaded", task=task.name)
            else:
                log.info("specialists loaded", task=task.name)


def _stamp(folder: Path) -> Stamp:
    return tuple(state for path in sorted(folder.glob("*.toml")) for state in _state(path))


def _state(path: Path) -> Iterator[tuple[str, int, int]]:
    with suppress(FileNotFoundError):  # removed since it was listed
        state = path.stat()
        yield path.name, state.st_mtime_ns, state.st_size


def _read(folder: Path) -> Shelf:
    shelf = Shelf(_stamp(folder))
    for path in sorted(folder.glob("*.toml")):
        try:
            task = tasks.read(path)
        except (InvalidTask, UnknownTask, OSError) as error:
            shelf.broken[path.name] = str(error).removeprefix(f"task file {path.name!r}: ")
            continue
        if task.name in shelf.tasks:
            shelf.broken[path.name] = f"task {task.name!r} is in another file too"
        shelf.tasks.setdefault(task.name, task)
    return shelf
