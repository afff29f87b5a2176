"""An index on disk: `<indexes>/<task>/<specialist>/manifest.json` and the files it names.

The files are named after their content and never changed. Publishing writes the new ones, makes
them durable, and then swaps in one file, the manifest: before that moment readers find the old
index, afterwards the new one, and a crash or a full disk at any time leaves one of the two. Files
that no manifest names are deleted by the next writer. Readers check every file's sha256 before
FAISS sees it: FAISS does not expect damaged files.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from re import compile as pattern
from typing import Any, BinaryIO

import faiss

from retrieval import former_layout
from retrieval.errors import CannotPublish, IndexUnavailable
from retrieval.index import Index, Recall
from retrieval.kinds import KINDS
from retrieval.manifest import Manifest, Part, describe, parse, to_json
from retrieval.typicality import Spread

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows: one writer at a time is up to the operator
    fcntl = None  # type: ignore[assignment]

MANIFEST_FILE = "manifest.json"
PREPARED = ".prepared"
CHECKED_FILE = ".checked"  # which main part a writer has found to have the right sha256
READ_ATTEMPTS = 5
PIECE = 1 << 20
_NAME = pattern(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

Stat = tuple[int, int, int]
Signature = tuple[tuple[str, Stat], ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """A part as it was read, so that one that has not changed need not be read again."""

    part: Part
    stat: Stat
    vectors: Any


@dataclass(frozen=True, slots=True)
class Read:
    """An index, what its manifest says, and the part that may serve again."""

    index: Index
    manifest: Manifest
    main: Opened


def folder_of(indexes: Path, task: str, specialist: str) -> Path:
    """Where an index lies; raises IndexUnavailable for names that are no folder names."""
    for name in (task, specialist):
        if not _NAME.fullmatch(name):
            raise IndexUnavailable(f"no index is called {name[:80]!r}")
    return indexes / task / specialist


def read(folder: Path, former: Opened | None = None) -> Read:
    """The index of a folder; raises IndexUnavailable with the reason in one sentence.

    `former` is the main part as last read. Inverted lists are mapped from disk, not loaded.
    """
    for _ in range(READ_ATTEMPTS):
        before = signature(folder)
        try:
            return _read(folder, former)
        except IndexUnavailable:
            # A writer may have deleted a file between our reading its name and opening it.
            if signature(folder) == before:
                raise
    return _read(folder, former)


def read_to_change(folder: Path) -> Read:
    """`read` for a writer that leaves the main part as it is, and so need not check it each time.

    Hold `writing(folder)` meanwhile.
    """
    with contextlib.suppress(OSError, ValueError, IndexUnavailable):
        manifest = _manifest(folder)
        path = folder / manifest.main.file
        if (folder / CHECKED_FILE).read_text("utf-8") == _checked(path):
            return _read(folder, Opened(manifest.main, _stat(path), _mapped(path)))
    current = read(folder)
    with contextlib.suppress(OSError):
        (folder / CHECKED_FILE).write_text(_checked(folder / current.manifest.main.file), "utf-8")
    return current


def load_main(folder: Path, manifest: Manifest) -> Any:
    """The main part in memory, to be changed: FAISS ends the process that changes a mapped one."""
    path = folder / manifest.main.file
    if _sha256(path) != manifest.main.sha256:
        raise _damaged(folder)
    return _parsed(path, 0)


def write(folder: Path, index: Index, main: Part | None = None) -> Manifest:
    """Puts an index in place of the former one. Hold `writing(folder)` meanwhile.

    `main` is the main part where it lies in the folder already. Raises CannotPublish, for a full
    disk or whatever else the system refuses; the former index stays.
    """
    try:
        return _published(folder, index, main)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CannotPublish(
            f"the index of {_name(folder)} cannot be written: {reason}; the former one stays"
        ) from error
    finally:
        with contextlib.suppress(OSError, IndexUnavailable):
            _clear(folder)


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
    names = (MANIFEST_FILE, *(path.name for path in folder.glob("*.faiss")))
    stats = tuple((name, _stat(folder / name)) for name in sorted(names))
    return stats if any(any(stat) for _, stat in stats) else None


def _stat(path: Path) -> Stat:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _read(folder: Path, former: Opened | None) -> Read:
    manifest = _manifest(folder)
    main = _opened(folder, manifest.main, former)
    index = Index(
        manifest.task,
        manifest.specialist,
        manifest.encoder_sha256,
        KINDS[manifest.kind],
        main.vectors,
        manifest.probes,
        Recall(manifest.recall, manifest.recall_queries, manifest.recall_of),
        _opened(folder, manifest.recent, None).vectors if manifest.recent else None,
        frozenset(manifest.removed),
        Spread(manifest.nearest, manifest.nearest_of),
    )
    return Read(index, manifest, main)


def _manifest(folder: Path) -> Manifest:
    former = folder / former_layout.FILE
    try:
        content = (folder / MANIFEST_FILE).read_bytes()
    except FileNotFoundError:
        if former.exists():
            raise _damaged(folder) from None
        raise IndexUnavailable(f"no index of {_name(folder)} has been built") from None
    except OSError as error:
        raise _unreadable(folder, error) from error
    try:
        manifest = parse(content)
    except ValueError as error:
        if not former.exists():
            raise _damaged(folder) from error
        manifest = _former_manifest(folder, content)
    if (manifest.task, manifest.specialist) != (folder.parent.name, folder.name):
        raise _damaged(folder)
    return manifest


def _former_manifest(folder: Path, content: bytes) -> Manifest:
    try:
        return former_layout.parse(content, _sha256(folder / former_layout.FILE))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise IndexUnavailable(
            f"the index of {_name(folder)} is damaged, or a graph of an earlier version: "
            "build it again"
        ) from error


def _opened(folder: Path, part: Part, former: Opened | None) -> Opened:
    path = folder / part.file
    stat = _stat(path)
    if former is not None and (former.part, former.stat) == (part, stat):
        return former
    try:
        found = _sha256(path)
    except FileNotFoundError as error:
        raise _damaged(folder) from error
    except OSError as error:
        raise _unreadable(folder, error) from error
    if found != part.sha256:
        raise _damaged(folder)
    return Opened(part, stat, _mapped(path))


def _checked(path: Path) -> str:
    """The name of a file's state: whoever changes the file changes it."""
    return f"{path.name} {_stat(path)}"


def _mapped(path: Path) -> Any:
    return _parsed(path, faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parsed(path: Path, flags: int) -> Any:
    try:
        vectors = faiss.read_index(str(path), flags)
    except RuntimeError as error:
        raise IndexUnavailable(f"FAISS refuses {path.name!r}: {str(error)[:200]}") from error
    if isinstance(vectors, faiss.IndexIVF):
        lists: Any = faiss.downcast_InvertedLists(vectors.invlists)  # type: ignore[arg-type]
        if isinstance(lists, faiss.OnDiskInvertedLists):
            lists.prefetch_nthread = 0  # it would start 32 threads for every search
    return vectors


def _published(folder: Path, index: Index, main: Part | None) -> Manifest:
    main = main or _stored(folder, "main", index.main)
    recent = _stored(folder, "recent", index.recent) if index.recent.ntotal else None
    manifest = describe(index, main, recent)
    prepared = folder / (MANIFEST_FILE + PREPARED)
    _make_durable(prepared, lambda file: file.write(to_json(manifest)))
    _sync(folder)  # the files' names, before the manifest that tells of them
    prepared.replace(folder / MANIFEST_FILE)
    _sync(folder)
    return manifest


def _stored(folder: Path, role: str, vectors: Any) -> Part:
    """The file of a part, hashed while it is written; a name is given when its content is whole."""
    digest = hashlib.sha256()

    def write(file: BinaryIO) -> None:
        def piece(content: bytes) -> int:
            digest.update(content)
            return file.write(content)

        writer = faiss.PyCallbackIOWriter(piece, PIECE)  # type: ignore[attr-defined]
        faiss.write_index(vectors, writer)

    prepared = folder / f"{role}.faiss{PREPARED}"
    _make_durable(prepared, write)
    sha256 = digest.hexdigest()
    name = f"{role}-{sha256[:16]}.faiss"
    prepared.replace(folder / name)
    return Part(name, sha256, int(vectors.ntotal))


def _make_durable(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _clear(folder: Path) -> None:
    """Deletes what no manifest names; readers that have such a file open keep it."""
    for path in folder.glob(f"*{PREPARED}"):
        path.unlink(missing_ok=True)
    kept = _manifest(folder).files
    for path in folder.glob("*.faiss"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def _damaged(folder: Path) -> IndexUnavailable:
    return IndexUnavailable(
        f"the index of {_name(folder)} is damaged or does not fit its manifest: build it again"
    )


def _unreadable(folder: Path, error: OSError) -> IndexUnavailable:
    reason = error.strerror or type(error).__name__
    return IndexUnavailable(f"the index of {_name(folder)} cannot be read: {reason}")


def _name(folder: Path) -> str:
    return f"{folder.name!r} on task {folder.parent.name!r}"
