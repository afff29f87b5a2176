"""An index on disk: `<indexes>/<task>/<specialist>/index.faiss` and its `manifest.json`.

The manifest carries a sha256 over the index file, so the two files are never believed unless they
belong together. A write prepares both beside the old ones, then swaps them in one after the other.
A crash between the swaps leaves the prepared manifest behind, which fits the index file already in
place, and readers go on with that one. Any other mixture is reported, never searched.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.errors import IndexUnavailable
from retrieval.index import Index
from retrieval.typicality import Spread

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows: one writer at a time is up to the operator
    fcntl = None  # type: ignore[assignment]

INDEX_FILE = "index.faiss"
MANIFEST_FILE = "manifest.json"
PREPARED = ".prepared"
READ_ATTEMPTS = 5
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

Signature = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index file holds. `index_id` names this very state of it in a diagnosis."""

    task: str
    specialist: str
    encoder_sha256: str
    dim: int
    count: int
    exact: bool
    removed: tuple[int, ...]
    index_id: str
    created: str  # ISO 8601, UTC
    nearest: tuple[float, ...] = ()  # quantiles of the similarity to the nearest other case
    nearest_of: int = 0  # how many cases there were when they were taken


def folder_of(indexes: Path, task: str, specialist: str) -> Path:
    """Where an index lies; raises IndexUnavailable for names that are no folder names."""
    for name in (task, specialist):
        if not _NAME.fullmatch(name):
            raise IndexUnavailable(f"no index is called {name[:80]!r}")
    return indexes / task / specialist


def read(folder: Path) -> tuple[Index, Manifest]:
    """The index of a folder; raises IndexUnavailable with the reason in one sentence."""
    for _ in range(READ_ATTEMPTS):
        before = signature(folder)
        try:
            return _read(folder)
        except IndexUnavailable:
            # A writer may have swapped one of the files between our reading the two.
            if signature(folder) == before:
                raise
    return _read(folder)


def _read(folder: Path) -> tuple[Index, Manifest]:
    content = _content(folder)
    manifest = _fitting_manifest(folder, content)
    # Parsed only after its sha256 was found right: FAISS does not expect damaged files.
    index = Index(
        manifest.task,
        manifest.specialist,
        manifest.encoder_sha256,
        manifest.exact,
        faiss.deserialize_index(content),
        frozenset(manifest.removed),
        Spread(manifest.nearest, manifest.nearest_of),
    )
    return index, manifest


def _content(folder: Path) -> NDArray[np.uint8]:
    try:
        return np.frombuffer((folder / INDEX_FILE).read_bytes(), np.uint8)
    except FileNotFoundError:
        raise IndexUnavailable(f"no index of {_name(folder)} has been built") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise IndexUnavailable(f"the index of {_name(folder)} cannot be read: {reason}") from error


def write(folder: Path, index: Index) -> Manifest:
    """Puts an index in place of the former one. Hold `writing(folder)` meanwhile."""
    content = faiss.serialize_index(index.vectors)
    manifest = _manifest(index, content)
    _prepare(folder / INDEX_FILE, content.tobytes())
    _prepare(folder / MANIFEST_FILE, json.dumps(asdict(manifest), indent=2).encode())
    _swap(folder / INDEX_FILE)
    _swap(folder / MANIFEST_FILE)
    return manifest


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """One writer per folder at a time, over all processes; a crash frees the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("wb") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def signature(folder: Path) -> Signature | None:
    """Changes whenever the files do; None where no index has been built."""
    stats = tuple(_stat(folder / name) for name in (INDEX_FILE, MANIFEST_FILE))
    return stats if any(stats[0]) else None


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _fitting_manifest(folder: Path, content: NDArray[np.uint8]) -> Manifest:
    digest = _sha256(content)
    for name in (MANIFEST_FILE, MANIFEST_FILE + PREPARED):
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
            fields = json.loads((folder / name).read_bytes())
            lists = {name: tuple(fields.get(name, ())) for name in ("removed", "nearest")}
            manifest = Manifest(**fields | lists)
            if _is_of(manifest, folder) and manifest.index_id == _index_id(manifest, digest):
                return manifest
    raise IndexUnavailable(
        f"the index of {_name(folder)} is damaged or does not fit its manifest: build it again"
    )


def _is_of(manifest: Manifest, folder: Path) -> bool:
    return (manifest.task, manifest.specialist) == (folder.parent.name, folder.name)


def _manifest(index: Index, content: NDArray[np.uint8]) -> Manifest:
    unnamed = Manifest(
        index.task,
        index.specialist,
        index.encoder_sha256,
        index.dim,
        len(index),
        index.exact,
        tuple(sorted(index.removed)),
        index_id="",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        nearest=index.typical.quantiles,
        nearest_of=index.typical.count,
    )
    return replace(unnamed, index_id=_index_id(unnamed, _sha256(content)))


def _index_id(manifest: Manifest, content_sha256: str) -> str:
    """One name for all that decides a search: every field of the manifest, and the index file."""
    fields = asdict(replace(manifest, index_id=content_sha256))
    if not manifest.nearest:  # as indexes were named before there was typicality
        fields = {k: v for k, v in fields.items() if k not in {"nearest", "nearest_of"}}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _sha256(content: NDArray[np.uint8]) -> str:
    return hashlib.sha256(content.data).hexdigest()


def _prepare(path: Path, content: bytes) -> None:
    with path.with_name(path.name + PREPARED).open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _swap(path: Path) -> None:
    path.with_name(path.name + PREPARED).replace(path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _name(folder: Path) -> str:
    return f"{folder.name!r} on task {folder.parent.name!r}"
