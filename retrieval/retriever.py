"""Reference cases that resemble a case, by every specialist's embedding of it: RAD."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import faiss
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from retrieval import database, fusion, indexing, ingest, typicality
from retrieval.errors import RetrievalError
from retrieval.fusion import CUT, Ranking
from retrieval.manifest import Manifest
from retrieval.neighbour import (
    EVERY_CASE,
    Filter,
    MissingRetriever,
    Neighbour,
    Query,
    ReferenceCase,
    Retrieval,
)
from retrieval.records import Then
from retrieval.selection import Admitted
from retrieval.shelf import Shelf
from retrieval.statistics import IndexStats, stats
from retrieval.vectors import Keys

T = TypeVar("T")
Found = tuple[Ranking, Manifest]  # with what is known of the index it was found in

NEIGHBOURS = 10
DEPTH = 5
"""Every index is asked for this many times the neighbours wanted, so that a case which many
retrievers rank in the middle can win over one that a single retriever ranks first."""
MAX_THREADS = 8
FOREIGN = "its index and the database do not belong together: build it again"

logger = logging.getLogger(__name__)


class FaissRetriever:
    """Nearest reference cases from one FAISS index per task and specialist; details from SQL.

    `neighbours` is the most a search returns, `cut` the least share of the best similarity a
    neighbour must reach (`fusion.within_cut`); None shows all. `only` restricts which cases are
    retrieved at all. All work is done in threads.
    """

    def __init__(
        self,
        engine: Engine,
        indexes: Path,
        *,
        neighbours: int = NEIGHBOURS,
        cut: float | None = CUT,
        only: Filter = EVERY_CASE,
    ) -> None:
        if neighbours < 1:
            raise ValueError(f"at least one neighbour must be asked for, not {neighbours}")
        self._engine = engine
        self._indexes = indexes
        self._neighbours = neighbours
        self._cut = cut
        self._only = only
        self._admitted = Admitted(engine, only)
        self._shelf = Shelf(indexes)
        self._threads: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Must come before the first search. Indexes are read when first searched."""
        # One thread per search: FAISS's own threads cost more than they gain for a single vector.
        self._threads = ThreadPoolExecutor(
            min(MAX_THREADS, os.cpu_count() or 1),
            thread_name_prefix="retrieval",
            initializer=faiss.omp_set_num_threads,
            initargs=(1,),
        )

    async def close(self) -> None:
        """Waits for searches under way; the engine stays open, its owner closes it."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)

    async def search(
        self, task: str, queries: tuple[Query, ...], *, group: str | None, image_sha256: str
    ) -> Retrieval:
        """The fused neighbours of a case, never of its own group nor the image itself.

        A retriever that cannot be searched is listed as missing and does not stop the others;
        without the database all of them are missing. Raises nothing for either.
        """
        try:
            return await self._search(task, queries, group, image_sha256)
        except SQLAlchemyError as error:
            logger.warning("reference cases cannot be read", exc_info=True)
            reason = f"the reference cases cannot be read ({type(error).__name__})"
            return Retrieval((), missing=tuple(_missing(query, reason) for query in queries))

    async def put(
        self, case: ReferenceCase, queries: tuple[Query, ...], picture: bytes, then: Then
    ) -> str:
        """The id under which a case is stored, with its vectors, and found from now on.

        Raises InvalidReferenceCase with nothing stored; what the indexes raise (`indexing.build`)
        with the case stored and not in all of them.
        """
        return await asyncio.to_thread(self._put, case, queries, picture, then)

    async def remove(self, case_id: str, then: Then) -> bool:
        """Whether there was such a case; it is found no more, and its vectors are gone."""
        work = partial(ingest.remove, self._engine, self._indexes, [case_id], then)
        return bool(await asyncio.to_thread(work))

    async def unsearchable(
        self, task: str, encoders: Mapping[str, str]
    ) -> tuple[MissingRetriever, ...]:
        """Whose indexes of a task cannot be searched now, and why.

        `encoders` are the sha256 of the weights that embed for the task, by specialist. Reads
        what has changed on disk, and else takes a few stats.
        """
        return await self._in_thread(lambda: tuple(self._unsearchable(task, encoders)))

    async def stats(self) -> tuple[IndexStats, ...]:
        """What is stored and what can be searched, per task and specialist."""
        return await self._in_thread(lambda: stats(self._engine, self._indexes))

    def _put(
        self, case: ReferenceCase, queries: tuple[Query, ...], picture: bytes, then: Then
    ) -> str:
        engine, task = self._engine, case.task
        (id,) = ingest.ingest(engine, [case], thumbnails={case.id: picture}, then=then)
        for query in queries:
            encoder, vectors = query.encoder_sha256, {id: query.vector}
            ingest.store_vectors(engine, task, query.retriever, encoder, vectors)
        for query in queries:
            indexing.put(engine, self._indexes, task, query.retriever, [id])
        return id

    async def _search(
        self, task: str, queries: tuple[Query, ...], group: str | None, image_sha256: str
    ) -> Retrieval:
        own = await self._in_thread(
            lambda: database.own_keys(self._engine, task, group=group, image_sha256=image_sha256)
        )
        answers = await asyncio.gather(*(self._ask(task, query, own) for query in queries))
        found = [answer for answer in answers if not isinstance(answer, MissingRetriever)]
        rankings = [ranking for ranking, _ in found]
        shown = await self._in_thread(lambda: self._neighbours_of(task, rankings))
        if not shown and await self._in_thread(lambda: self._are_foreign(task, rankings)):
            return Retrieval((), missing=tuple(_missing(query, FOREIGN) for query in queries))
        return Retrieval(
            tuple(one for one in shown if not _is_own(one.case, group, image_sha256)),
            index_ids=tuple(manifest.index_id for _, manifest in found),
            missing=tuple(one for one in answers if isinstance(one, MissingRetriever)),
            typicality=_typicality(found),
        )

    async def _ask(self, task: str, query: Query, own: Keys) -> Found | MissingRetriever:
        try:
            return await self._in_thread(lambda: self._look_up(task, query, own))
        except RetrievalError as error:
            return _missing(query, str(error))

    def _look_up(self, task: str, query: Query, own: Keys) -> Found:
        index, manifest = self._shelf.get(task, query.retriever)
        admitted = self._admitted.of(task)
        return index.search(query, DEPTH * self._neighbours, own, admitted), manifest

    def _unsearchable(self, task: str, encoders: Mapping[str, str]) -> Iterator[MissingRetriever]:
        for specialist, sha256 in encoders.items():
            try:
                _, manifest = self._shelf.get(task, specialist)
            except RetrievalError as error:
                yield MissingRetriever(specialist, str(error))
                continue
            if manifest.encoder_sha256 != sha256:
                yield MissingRetriever(specialist, "its index is of other weights: build it again")

    def _neighbours_of(self, task: str, rankings: list[Ranking]) -> tuple[Neighbour, ...]:
        """More rows are asked for than wanted: an index may still hold cases removed since."""
        near = fusion.within_cut(fusion.fuse(rankings), self._cut)
        wanted = near[: 2 * self._neighbours]
        cases = database.cases_by_key(self._engine, task, [one.key for one in wanted], self._only)
        known = [one for one in wanted if one.key in cases]
        return tuple(
            Neighbour(cases[one.key], one.similarity, one.score, one.retrievers)
            for one in known[: self._neighbours]
        )

    def _are_foreign(self, task: str, rankings: list[Ranking]) -> bool:
        """Whether something was found, and nothing of it, near or far, is in the database."""
        found = sorted({key for ranking in rankings for key in ranking.keys})
        return bool(found) and not database.cases_by_key(self._engine, task, found)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._threads is None:
            raise RuntimeError("the retriever is not started")
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _is_own(case: ReferenceCase, group: str | None, image_sha256: str) -> bool:
    """Asked once more of the rows: a case may have been stored since the search began."""
    return case.image_sha256 == image_sha256 or (bool(group) and case.group == group)


def _typicality(found: list[Found]) -> float | None:
    """The case's own image and group are not among what was found: they were excluded."""
    ranks = [
        typicality.rank(ranking.similarities[0], manifest.nearest)
        for ranking, manifest in found
        if ranking.similarities and manifest.nearest
    ]
    return sum(ranks) / len(ranks) if ranks else None


def _missing(query: Query, reason: str) -> MissingRetriever:
    return MissingRetriever(query.retriever, reason)
