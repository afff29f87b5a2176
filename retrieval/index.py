"""The vectors of one specialist for one task, in memory, searched by cosine similarity.

Vectors have unit length, so the inner product is the cosine. Up to `EXACT_UP_TO` vectors the
search is exact; above, a navigable small-world graph (HNSW) finds nearly all of the nearest.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.errors import IndexMismatch, IndexUnavailable
from retrieval.fusion import Ranking
from retrieval.neighbour import Query, Vector
from retrieval.typicality import Spread

T = TypeVar("T")

EXACT_UP_TO = 50_000
HNSW_LINKS = 32
HNSW_BUILD_BEAM = 200
HNSW_SEARCH_BEAM = 128

Keys = NDArray[np.int64]  # (count,)
Vectors = NDArray[np.float32]  # (count, dim), unit length


@dataclass(slots=True, eq=False)
class Index:
    """One specialist's vectors of a task's reference cases.

    Many threads may search at once; nobody may search while one adds or removes. `removed` are
    keys that the graph of an HNSW index still holds, since FAISS cannot take them out, and that
    no search returns. `typical` are the quantiles by which a case's typicality is told.
    """

    task: str
    specialist: str
    encoder_sha256: str
    exact: bool
    vectors: Any  # faiss.IndexIDMap2 over IndexFlatIP or IndexHNSWFlat
    removed: frozenset[int] = frozenset()
    typical: Spread = field(default_factory=Spread)

    @property
    def dim(self) -> int:
        return int(self.vectors.d)

    @property
    def keys(self) -> frozenset[int]:
        """Keys a search can return."""
        return frozenset(faiss.vector_to_array(self.vectors.id_map).tolist()) - self.removed

    def __len__(self) -> int:
        return int(self.vectors.ntotal) - len(self.removed)

    def search(self, query: Query, count: int, exclude: Keys) -> Ranking:
        """The `count` most similar cases whose keys are not excluded, equal ones by key.

        Raises IndexMismatch for a vector of another encoder or size.
        """
        self._check_origin(query)
        hidden = np.concatenate([exclude, np.fromiter(self.removed, np.int64)])
        found = _run(
            lambda: self.vectors.search(
                unit(query.vector[None, :]), count, params=self._parameters(hidden, count)
            )
        )
        pairs = [(-s, key) for s, key in zip(*map(_row, found), strict=True) if key >= 0]
        pairs.sort()
        similarities = tuple(min(1.0, max(-1.0, -negated)) for negated, _ in pairs)
        return Ranking(self.specialist, tuple(key for _, key in pairs), similarities)

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Puts in vectors of cases it does not hold yet; raises IndexMismatch for another size."""
        if vectors.shape != (len(keys), self.dim):
            raise IndexMismatch(
                f"vectors of shape {vectors.shape} do not fit the index of {self.specialist!r}, "
                f"which takes {self.dim} numbers per case"
            )
        _run(lambda: self.vectors.add_with_ids(unit(vectors), keys))

    def remove(self, keys: Keys) -> None:
        """No search returns these keys any more; keys it does not hold are passed over."""
        if self.exact:
            _run(lambda: self.vectors.remove_ids(keys))
        else:
            self.removed |= self.keys & frozenset(keys.tolist())

    def _check_origin(self, query: Query) -> None:
        if query.encoder_sha256 != self.encoder_sha256:
            raise IndexMismatch(
                f"the index of {self.specialist!r} on task {self.task!r} holds vectors of encoder "
                f"{self.encoder_sha256[:12]}, not {query.encoder_sha256[:12]}: build it again, or "
                "restart the service where the specialist was trained anew"
            )
        if query.vector.shape != (self.dim,):
            raise IndexMismatch(
                f"the index of {self.specialist!r} on task {self.task!r} holds vectors of "
                f"{self.dim} numbers, not of shape {query.vector.shape}"
            )

    def _parameters(self, hidden: Keys, count: int) -> Any:
        """`hidden` is passed over during the search, so that `count` others are still found."""
        shown = {"sel": faiss.IDSelectorNot(faiss.IDSelectorBatch(hidden))} if len(hidden) else {}
        if self.exact:
            return faiss.SearchParameters(**shown)
        beam = max(HNSW_SEARCH_BEAM, 2 * count)
        return faiss.SearchParametersHNSW(efSearch=beam, **shown)  # type: ignore[attr-defined]


def build(
    task: str,
    specialist: str,
    encoder_sha256: str,
    keys: Keys,
    vectors: Vectors,
    *,
    exact_up_to: int = EXACT_UP_TO,
) -> Index:
    """An index of the vectors: exact up to `exact_up_to` of them, HNSW above."""
    dim, exact = vectors.shape[1], len(keys) <= exact_up_to
    flat = faiss.IndexFlatIP(dim) if exact else _graph(dim)
    index = Index(task, specialist, encoder_sha256, exact, faiss.IndexIDMap2(flat))
    index.add(keys, vectors)
    return index


def unit(vectors: NDArray[Any]) -> Vectors:
    """Rows scaled to unit length; raises IndexMismatch for one without a direction."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise IndexMismatch("a vector holds no direction: it is all zero or not finite")
    return np.asarray(rows / lengths, dtype=np.float32)


def unit_vector(vector: NDArray[Any]) -> Vector:
    """One vector scaled to unit length."""
    return np.asarray(unit(np.asarray(vector)[None, :])[0], dtype=np.float32)


def _graph(dim: int) -> Any:
    graph = faiss.IndexHNSWFlat(dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = HNSW_BUILD_BEAM
    return graph


def _run(action: Callable[[], T]) -> T:
    """FAISS reports everything from its C++ side as RuntimeError."""
    try:
        return action()
    except RuntimeError as error:
        raise IndexUnavailable(f"FAISS refuses: {str(error)[:200]}") from error


def _row(found: NDArray[Any]) -> list[Any]:
    return found[0].tolist()  # type: ignore[no-any-return]
