"""The indexes in memory: each read when first asked for, and again when its files change."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from retrieval import index_folder
from retrieval.errors import IndexUnavailable
from retrieval.index import Index
from retrieval.index_folder import Read, Signature
from retrieval.manifest import Manifest


@dataclass(slots=True)
class _Place:
    """One folder's index as last read, or why it could not be."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    signature: Signature | None = None
    content: Read | IndexUnavailable | None = None


class Shelf:
    """Indexes by task and specialist, for many threads at once."""

    def __init__(self, indexes: Path) -> None:
        self._indexes = indexes
        self._places: dict[Path, _Place] = {}

    def get(self, task: str, specialist: str) -> tuple[Index, Manifest]:
        """The index as it lies on disk now, for a few stats when unchanged.

        While one thread reads a new index the others go on with the old one. A damaged index is
        remembered as damaged, not read again for every request. Raises IndexUnavailable.
        """
        folder = index_folder.folder_of(self._indexes, task, specialist)
        signature = index_folder.signature(folder)
        if signature is None:
            index_folder.read(folder)  # raises; nothing to remember
        place = self._places.setdefault(folder, _Place())
        if place.signature != signature:
            _renew(place, folder, signature)
        return _usable(place.content)


def _renew(place: _Place, folder: Path, signature: Signature | None) -> None:
    """Reads the index unless another thread is at it and there is an old one meanwhile."""
    waits = not isinstance(place.content, Read)
    if not place.lock.acquire(blocking=waits):
        return
    try:
        if place.signature != signature:
            place.content, place.signature = _read(folder, place.content), signature
    finally:
        place.lock.release()


def _read(folder: Path, former: Read | IndexUnavailable | None) -> Read | IndexUnavailable:
    try:
        return index_folder.read(folder, former.main if isinstance(former, Read) else None)
    except IndexUnavailable as error:
        return error


def _usable(content: Read | IndexUnavailable | None) -> tuple[Index, Manifest]:
    if isinstance(content, Read):
        return content.index, content.manifest
    raise IndexUnavailable(str(content)) from content
