"""Segmentation specialists in memory: each read when first asked for, again when it changes."""

import threading
from dataclasses import dataclass
from pathlib import Path

from specialists.errors import InvalidSpecialist
from specialists.loader import MANIFEST, WEIGHTS
from specialists.segmentation import network
from specialists.segmentation.network import Segmenter
from specialists.task import Task

Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """What a folder held when it looked like `stamp`, for a task as it was then."""

    task: Task
    stamp: Stamp
    content: Segmenter | InvalidSpecialist


class Shelf:
    """Specialists by task and model, for many threads at once.

    Replaced in the folder, a specialist is read anew; whoever has the old one finishes with it.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self._folder, self._device = folder, device
        self._places: dict[tuple[str, str], _Place] = {}
        self._lock = threading.Lock()

    def get(self, task: Task, key: str) -> Segmenter:
        """The specialist as it is on disk now; raises InvalidSpecialist, each time."""
        folder = self._folder / task.name / key
        stamp = tuple(_stamp(folder / name) for name in (MANIFEST, WEIGHTS))
        with self._lock:
            place = self._places.get((task.name, key))
            if place is None or (place.stamp, place.task) != (stamp, task):
                place = _Place(task, stamp, self._read(folder, task))
                self._places[task.name, key] = place
        if isinstance(place.content, InvalidSpecialist):
            raise InvalidSpecialist(str(place.content)) from place.content
        return place.content

    def _read(self, folder: Path, task: Task) -> Segmenter | InvalidSpecialist:
        try:
            return network.load(folder, task, self._device)
        except InvalidSpecialist as error:
            return error


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
