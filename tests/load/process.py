"""A process and its children, watched through /proc: processor time and memory."""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Look:
    """What a process and its children used until a moment: seconds of processor, bytes of RSS."""

    at: float
    processor_seconds: float
    memory_bytes: int


def look(process_id: int, at: float) -> Look:
    """Raises OSError when the process is gone; a child that goes meanwhile is left out."""
    own = _used(process_id)
    others = [used for child in descendants(process_id) if (used := _if_there(child))]
    seconds, memory = (sum(column) for column in zip(own, *others, strict=True))
    return Look(at, seconds, int(memory))


def processor_seconds(*process_ids: int) -> float:
    return sum(_used(process_id)[0] for process_id in process_ids)


def descendants(process_id: int) -> Iterator[int]:
    for children in Path(f"/proc/{process_id}/task").glob("*/children"):
        for child in map(int, _read(children).split()):
            yield child
            yield from descendants(child)


async def watch(process_id: int, every_seconds: float = 1.0) -> list[Look]:
    """Looks until it is cancelled, and then returns all of them; OSError where it is gone."""
    clock = asyncio.get_running_loop().time
    looks = [look(process_id, clock())]
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(every_seconds)
            looks.append(look(process_id, clock()))
    return [*looks, look(process_id, clock())]


async def watched(work: Coroutine[Any, Any, T], process_id: int | None) -> tuple[T, list[Look]]:
    """The work done, and how the process looked meanwhile, from its beginning to its end."""
    if process_id is None:
        return await work, []
    watching = asyncio.create_task(watch(process_id))
    done = await work
    watching.cancel()
    return done, await watching


def _if_there(process_id: int) -> tuple[float, int] | None:
    try:
        return _used(process_id)
    except OSError:
        return None


def _used(process_id: int) -> tuple[float, int]:
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS, int(fields[21]) * PAGE


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
