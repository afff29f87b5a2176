"""Making indexes from stored vectors, and keeping them in step. Everything here blocks.

Every change writes a whole index beside the old one and swaps it in (`index_folder`): searches go
on with the old one meanwhile, and a crash at any moment leaves one of the two.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from retrieval import database, index_folder, typicality
from retrieval import index as vector_index
from retrieval.errors import IndexMismatch, IndexUnavailable, NoReferenceCases
from retrieval.index import EXACT_UP_TO, Index, Keys, Vectors
from retrieval.index_folder import Manifest

WORTH_REBUILDING = 0.2
"""An HNSW index with a larger share of removed keys than this is built again."""


def build(
    engine: Engine,
    indexes: Path,
    task: str,
    specialist: str,
    *,
    exact_up_to: int = EXACT_UP_TO,
) -> Manifest:
    """A new index of all stored vectors, of the encoder whose vectors were stored last.

    Raises NoReferenceCases where none are stored, IndexMismatch where their sizes differ or some
    are still of former weights; the old index stays then.
    """
    folder = index_folder.folder_of(indexes, task, specialist)
    with index_folder.writing(folder):
        return _build(engine, folder, exact_up_to)


def update(
    engine: Engine,
    indexes: Path,
    task: str,
    specialist: str,
    *,
    exact_up_to: int = EXACT_UP_TO,
) -> Manifest:
    """The index in step with the stored vectors: new ones added, removed ones dropped.

    Built anew only where that is needed: none yet, damaged, another encoder, grown beyond exact
    search, or many removed. Raises as `build` does.
    """
    folder = index_folder.folder_of(indexes, task, specialist)
    with index_folder.writing(folder):
        index = _current(engine, folder)
        wanted = _wanted(engine, task, specialist, index.encoder_sha256) if index else None
        if index is None or wanted is None or not _can_change(index, wanted, exact_up_to):
            return _build(engine, folder, exact_up_to)
        return _bring_in_step(engine, folder, index, wanted)


def forget(indexes: Path, task: str, keys: Sequence[int]) -> None:
    """Takes keys out of every index of a task; one that is damaged is left to be built again."""
    for file in sorted((indexes / task).glob(f"*/{index_folder.INDEX_FILE}")):
        with index_folder.writing(file.parent), contextlib.suppress(IndexUnavailable):
            index, _ = index_folder.read(file.parent)
            index.remove(np.array(keys, dtype=np.int64))
            index_folder.write(file.parent, index)


def _build(engine: Engine, folder: Path, exact_up_to: int) -> Manifest:
    task, specialist = folder.parent.name, folder.name
    encoder = database.latest_encoder(engine, task, specialist)
    if encoder is None:
        raise NoReferenceCases(f"no vectors of {specialist!r} are stored for task {task!r}")
    wanted = _wanted(engine, task, specialist, encoder)
    keys, vectors = _stored(engine, task, specialist, encoder, wanted)
    index = vector_index.build(task, specialist, encoder, keys, vectors, exact_up_to=exact_up_to)
    index.typical = typicality.spread(vector_index.unit(vectors))
    return index_folder.write(folder, index)


def _wanted(engine: Engine, task: str, specialist: str, encoder: str) -> Keys:
    """Keys of all cases to be indexed; an index that left out the outdated ones would hide them."""
    wanted = database.vector_keys(engine, task, specialist, encoder)
    if database.count_outdated(engine, task, specialist, encoder):
        cases = database.count_cases(engine)[task]
        raise IndexMismatch(
            f"{cases - len(wanted)} of {cases} reference cases of task {task!r} have no vector of "
            f"the present weights of {specialist!r}: ingest them again"
        )
    return wanted


def _current(engine: Engine, folder: Path) -> Index | None:
    """The index on disk, None where it is unusable or of an encoder since replaced."""
    try:
        index, _ = index_folder.read(folder)
    except IndexUnavailable:
        return None
    latest = database.latest_encoder(engine, folder.parent.name, folder.name)
    return index if index.encoder_sha256 == latest else None


def _can_change(index: Index, wanted: Keys, exact_up_to: int) -> bool:
    if index.exact:
        return len(wanted) <= exact_up_to
    stale = len(index.removed | index.keys.difference(wanted.tolist()))
    # The graph cannot take a removed key back in: it still holds it.
    return stale <= WORTH_REBUILDING * len(wanted) and index.removed.isdisjoint(wanted.tolist())


def _bring_in_step(engine: Engine, folder: Path, index: Index, wanted: Keys) -> Manifest:
    held = np.fromiter(index.keys, np.int64)
    index.remove(np.setdiff1d(held, wanted))
    missing = np.setdiff1d(wanted, held)
    if len(missing):
        index.add(*_stored(engine, index.task, index.specialist, index.encoder_sha256, missing))
    if len(wanted) and not index.typical.is_of(len(wanted)):
        _, all_vectors = _stored(engine, index.task, index.specialist, index.encoder_sha256, wanted)
        index.typical = typicality.spread(vector_index.unit(all_vectors))
    return index_folder.write(folder, index)


def _stored(
    engine: Engine, task: str, specialist: str, encoder: str, keys: Keys
) -> tuple[Keys, Vectors]:
    pairs = sorted(database.vectors(engine, task, specialist, encoder, keys), key=lambda p: p[0])
    if not pairs:
        raise NoReferenceCases(f"no vectors of {specialist!r} are stored for task {task!r}")
    if len({len(vector) for _, vector in pairs}) > 1:
        raise IndexMismatch(f"stored vectors of {specialist!r} on {task!r} have unequal sizes")
    return np.array([key for key, _ in pairs], np.int64), np.stack([vector for _, vector in pairs])
