"""Checking every index against the reference cases in the database. Everything here blocks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from retrieval import database, index_folder, making
from retrieval.errors import IndexUnavailable
from retrieval.index import Index, Selection
from retrieval.kinds import RULES
from retrieval.manifest import Manifest
from retrieval.neighbour import Query, Vector
from retrieval.vectors import Keys, Nearest, Vectors

LOOKED_UP = 50  # cases whose vector in the index is compared with the stored one
ASKED = 200  # cases that recall is measured with
LENGTH_TOLERANCE = 1e-3
SAME = 0.99
PIECE = 5_000
_NOBODY = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found of one specialist's index of a task; without problems it is sound.

    `recall` is the share of the ten nearest cases it finds for cases of the database, None where
    it could not be measured.
    """

    task: str
    specialist: str
    cases: int
    stored: int
    indexed: int
    kind: str
    recall: float | None
    problems: tuple[str, ...]


def verify(engine: Engine, indexes: Path, task: str | None = None) -> Iterator[Verified]:
    """Every specialist that has stored vectors or an index, of one task or of all."""
    counts = database.count_cases(engine)
    stored = {(one.task, one.specialist) for one in database.stored_vectors(engine)}
    built = {
        (file.parent.parent.name, file.parent.name)
        for file in indexes.glob(f"*/*/{index_folder.MANIFEST_FILE}")
    }
    for owner, specialist in sorted(stored | built):
        if task in {None, owner}:
            yield _verified(engine, indexes, owner, specialist, counts.get(owner, 0))


def _verified(engine: Engine, indexes: Path, task: str, specialist: str, cases: int) -> Verified:
    encoder = database.latest_encoder(engine, task, specialist)
    if encoder is None:
        problem = "there is an index, but no vectors are stored: delete its folder"
        return Verified(task, specialist, cases, 0, 0, "", None, (problem,))
    rows = _Rows(engine, task, specialist, encoder)
    problems = [*_coverage(rows, cases)]
    try:
        current = index_folder.read(index_folder.folder_of(indexes, task, specialist))
    except IndexUnavailable as error:
        read = _read(rows, None)
        problems += [str(error), *read.problems]
        return Verified(task, specialist, cases, read.count, 0, "", None, tuple(problems))
    index, manifest = current.index, current.manifest
    read = _read(rows, index)
    problems += [*read.problems, *_held(index, manifest, read)]
    recall = None
    if manifest.encoder_sha256 != encoder:
        problems.append(
            f"the index holds vectors of encoder {manifest.encoder_sha256[:12]}, the stored ones "
            f"are of {encoder[:12]}"
        )
    elif read.near is not None and read.count:
        recall = making.recall(index, read.near.queries, read.near.keys)
        problems += [*_differences(index, read), *_shortfall(recall)]
    return Verified(
        task, specialist, cases, read.count, len(index), manifest.kind, recall, tuple(problems)
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """The stored vectors of the encoder in use."""

    engine: Engine
    task: str
    specialist: str
    encoder: str

    def all(self) -> Iterator[tuple[int, bytes]]:
        return database.all_vectors(self.engine, self.task, self.specialist, self.encoder)

    def some(self, keys: Keys) -> list[tuple[int, Vector]]:
        found = database.vectors(self.engine, self.task, self.specialist, self.encoder, keys)
        return sorted(found, key=lambda pair: pair[0])


@dataclass(slots=True)
class _Read:
    """What one pass over the stored vectors tells."""

    keys: list[int] = field(default_factory=list)
    wrong_size: int = 0
    wrong_length: int = 0
    sample: list[tuple[int, Vector]] = field(default_factory=list)
    near: Nearest | None = None

    @property
    def count(self) -> int:
        return len(self.keys)

    @property
    def problems(self) -> Iterator[str]:
        if self.wrong_size:
            yield f"{_many(self.wrong_size, 'stored vector')} of another size: ingest again"
        if self.wrong_length:
            yield f"{_many(self.wrong_length, 'stored vector')} not of unit length: ingest again"


def _coverage(rows: _Rows, cases: int) -> Iterator[str]:
    outdated = database.count_outdated(rows.engine, rows.task, rows.specialist, rows.encoder)
    stored = database.count_vectors(rows.engine, rows.task, rows.specialist, rows.encoder)
    if outdated:
        yield f"{_many(outdated, 'case')} embedded by former weights: ingest again"
    if lacking := cases - stored - outdated:
        yield f"{_many(lacking, 'case')} without a vector: ingest again"


def _read(rows: _Rows, index: Index | None) -> _Read:
    """One pass over all stored vectors; with an index also what it should find."""
    keys = database.vector_keys(rows.engine, rows.task, rows.specialist, rows.encoder)
    read, size = _Read(), 0
    if index is not None and len(keys):
        places = np.linspace(0, len(keys) - 1, min(len(keys), ASKED)).astype(int)
        size = index.dim
        read.sample = [
            (key, vector) for key, vector in rows.some(keys[places]) if _is_sound(vector, size)
        ]
        if read.sample:
            read.near = Nearest.of(np.stack([v for _, v in read.sample]), making.NEAREST)
    for some in _pieces(rows.all()):
        _see(read, some, size)
    return read


def _see(read: _Read, some: list[tuple[int, bytes]], size: int) -> None:
    size = size or len(some[0][1]) // 4
    read.keys += [key for key, _ in some]
    whole = [(key, stored) for key, stored in some if len(stored) == 4 * size]
    read.wrong_size += len(some) - len(whole)
    if not whole:
        return
    vectors = np.stack([database.unpacked(stored) for _, stored in whole])
    sound = _are_unit(vectors)
    read.wrong_length += int((~sound).sum())
    if read.near is not None and sound.any():
        read.near.see(np.array([key for key, _ in whole], np.int64)[sound], vectors[sound])


def _held(index: Index, manifest: Manifest, read: _Read) -> Iterator[str]:
    stored, held = np.array(sorted(read.keys), np.int64), index.keys
    if missing := len(np.setdiff1d(stored, held)):
        yield f"{_many(missing, 'stored case')} missing from the index"
    if unknown := len(np.setdiff1d(held, stored)):
        yield f"{_many(unknown, 'case')} in the index but not in the database"
    if manifest.count != len(held):
        yield f"the manifest tells of {manifest.count} vectors, the files hold {len(held)}"


def _differences(index: Index, read: _Read) -> Iterator[str]:
    """Whether the index places some cases where the database does."""
    held = set(index.keys.tolist())
    sample = [(key, vector) for key, vector in read.sample[:: ASKED // LOOKED_UP] if key in held]
    moved = sum(not _is_there(index, key, vector) for key, vector in sample)
    if moved:
        yield f"{moved} of {len(sample)} vectors looked up differ from the stored ones"


def _is_there(index: Index, key: int, vector: Vector) -> bool:
    query = Query(index.specialist, index.encoder_sha256, vector)
    found = index.search(query, 1, _NOBODY, Selection(np.array([key], np.int64)))
    return bool(found.similarities) and found.similarities[0] >= SAME


def _shortfall(recall: float) -> Iterator[str]:
    if recall < RULES.floor:
        yield f"it finds {recall:.1%} of the ten nearest, less than the {RULES.floor:.0%} wanted"


def _is_sound(vector: Vector, size: int) -> bool:
    return len(vector) == size and bool(_are_unit(vector[None, :])[0])


def _are_unit(vectors: Vectors) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    with np.errstate(invalid="ignore", over="ignore"):
        lengths = np.linalg.norm(vectors, axis=1)
        return np.asarray(np.abs(lengths - 1) <= LENGTH_TOLERANCE)


def _pieces(rows: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    piece: list[tuple[int, bytes]] = []
    for row in rows:
        piece.append(row)
        if len(piece) == PIECE:
            yield piece
            piece = []
    if piece:
        yield piece


def _many(count: int, thing: str) -> str:
    return f"1 {thing} is" if count == 1 else f"{count} {thing}s are"
