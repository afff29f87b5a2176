"""Making indexes from stored vectors, and keeping them in step. Everything here blocks.

Every change is written beside the old index and swapped in (`index_folder`): searches go on with
the old one meanwhile, and a crash at any moment leaves one of the two. A change of a few cases
writes only the part that holds the latest ones.
"""

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from retrieval import database, index_folder, making, typicality
from retrieval.errors import IndexMismatch, IndexUnavailable, NoReferenceCases
from retrieval.index_folder import Read
from retrieval.kinds import RULES, Rules
from retrieval.manifest import Manifest
from retrieval.neighbour import Vector
from retrieval.vectors import Keys, Vectors, unit


@dataclass(frozen=True, slots=True)
class _Source:
    """The stored vectors of one specialist, and where their index lies."""

    engine: Engine
    folder: Path
    rules: Rules

    @property
    def task(self) -> str:
        return self.folder.parent.name

    @property
    def specialist(self) -> str:
        return self.folder.name

    def encoder(self) -> str | None:
        return database.latest_encoder(self.engine, self.task, self.specialist)


def build(
    engine: Engine,
    indexes: Path,
    task: str,
    specialist: str,
    rules: Rules = RULES,
) -> Manifest:
    """A new index of all stored vectors, of the encoder whose vectors were stored last.

    Raises NoReferenceCases where none are stored, IndexMismatch where their sizes differ or some
    are still of former weights, CannotPublish; the old index stays then.
    """
    source = _source(engine, indexes, task, specialist, rules)
    with index_folder.writing(source.folder):
        return _build(source)


def update(
    engine: Engine,
    indexes: Path,
    task: str,
    specialist: str,
    rules: Rules = RULES,
) -> Manifest:
    """The index in step with the stored vectors: new ones added, removed ones dropped.

    Built anew only where that is needed: none yet, damaged, another encoder, grown beyond exact
    search or far beyond its lists. Raises as `build` does.
    """
    source = _source(engine, indexes, task, specialist, rules)
    with index_folder.writing(source.folder):
        current = _current(source)
        if current is None:
            return _build(source)
        encoder = current.index.encoder_sha256
        _check_weights(source, encoder)
        wanted = database.vector_keys(engine, task, specialist, encoder)
        held = current.index.keys
        added = np.setdiff1d(wanted, held)
        found = dict(database.vectors(engine, task, specialist, encoder, added))
        return _changed(source, current, found, np.setdiff1d(held, wanted))


def put(
    engine: Engine,
    indexes: Path,
    task: str,
    specialist: str,
    case_ids: Sequence[str],
    rules: Rules = RULES,
) -> Manifest:
    """The index with these cases in it, at a cost that does not grow with all the others.

    Their stored vectors replace what it holds of them. Raises as `build` does.
    """
    source = _source(engine, indexes, task, specialist, rules)
    with index_folder.writing(source.folder), contextlib.suppress(IndexUnavailable):
        current = index_folder.read_to_change(source.folder)
        keys = database.keys_of(engine, task, case_ids)
        known = database.vectors(engine, task, specialist, current.index.encoder_sha256, keys)
        found = dict(known)
        if found and len(found) == len(case_ids):
            return _changed(source, current, found, keys)
    return update(engine, indexes, task, specialist, rules)


def forget(indexes: Path, task: str, keys: Sequence[int]) -> None:
    """Takes keys out of every index of a task; one that is damaged is left to be built again."""
    for file in sorted((indexes / task).glob(f"*/{index_folder.MANIFEST_FILE}")):
        with index_folder.writing(file.parent), contextlib.suppress(IndexUnavailable):
            current = index_folder.read_to_change(file.parent)
            current.index.remove(np.array(keys, dtype=np.int64))
            _publish(file.parent, current)


def _source(engine: Engine, indexes: Path, task: str, specialist: str, rules: Rules) -> _Source:
    return _Source(engine, index_folder.folder_of(indexes, task, specialist), rules)


def _build(source: _Source) -> Manifest:
    encoder = source.encoder()
    if encoder is None:
        raise _nothing_stored(source)
    _check_weights(source, encoder)
    keys, vectors = _all_stored(source, encoder)
    index = making.build(source.task, source.specialist, encoder, keys, vectors, source.rules)
    index.typical = typicality.spread(vectors)
    return index_folder.write(source.folder, index)


def _check_weights(source: _Source, encoder: str) -> None:
    """An index that left out the cases embedded by former weights would hide them."""
    task, specialist = source.task, source.specialist
    if database.count_outdated(source.engine, task, specialist, encoder):
        cases = database.count_cases(source.engine)[task]
        present = database.count_vectors(source.engine, task, specialist, encoder)
        raise IndexMismatch(
            f"{cases - present} of {cases} reference cases of task {task!r} have no vector of "
            f"the present weights of {specialist!r}: ingest them again"
        )


def _current(source: _Source) -> Read | None:
    """The index on disk, None where it is unusable or of an encoder since replaced."""
    try:
        current = index_folder.read(source.folder)
    except IndexUnavailable:
        return None
    return current if current.index.encoder_sha256 == source.encoder() else None


def _changed(source: _Source, current: Read, added: dict[int, Vector], removed: Keys) -> Manifest:
    """The index without `removed` and then with `added`, or a new one where it outgrows itself."""
    index = current.index
    index.remove(removed)
    if added:
        index.add(*_stacked(source, added))
    if index.is_outgrown or (index.exact and len(index) > source.rules.exact_up_to):
        return _build(source)
    if len(index) and not index.typical.is_of(len(index)):
        _, vectors = _all_stored(source, index.encoder_sha256)
        index.typical = typicality.spread(vectors)
    return _publish(source.folder, current)


def _publish(folder: Path, current: Read) -> Manifest:
    """Writes what changed: nearly always the small part alone."""
    if not current.index.is_full:
        return index_folder.write(folder, current.index, current.manifest.main)
    main = index_folder.load_main(folder, current.manifest)
    return index_folder.write(folder, current.index.merged(main))


def _stacked(source: _Source, found: dict[int, Vector]) -> tuple[Keys, Vectors]:
    if len({len(vector) for vector in found.values()}) > 1:
        raise _unequal(source)
    keys = sorted(found)
    return np.array(keys, np.int64), np.stack([found[key] for key in keys])


def _all_stored(source: _Source, encoder: str) -> tuple[Keys, Vectors]:
    """All vectors of an encoder, in one array from the start: there may be gigabytes."""
    task, specialist = source.task, source.specialist
    count = database.count_vectors(source.engine, task, specialist, encoder)
    keys, vectors = np.empty(count, np.int64), np.empty((0, 0), np.float32)
    place = -1
    for place, (key, stored) in enumerate(
        itertools.islice(database.all_vectors(source.engine, task, specialist, encoder), count)
    ):
        vector = database.unpacked(stored)
        vectors = vectors if place else np.empty((count, len(vector)), np.float32)
        if len(vector) != vectors.shape[1]:
            raise _unequal(source)
        keys[place], vectors[place] = key, vector
    if place < 0:
        raise _nothing_stored(source)
    return keys[: place + 1], unit(vectors[: place + 1])


def _nothing_stored(source: _Source) -> NoReferenceCases:
    return NoReferenceCases(
        f"no vectors of {source.specialist!r} are stored for task {source.task!r}"
    )


def _unequal(source: _Source) -> IndexMismatch:
    return IndexMismatch(
        f"stored vectors of {source.specialist!r} on {source.task!r} have unequal sizes"
    )
