"""Reciprocal-rank fusion of several ranked lists.

G. Cormack, C. Clarke, S. Büttcher: Reciprocal rank fusion outperforms Condorcet and individual
rank learning methods. SIGIR 2009. Every list that holds a case gives it 1 / (K0 + rank).
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

K0 = 60

CUT = 0.75
"""Default of the adaptive cut: neighbours less than three quarters as similar to the query as the
nearest one are not shown, since distant cases mislead the generalist more than they help it."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """What one retriever found, most similar first; keys occur once."""

    retriever: str
    keys: tuple[int, ...]
    similarities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Fused:
    """One case that at least one retriever found.

    `similarity` is the mean over the retrievers that found it. `nearness` is the mean of its
    similarity as a share of each finder's best: embeddings of different backbones spread
    differently, so only shares can be compared across them.
    """

    key: int
    score: float
    similarity: float
    nearness: float
    retrievers: tuple[str, ...]


class _Find(NamedTuple):
    retriever: str
    rank: int
    similarity: float
    share: float


def fuse(rankings: Iterable[Ranking], k0: int = K0) -> tuple[Fused, ...]:
    """Every case found, best score first; equal scores by similarity, then by key.

    The order of the rankings changes nothing but the order of `retrievers`.
    """
    finds: defaultdict[int, list[_Find]] = defaultdict(list)
    for ranking in rankings:
        best = ranking.similarities[0] if ranking.similarities else 0.0
        pairs = zip(ranking.keys, ranking.similarities, strict=True)
        for rank, (key, similarity) in enumerate(pairs, start=1):
            # A best similarity of zero or less resembles nothing, so nothing comes near it.
            share = similarity / best if best > 0 else 0.0
            finds[key].append(_Find(ranking.retriever, rank, similarity, share))
    fused = (_fused(key, found, k0) for key, found in finds.items())
    return tuple(sorted(fused, key=lambda one: (-one.score, -one.similarity, one.key)))


def within_cut(fused: Iterable[Fused], cut: float | None) -> tuple[Fused, ...]:
    """Those at least `cut` times as near as the nearest, in the same order; None keeps all."""
    found = tuple(fused)
    nearest = max((one.nearness for one in found), default=0.0)
    return tuple(
        one for one in found if cut is None or (nearest > 0 and one.nearness >= cut * nearest)
    )


def _fused(key: int, finds: list[_Find], k0: int) -> Fused:
    # fsum rounds once, so the order of the retrievers cannot tip a tie.
    return Fused(
        key,
        score=math.fsum(1 / (k0 + find.rank) for find in finds),
        similarity=math.fsum(find.similarity for find in finds) / len(finds),
        nearness=math.fsum(find.share for find in finds) / len(finds),
        retrievers=tuple(find.retriever for find in finds),
    )
