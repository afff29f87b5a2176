"""Vectors of unit length, many as rows of one array; and the exact answer to a search."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import IndexMismatch
from retrieval.neighbour import Vector

Keys = NDArray[np.int64]  # (count,)
Vectors = NDArray[np.float32]  # (count, dim), unit length

BLOCK = 20_000
UNIT_TOLERANCE = 1e-6


def unit(vectors: NDArray[Any]) -> Vectors:
    """Rows scaled to unit length, the same array where they have it already.

    Raises IndexMismatch for a row without a direction.
    """
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))  # makes no second array of all rows
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise IndexMismatch("a vector holds no direction: it is all zero or not finite")
    if np.abs(lengths - 1).max(initial=0) < UNIT_TOLERANCE:
        return rows
    return np.asarray(rows / lengths[:, None], dtype=np.float32)


def unit_vector(vector: NDArray[Any]) -> Vector:
    """One vector scaled to unit length."""
    return np.asarray(unit(np.asarray(vector)[None, :])[0], dtype=np.float32)


def blocks(keys: Keys, vectors: Vectors) -> Iterator[tuple[Keys, Vectors]]:
    """Pieces that are cheap to compare, so that nobody needs memory for all at once."""
    for start in range(0, len(keys), BLOCK):
        yield keys[start : start + BLOCK], vectors[start : start + BLOCK]


@dataclass(slots=True)
class Nearest:
    """The keys nearest to some queries by comparing everything, fed block by block."""

    queries: Vectors
    count: int
    keys: NDArray[np.int64]  # (queries, at most count), nearest first
    similarities: NDArray[np.float32]

    @classmethod
    def of(cls, queries: Vectors, count: int) -> "Nearest":
        shape = (len(queries), 0)
        return cls(queries, count, np.empty(shape, np.int64), np.empty(shape, np.float32))

    def see(self, keys: Keys, vectors: Vectors) -> None:
        """Takes more vectors into account."""
        similarities = np.concatenate([self.similarities, self.queries @ vectors.T], axis=1)
        rows = np.broadcast_to(keys, (len(self.queries), len(keys)))
        all_keys = np.concatenate([self.keys, rows], axis=1)
        kept = min(self.count, all_keys.shape[1])
        best = np.argpartition(-similarities, kept - 1, axis=1)[:, :kept]
        near = np.take_along_axis(similarities, best, 1)
        order = np.argsort(-near, axis=1, kind="stable")
        self.similarities = np.take_along_axis(near, order, 1)
        self.keys = np.take_along_axis(np.take_along_axis(all_keys, best, 1), order, 1)


def nearest(
    queries: Vectors, count: int, pieces: Iterable[tuple[Keys, Vectors]]
) -> NDArray[np.int64]:
    """Keys of the `count` vectors most similar to every query (rows), by comparing all."""
    found = Nearest.of(queries, count)
    for keys, vectors in pieces:
        found.see(keys, vectors)
    return found.keys
