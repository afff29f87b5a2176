"""Kinds of index side by side, on the same vectors, each at the smallest effort that finds enough.

The vectors are those of the retrieval benchmark. Effort is the number of inverted lists looked
into, or of graph nodes kept while searching: doubled until 0.98 of the ten nearest are found.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np

from retrieval.kinds import IVF_SQ8
from retrieval.vectors import Vectors, blocks, nearest
from tests.benchmarks.retrieval import DIM, NEAREST, as_table, drawn, percentiles

AIM = 0.98
MOST_EFFORT = 1024
NODES = 32  # neighbours of a graph's node


def main(size: int, *, as_json: bool) -> None:
    faiss.omp_set_num_threads(1)
    known, queries = drawn(size)
    truth = nearest(queries, NEAREST, blocks(np.arange(size), known))
    rows = [measured(name, known, queries, truth) for name in names(size)]
    print(json.dumps(rows, indent=2) if as_json else as_table(rows))


def names(size: int) -> Iterator[str]:
    """In the notation of FAISS's index factory."""
    lists = IVF_SQ8.lists(size)
    yield "Flat"
    for storage in ("SQ8", "SQfp16", f"PQ{DIM // 4}x8"):
        yield f"IVF{lists},{storage}"
    for storage in ("SQ8", "SQfp16", "Flat"):
        yield f"HNSW{NODES},{storage}"


def measured(name: str, known: Vectors, queries: Vectors, truth: Any) -> dict[str, Any]:
    index = faiss.index_factory(DIM, name, faiss.METRIC_INNER_PRODUCT)
    started = time.perf_counter()
    index.train(known)
    index.add(known)
    built = time.perf_counter() - started
    effort, recall = 0, 1.0
    if name != "Flat":
        effort, recall = _tuned(index, queries, truth)
    return {
        "kind": name,
        "effort": effort,
        "recall_at_10": round(recall, 4),
        **percentiles("", _seconds(index, queries)),
        "build_seconds": round(built, 1),
        "bytes_a_vector": round(faiss.serialize_index(index).nbytes / len(known)),
    }


def _tuned(index: Any, queries: Vectors, truth: Any) -> tuple[int, float]:
    effort, recall = 8, 0.0
    while True:
        _set(index, effort)
        _, found = index.search(queries, NEAREST)
        hits = sum(len(np.intersect1d(*pair)) for pair in zip(found, truth, strict=True))
        recall = hits / truth.size
        if recall >= AIM or effort >= MOST_EFFORT:
            return effort, recall
        effort *= 2


def _set(index: Any, effort: int) -> None:
    if hasattr(index, "nprobe"):
        index.nprobe = min(effort, index.nlist)
    else:
        index.hnsw.efSearch = effort


def _seconds(index: Any, queries: Vectors) -> list[float]:
    seconds = []
    for query in queries:
        started = time.perf_counter()
        index.search(query[None], NEAREST)
        seconds.append(time.perf_counter() - started)
    return seconds
