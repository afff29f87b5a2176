"""The vectors of one specialist for one task, searched by cosine similarity.

Vectors have unit length, so the inner product is the cosine. An index has two parts: `main`, large
and left as it is (it may be mapped from disk instead of read), and `recent`, the vectors added
since, compared one by one. Keys taken out of `main` are remembered and never returned. Both the
additions and the removals are bounded: beyond `bound` they are merged into a new `main`.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.errors import IndexMismatch, IndexUnavailable
from retrieval.fusion import Ranking
from retrieval.kinds import Kind
from retrieval.neighbour import Query
from retrieval.typicality import Spread
from retrieval.vectors import Keys, Vectors, unit

T = TypeVar("T")

FEWEST_PENDING, MOST_PENDING = 1_000, 10_000
OUTGROWN = 2
"""An index with this many times the vectors its lists were made from is built again."""

FEW_HIDDEN = 100
"""Up to so many keys that may not be returned, more are asked for and these dropped."""

Pair = tuple[float, int]  # similarity, key


@dataclass(frozen=True, slots=True)
class Recall:
    """Share of the ten nearest that are found, as measured with so many vectors held out of
    `count` when the index was built."""

    value: float = 1.0
    queries: int = 0
    count: int = 0


class Selection:
    """Keys that a search may return, and none besides."""

    def __init__(self, keys: Keys) -> None:
        self.count = len(keys)
        self.selector = faiss.IDSelectorBatch(np.ascontiguousarray(keys, np.int64))


@dataclass(slots=True, eq=False)
class Index:
    """One specialist's vectors of a task's reference cases.

    Many threads may search at once; nobody may search while one adds, removes or merges.
    `typical` are the quantiles by which a case's typicality is told.
    """

    task: str
    specialist: str
    encoder_sha256: str
    kind: Kind
    main: Any  # faiss.IndexIDMap2 over IndexFlatIP, or IndexIVFScalarQuantizer
    probes: int = 1
    recall: Recall = field(default_factory=Recall)
    recent: Any = None  # faiss.IndexIDMap2 over IndexFlatIP
    removed: frozenset[int] = frozenset()
    typical: Spread = field(default_factory=Spread)
    _removed: Any = None

    def __post_init__(self) -> None:
        if self.recent is None:
            self.recent = faiss.IndexIDMap2(faiss.IndexFlatIP(self.dim))
        self._hide(self.removed)

    @property
    def dim(self) -> int:
        return int(self.main.d)

    @property
    def exact(self) -> bool:
        return self.kind.exact

    @property
    def keys(self) -> Keys:
        """Keys a search can return, ascending."""
        gone = np.fromiter(self.removed, np.int64)
        kept = np.setdiff1d(keys_in(self.main), gone, assume_unique=True)
        return np.union1d(kept, keys_in(self.recent))

    @property
    def bound(self) -> int:
        """How many additions, or removals, may wait to be merged."""
        return min(MOST_PENDING, max(FEWEST_PENDING, int(self.main.ntotal) // 10))

    @property
    def is_full(self) -> bool:
        """Whether so much waits that searches would suffer."""
        return max(int(self.recent.ntotal), len(self.removed)) > self.bound

    @property
    def is_outgrown(self) -> bool:
        """Whether its lists were made from vectors too few to stand for all."""
        return not self.exact and len(self) > OUTGROWN * self.recall.count

    def __len__(self) -> int:
        return int(self.main.ntotal) - len(self.removed) + int(self.recent.ntotal)

    def search(
        self, query: Query, count: int, exclude: Keys, only: Selection | None = None
    ) -> Ranking:
        """The `count` most similar cases whose keys are not excluded, equal ones by key.

        With `only`, none but the cases selected. Raises IndexMismatch for a vector of another
        encoder or size.
        """
        self._check_origin(query)
        row = unit(query.vector[None, :])
        pairs = self._in_main(row, count, exclude, only) + self._in_recent(
            row, count, exclude, only
        )
        best = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:count]
        similarities = tuple(min(1.0, max(-1.0, similarity)) for similarity, _ in best)
        return Ranking(self.specialist, tuple(key for _, key in best), similarities)

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Puts in vectors of cases it does not hold yet; raises IndexMismatch for another size."""
        if vectors.shape != (len(keys), self.dim):
            raise IndexMismatch(
                f"vectors of shape {vectors.shape} do not fit the index of {self.specialist!r}, "
                f"which takes {self.dim} numbers per case"
            )
        _run(lambda: self.recent.add_with_ids(unit(vectors), keys))

    def remove(self, keys: Keys) -> None:
        """No search returns these keys any more; keys it does not hold are passed over."""
        _run(lambda: self.recent.remove_ids(keys))
        self._hide(self.removed | frozenset(_among(keys_in(self.main), keys).tolist()))

    def merged(self, main: Any) -> "Index":
        """The same cases in one part. `main` is its own, in memory; it is changed."""
        if self.removed:
            gone = np.fromiter(self.removed, np.int64)
            _run(lambda: main.remove_ids(faiss.IDSelectorBatch(gone)))
        if self.recent.ntotal:
            added = self.recent.index.reconstruct_n(0, self.recent.ntotal)
            _run(lambda: main.add_with_ids(added, keys_in(self.recent)))
        return replace(self, main=main, recent=None, removed=frozenset(), _removed=None)

    def _hide(self, removed: frozenset[int]) -> None:
        self.removed = removed
        gone = np.fromiter(removed, np.int64)
        self._removed = faiss.IDSelectorNot(faiss.IDSelectorBatch(gone)) if removed else None

    def _in_main(
        self, row: Vectors, count: int, exclude: Keys, only: Selection | None
    ) -> list[Pair]:
        if only is None and len(exclude) + len(self.removed) <= FEW_HIDDEN:
            hidden = self.removed.union(exclude.tolist())
            return _but_for(hidden, self.main, row, count, self._parameters(None, {}))
        shown = _shown(_but(exclude), self._removed, only.selector if only else None)
        return _pairs(self.main, row, count, self._parameters(only, shown))

    def _parameters(self, only: Selection | None, shown: dict[str, Any]) -> Any:
        if self.exact:
            return faiss.SearchParameters(**shown)
        return faiss.SearchParametersIVF(
            nprobe=self._probes(only),  # type: ignore[call-arg]
            **shown,
        )

    def _in_recent(
        self, row: Vectors, count: int, exclude: Keys, only: Selection | None
    ) -> list[Pair]:
        if not self.recent.ntotal:
            return []
        if only is None and len(exclude) <= FEW_HIDDEN:
            return _but_for(
                set(exclude.tolist()), self.recent, row, count, faiss.SearchParameters()
            )
        shown = _shown(_but(exclude), only.selector if only else None)
        return _pairs(self.recent, row, count, faiss.SearchParameters(**shown))

    def _probes(self, only: Selection | None) -> int:
        """The fewer cases may be returned, the more lists must be looked into to find them."""
        lists = int(self.main.nlist)
        if only is None:
            return min(lists, self.probes)
        return min(lists, self.probes * max(1, len(self) // max(1, only.count)))

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


def keys_in(part: Any) -> Keys:
    """The keys of one part of an index, as they lie in it."""
    if isinstance(part, faiss.IndexIDMap2):
        return np.asarray(faiss.vector_to_array(part.id_map), np.int64)
    lists = part.invlists
    sizes = [(number, lists.list_size(number)) for number in range(part.nlist)]
    held = [faiss.rev_swig_ptr(lists.get_ids(n), size).copy() for n, size in sizes if size]
    return np.concatenate([np.empty(0, np.int64), *held])


def _among(held: Keys, keys: Keys) -> Keys:
    """Those held that are among a few keys; the many held ones need not be sorted for it."""
    few = np.unique(keys)
    if not len(few):
        return few
    places = np.minimum(np.searchsorted(few, held), len(few) - 1)
    return np.asarray(held[few[places] == held], np.int64)


def _but(exclude: Keys) -> Any:
    return faiss.IDSelectorNot(faiss.IDSelectorBatch(exclude)) if len(exclude) else None


def _shown(*conditions: Any) -> dict[str, Any]:
    """The search parameter for keys that fulfil every condition that there is."""
    selectors = [condition for condition in conditions if condition is not None]
    if not selectors:
        return {}
    both = selectors[0]
    for selector in selectors[1:]:
        both = faiss.IDSelectorAnd(both, selector)
    return {"sel": both}


def _but_for(
    hidden: AbstractSet[int], part: Any, row: Vectors, count: int, parameters: Any
) -> list[Pair]:
    """A search that finds a few more and drops those hidden: asking FAISS to pass them over makes
    it ask about every vector, which takes several times as long."""
    found = _pairs(part, row, count + len(hidden), parameters)
    return [(similarity, key) for similarity, key in found if key not in hidden]


def _pairs(part: Any, row: Vectors, count: int, parameters: Any) -> list[Pair]:
    similarities, keys = _run(lambda: part.search(row, count, params=parameters))
    found = zip(_row(similarities), _row(keys), strict=True)
    return [(similarity, key) for similarity, key in found if key >= 0]


def _run(action: Callable[[], T]) -> T:
    """FAISS reports everything from its C++ side as RuntimeError."""
    try:
        return action()
    except RuntimeError as error:
        raise IndexUnavailable(f"FAISS refuses: {str(error)[:200]}") from error


def _row(found: NDArray[Any]) -> list[Any]:
    return found[0].tolist()  # type: ignore[no-any-return]
