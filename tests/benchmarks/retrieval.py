"""Retrieval at 1k to 1M reference cases: recall, latency, memory, additions.

Vectors of 256 dimensions are drawn around centres (one per 500 vectors, their shares falling with
the root of their rank), both with a spectrum that falls with the root of the dimension's rank, the
vectors with 0.6 of the centres' spread, scaled to unit length. Queries are drawn with them and
held out. Every size runs in processes of its own: one fills SQLite and builds the index from it,
one reads and searches, one adds meanwhile.
"""

import asyncio
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from sqlalchemy import Engine, insert

from retrieval import index_folder, indexing, ingest
from retrieval.database import packed
from retrieval.neighbour import Query, ReferenceCase
from retrieval.records import Base, ReferenceCaseRecord, ReferenceVectorRecord, key_of
from retrieval.retriever import FaissRetriever
from retrieval.shelf import Shelf
from retrieval.vectors import Vectors, blocks, nearest, unit
from service.persistence.database import open_engine

DIM, QUERIES, NEAREST = 256, 1000, 10
TASK, SPECIALIST, ENCODER = "bench", "vit-b16", "0" * 64
BATCH, BATCHES = 100, 50
NOBODY = np.empty(0, np.int64)


def main(sizes: list[int], folder: Path | None, *, as_json: bool) -> None:
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as home:
            rows.append(measured(size, Path(home)))
            if not as_json:
                print(as_line(rows[-1]), flush=True)
    print(json.dumps(rows, indent=2) if as_json else as_table(rows))


def measured(size: int, home: Path) -> dict[str, Any]:
    """One row of the table."""
    return {
        "vectors": size,
        **alone(fill_and_build, size, home),
        **alone(search, size, home),
        **alone(whole_search, size, home),
        **alone(search_during_additions, size, home),
    }


def fill_and_build(size: int, home: Path) -> dict[str, Any]:
    known, _ = drawn(size)
    engine = open_engine(url(home))
    Base.metadata.create_all(engine)
    fill(engine, known)
    del known  # what building needs is counted without it
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # forget the peak so far
    before = status_mb("VmRSS")
    started = time.perf_counter()
    manifest = indexing.build(engine, home, TASK, SPECIALIST)
    seconds = time.perf_counter() - started
    peak = status_mb("VmHWM") - before
    known, queries = drawn(size)
    keys = np.array([key_of(case(place)) for place in range(size)])
    truth = nearest(queries, NEAREST, blocks(keys, known))
    np.savez(home / "truth.npz", queries=queries, truth=truth)
    files = [home / TASK / SPECIALIST / name for name in manifest.files]
    return {
        "kind": manifest.kind,
        "lists": manifest.lists,
        "probes": manifest.probes,
        "recall_told_by_manifest": round(manifest.recall, 4),
        "build_seconds": round(seconds, 1),
        "build_peak_mb": peak,
        "index_mb": round(sum(file.stat().st_size for file in files) / 1e6, 1),
    }


def search(size: int, home: Path) -> dict[str, Any]:
    """One index, one thread, the ten nearest, queries one after another; a warm-up before."""
    queries, truth = questions(home)
    before = status_mb("VmRSS")
    started = time.perf_counter()
    index = index_folder.read(home / TASK / SPECIALIST).index
    opened = time.perf_counter() - started
    for query in queries[:50]:
        index.search(asked(query), NEAREST, NOBODY)
    seconds, found = [], 0
    for query, row in zip(queries, truth, strict=True):
        started = time.perf_counter()
        ranking = index.search(asked(query), NEAREST, NOBODY)
        seconds.append(time.perf_counter() - started)
        found += len(set(ranking.keys).intersection(row.tolist()))
    return {
        "open_seconds": round(opened, 2),
        "recall_at_10": round(found / truth.size, 4),
        **percentiles("", seconds),
        "rss_growth_mb": status_mb("VmRSS") - before,
    }


def whole_search(size: int, home: Path) -> dict[str, Any]:
    """As the service asks: own cases left out, fifty by the index, fused, cut, rows from SQL."""
    queries, _ = questions(home)
    return percentiles("service_", asyncio.run(_asked_as_the_service_does(queries, home)))


async def _asked_as_the_service_does(queries: Vectors, home: Path) -> list[float]:
    retriever = FaissRetriever(open_engine(url(home)), home)
    await retriever.start()
    seconds = []
    for place, query in enumerate(queries[:500]):
        started = time.perf_counter()
        await retriever.search(
            TASK, (asked(query),), group=case(place).group, image_sha256="f" * 64
        )
        seconds.append(time.perf_counter() - started)
    await retriever.close()
    return seconds[50:]


def search_during_additions(size: int, home: Path) -> dict[str, Any]:
    """Searches in this process, while another acknowledges batches of new cases."""
    queries, _ = questions(home)
    shelf = Shelf(home)
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    adding = context.Process(target=add, args=(size, home, told))
    shelf.get(TASK, SPECIALIST)
    adding.start()
    seconds: list[float] = []
    while adding.is_alive() and told.empty():
        query = asked(queries[len(seconds) % len(queries)])
        started = time.perf_counter()
        shelf.get(TASK, SPECIALIST)[0].search(query, NEAREST, NOBODY)
        seconds.append(time.perf_counter() - started)
    rate = told.get(timeout=10)
    adding.join()
    return {"adds_per_second": round(rate), **percentiles("during_adds_", seconds)}


def add(size: int, home: Path, told: Any) -> None:
    """Batches of cases: rows, vectors, index published; a batch counts when all is durable."""
    faiss.omp_set_num_threads(1)
    engine = open_engine(url(home))
    vectors = drawn(BATCH * BATCHES, seed=1)[0]
    started = time.perf_counter()
    for number in range(BATCHES):
        places = range(number * BATCH, (number + 1) * BATCH)
        ids = ingest.ingest(engine, [case(size + place) for place in places])
        new = dict(zip(ids, vectors[places.start : places.stop], strict=True))
        ingest.store_vectors(engine, TASK, SPECIALIST, ENCODER, new)
        indexing.put(engine, home, TASK, SPECIALIST, ids)
    told.put(BATCH * BATCHES / (time.perf_counter() - started))


def drawn(count: int, seed: int = 0) -> tuple[Vectors, Vectors]:
    """Reference vectors and queries, as the head of this file says; centres are always the same."""
    spectrum = np.arange(1, DIM + 1, dtype=np.float32) ** -0.5
    spectrum /= np.linalg.norm(spectrum)
    number = max(20, count // 500)
    centres = np.random.default_rng(0).standard_normal((number, DIM), dtype=np.float32) * spectrum
    random = np.random.default_rng((seed, count))
    shares = np.arange(1, number + 1) ** -0.5
    owners = random.choice(number, count + QUERIES, p=shares / shares.sum())
    vectors = np.empty((count + QUERIES, DIM), np.float32)
    for start in range(0, len(vectors), 50_000):
        some = owners[start : start + 50_000]
        noise = random.standard_normal((len(some), DIM), dtype=np.float32)
        vectors[start : start + len(some)] = unit(centres[some] + 0.6 * spectrum * noise)
    return vectors[:count], vectors[count:]


def fill(engine: Engine, vectors: Vectors) -> None:
    """Rows as ingestion writes them, faster."""
    now = datetime.now(UTC)
    for start in range(0, len(vectors), 10_000):
        places = range(start, min(start + 10_000, len(vectors)))
        with engine.begin() as connection:
            connection.execute(insert(ReferenceCaseRecord.__table__), list(case_rows(places, now)))
            connection.execute(
                insert(ReferenceVectorRecord.__table__), list(vector_rows(places, vectors, now))
            )


def case_rows(places: range, now: datetime) -> Iterator[dict[str, Any]]:
    for place in places:
        one = case(place)
        yield {
            "id": one.id,
            "key": key_of(one),
            "task": one.task,
            "labels": list(one.labels),
            "report": "",
            "source": "",
            "licence": "",
            "modality": "",
            "group": one.group,
            "image_sha256": one.image_sha256,
            "created_at": now,
        }


def vector_rows(places: range, vectors: Vectors, now: datetime) -> Iterator[dict[str, Any]]:
    for place in places:
        yield {
            "task": TASK,
            "specialist": SPECIALIST,
            "case_id": case(place).id,
            "encoder_sha256": ENCODER,
            "vector": packed(vectors[place]),
            "stored_at": now,
        }


def case(place: int) -> ReferenceCase:
    return ReferenceCase(
        id=f"case-{place:08}",
        task=TASK,
        labels=("one" if place % 2 else "other",),
        image_sha256=f"{place:064x}",
        group=f"patient-{place // 2}",
    )


def asked(vector: Any) -> Query:
    return Query(SPECIALIST, ENCODER, vector)


def questions(home: Path) -> tuple[Vectors, Any]:
    with np.load(home / "truth.npz") as kept:
        return kept["queries"], kept["truth"]


def url(home: Path) -> str:
    return f"sqlite:///{home / 'bench.db'}"


def status_mb(name: str) -> int:
    """VmRSS: resident memory of this process, pages mapped from files included; VmHWM: its peak."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.split(f"{name}:")[1].split()[0]) // 1024


def percentiles(name: str, seconds: list[float]) -> dict[str, float]:
    return {
        f"{name}p{share}_ms": round(float(np.percentile(seconds, share)) * 1000, 2)
        for share in (50, 99)
    }


def alone(work: Callable[[int, Path], dict[str, Any]], size: int, home: Path) -> dict[str, Any]:
    """What the work returns, done in a process of its own on one thread."""
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    process = context.Process(target=_alone, args=(work, size, home, told))
    process.start()
    while process.is_alive() and told.empty():
        process.join(0.1)
    if told.empty():
        raise RuntimeError(f"{work.__name__} at {size} ended with {process.exitcode}")
    result: dict[str, Any] = told.get()
    process.join()
    return result


def _alone(work: Callable[[int, Path], dict[str, Any]], size: int, home: Path, told: Any) -> None:
    faiss.omp_set_num_threads(1)
    told.put(work(size, home))


def as_line(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.items())


def as_table(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0])
    lines = [[name, *(str(row[name]) for row in rows)] for name in names]
    return "\n".join("".join(f"{cell:>26}" for cell in line) for line in lines)
