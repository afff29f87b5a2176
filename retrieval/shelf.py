"""The indexes in memory: each read when first asked for, and again when its files change."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from retrieval import index_folder
from retrieval.errors import IndexUnavailable
from retrieval.index import Index
from retrieval.index_folder import Manifest, Signature


@dataclass(slots=True)
class _Place:
    """One folder's index as last read, or why it could not be."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    signature: Signature | None = None
    content: tuple[Index, Manifest] | IndexUnavailable = field(
        default_factory=lambda: IndexUnavailable("not read yet")
    )


class Shelf:
    """Indexes by task and specialist, for many threads at once."""

    def __init__(self, indexes: Path) -> None:
        self._indexes = indexes
        self._places: dict[Path, _Place] = {}

    def get(self, task: str, specialist: str) -> tuple[Index, Manifest]:
        """The index as it lies on disk now, for two stats when unchanged; raises IndexUnavailable.

        A damaged index is remembered as damaged, not read again for every request.
        """
        folder = index_folder.folder_of(self._indexes, task, specialist)
        signature = index_folder.signature(folder)
        if signature is None:
            return index_folder.read(folder)  # raises; nothing to remember
        place = self._places.setdefault(folder, _Place())
        with place.lock:
            if place.signature != signature:
                place.content, place.signature = _read(folder), signature
            return _usable(place.content)


def _read(folder: Path) -> tuple[Index, Manifest] | IndexUnavailable:
    try:
        return index_folder.read(folder)
    except IndexUnavailable as error:
        return error


def _usable(content: tuple[Index, Manifest] | IndexUnavailable) -> tuple[Index, Manifest]:
    if isinstance(content, IndexUnavailable):
        raise IndexUnavailable(str(content)) from content
    return content
