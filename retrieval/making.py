"""Making an index of vectors: the kind that their number asks for and that finds enough of them."""

from typing import Any

import faiss
import numpy as np

from retrieval.index import Index, Recall
from retrieval.kinds import (
    FLAT,
    PROBES,
    RECALL_AIM,
    RULES,
    TRAINING_VECTORS_PER_LIST,
    Kind,
    Rules,
)
from retrieval.neighbour import Query
from retrieval.vectors import Keys, Vectors, blocks, nearest, unit

NEAREST = 10
HELD_OUT = 500
ROUNDS = 10  # of k-means
SEED = 20261

_STORAGE = {"sq8": faiss.ScalarQuantizer.QT_8bit, "fp16": faiss.ScalarQuantizer.QT_fp16}
_NOBODY = np.empty(0, np.int64)


def build(
    task: str,
    specialist: str,
    encoder_sha256: str,
    keys: Keys,
    vectors: Vectors,
    rules: Rules = RULES,
) -> Index:
    """An index of the vectors (rows), of the kind that the rules ask for.

    Recall is measured with vectors held out, which are put in afterwards.
    """
    known = unit(vectors)
    kinds = rules.ladder if len(keys) > rules.exact_up_to else ()
    out, kept = _held_out(len(keys))
    truth = nearest(known[out], NEAREST, _without(keys, known, out)) if kinds else _NOBODY
    centres: Any = None
    for kind in kinds:
        centres = centres if centres is not None else _centres(known, kind.lists(len(keys)))
        main = _lists(kind, centres, known, keys, kept)
        index = Index(task, specialist, encoder_sha256, kind, main)
        measured = _tuned(index, known[out], truth)
        if measured.recall.value >= rules.floor:
            measured.main.add_with_ids(known[out], keys[out])
            return measured
    flat = faiss.IndexIDMap2(faiss.IndexFlatIP(known.shape[1]))
    flat.add_with_ids(known, keys)
    return Index(task, specialist, encoder_sha256, FLAT, flat)


def recall(index: Index, queries: Vectors, truth: Keys) -> float:
    """The share of the nearest keys (rows of `truth`, one per query) that the index finds."""
    found = sum(
        len(set(row.tolist()).intersection(_found(index, query, len(row))))
        for query, row in zip(queries, truth, strict=True)
    )
    return found / truth.size if truth.size else 1.0


def _tuned(index: Index, queries: Vectors, truth: Keys) -> Index:
    """The index with as few probes as find enough, and its recall."""
    lists = int(index.main.nlist)
    for probes in PROBES:
        index.probes = min(probes, lists)
        found = recall(index, queries, truth)
        index.recall = Recall(found, len(queries), int(index.main.ntotal) + len(queries))
        if found >= RECALL_AIM or probes >= lists:
            break
    return index


def _found(index: Index, query: Any, count: int) -> tuple[int, ...]:
    return index.search(Query(index.specialist, index.encoder_sha256, query), count, _NOBODY).keys


def _held_out(count: int) -> tuple[Keys, Keys]:
    """Places of the vectors that recall is measured with, and of all others."""
    places = np.random.default_rng(SEED).permutation(count)
    few = min(HELD_OUT, count // 10)
    return np.sort(places[:few]), np.sort(places[few:])


def _without(keys: Keys, vectors: Vectors, out: Keys) -> Any:
    """Blocks of all vectors but those held out."""
    held = set(keys[out].tolist())
    for some, rows in blocks(keys, vectors):
        kept = np.array([key not in held for key in some.tolist()])
        yield some[kept], rows[kept]


def _centres(vectors: Vectors, lists: int) -> Vectors:
    """The middles of so many lists, on the sphere, from a sample of the vectors.

    On the GPUs where FAISS has some (extra `gpu`). Searches stay on the CPU: they take a fraction
    of a millisecond, and faiss-gpu cannot leave out cases (docs/decisions/0009).
    """
    means = faiss.Kmeans(
        vectors.shape[1],
        lists,
        niter=ROUNDS,
        spherical=True,
        seed=SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=TRAINING_VECTORS_PER_LIST,
        gpu=faiss.get_num_gpus() > 0,
    )
    means.train(vectors)
    return np.asarray(means.centroids, np.float32)


def _lists(kind: Kind, centres: Vectors, vectors: Vectors, keys: Keys, kept: Keys) -> Any:
    lists, dim = centres.shape
    coarse = faiss.IndexFlatIP(dim)
    coarse.add(centres)
    index = faiss.IndexIVFScalarQuantizer(
        coarse, dim, lists, _STORAGE[kind.storage], faiss.METRIC_INNER_PRODUCT
    )
    index.train(vectors[kept[:: max(1, len(kept) // 50_000)]])
    for start in range(0, len(kept), 50_000):
        some = kept[start : start + 50_000]
        index.add_with_ids(vectors[some], keys[some])
    return index
