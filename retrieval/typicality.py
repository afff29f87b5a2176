"""How typical a case is of the reference cases: a signal of how far evidence can be trusted.

A similarity means little by itself, since every backbone spreads its embeddings differently.
It is compared with how similar each reference case is to its own nearest other one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUANTILES = 21
MOST_QUERIES = 1000
FEWEST_CASES = 3
BLOCK = 256
COMPARED = 20_000


@dataclass(frozen=True, slots=True)
class Spread:
    """How near the reference cases lie to each other: `quantiles` of `count` of them."""

    quantiles: tuple[float, ...] = ()
    count: int = 0

    def is_of(self, count: int) -> bool:
        """Whether it still describes so many cases: within a tenth."""
        return bool(self.quantiles) and abs(count - self.count) <= self.count / 10


def spread(vectors: NDArray[np.float32]) -> Spread:
    """The spread of reference vectors (rows, of unit length)."""
    return Spread(quantiles(vectors), len(vectors))


def quantiles(vectors: NDArray[np.float32]) -> tuple[float, ...]:
    """0, 5, …, 100 % quantiles of every reference vector's similarity to its nearest other one.

    At most `MOST_QUERIES` vectors (rows, of unit length) are asked, evenly chosen, against all.
    Empty for fewer than `FEWEST_CASES` vectors.
    """
    if len(vectors) < FEWEST_CASES:
        return ()
    asked = np.linspace(0, len(vectors) - 1, min(len(vectors), MOST_QUERIES)).astype(int)
    nearest = np.concatenate(
        [_nearest(vectors, asked[start : start + BLOCK]) for start in range(0, len(asked), BLOCK)]
    )
    return tuple(np.quantile(nearest, np.linspace(0, 1, QUANTILES)).tolist())


def rank(similarity: float, known: tuple[float, ...]) -> float:
    """Share of the reference cases that are less like their nearest other one: 0 to 1.

    Near 0: unlike anything known; 0.5: as typical as the median reference case.
    """
    return float(np.interp(similarity, known, np.linspace(0, 1, len(known))))


def _nearest(vectors: NDArray[np.float32], rows: NDArray[np.int_]) -> NDArray[np.float32]:
    """Block by block: all similarities at once would take a kilobyte for every vector."""
    best = np.full(len(rows), -np.inf, np.float32)
    for start in range(0, len(vectors), COMPARED):
        similarities = vectors[rows] @ vectors[start : start + COMPARED].T
        own = (rows >= start) & (rows < start + COMPARED)
        similarities[own, rows[own] - start] = -np.inf
        best = np.maximum(best, similarities.max(axis=1))
    return best
