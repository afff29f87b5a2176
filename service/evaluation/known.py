"""Reference cases held in memory: those of a data set, embedded by whichever panel is measured."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval import fusion, typicality
from retrieval.fusion import Ranking
from retrieval.neighbour import MissingRetriever, Neighbour, Query, ReferenceCase, Retrieval
from retrieval.retriever import DEPTH
from service.domain import pixels_sha256, target_labels
from specialists.loader import Specialist
from specialists.task import Task
from specialists.training import evaluate
from specialists.training.split import Split


@dataclass(frozen=True, eq=False)
class KnownCases:
    """Searched as the service's retriever searches its indexes, exactly and without a database."""

    cases: tuple[ReferenceCase, ...]
    vectors: Mapping[str, NDArray[np.float32]]  # by specialist: (cases, dimension), unit length
    spreads: Mapping[str, tuple[float, ...]]
    neighbours: int
    index_id: str  # other reference cases have another

    async def search(
        self, task: str, queries: tuple[Query, ...], *, group: str | None, image_sha256: str
    ) -> Retrieval:
        del task
        return await asyncio.to_thread(self._search, queries, group, image_sha256)

    def _search(self, queries: Sequence[Query], group: str | None, image_sha256: str) -> Retrieval:
        told = [query for query in queries if query.retriever in self.vectors]
        own = np.array([_is_own(case, group, image_sha256) for case in self.cases])
        rankings = [self._ranking(query, own) for query in told]
        near = fusion.within_cut(fusion.fuse(rankings), fusion.CUT)[: self.neighbours]
        ranks = [
            typicality.rank(one.similarities[0], self.spreads[one.retriever])
            for one in rankings
            if one.similarities and self.spreads[one.retriever]
        ]
        return Retrieval(
            tuple(
                Neighbour(self.cases[one.key], one.similarity, one.score, one.retrievers)
                for one in near
            ),
            index_ids=(self.index_id,),
            missing=tuple(
                MissingRetriever(query.retriever, "it embedded no reference case")
                for query in queries
                if query.retriever not in self.vectors
            ),
            typicality=sum(ranks) / len(ranks) if ranks else None,
        )

    def _ranking(self, query: Query, own: NDArray[np.bool_]) -> Ranking:
        similarities = np.where(own, -np.inf, self.vectors[query.retriever] @ query.vector)
        depth = min(DEPTH * self.neighbours, int((~own).sum()))
        best = np.argsort(-similarities, kind="stable")[:depth]
        return Ranking(query.retriever, tuple(best.tolist()), tuple(similarities[best].tolist()))


def known_cases(
    panel: Sequence[Specialist], task: Task, split: Split, neighbours: int
) -> KnownCases:
    """The images of a split as reference cases."""
    said = evaluate.run(panel, split.images)
    vectors = {name: embeddings for name, (_, embeddings) in said.items()}
    cases = tuple(
        ReferenceCase(
            id=f"{task.name}-known-{place}",
            task=task.name,
            labels=target_labels(task, split.targets[place]),
            image_sha256=pixels_sha256(split.images[place]),
            group=split.groups[place] or "",
        )
        for place in range(len(split))
    )
    spreads = {name: typicality.quantiles(known) for name, known in vectors.items()}
    return KnownCases(cases, vectors, spreads, neighbours, _index_id(cases))


def _index_id(cases: Sequence[ReferenceCase]) -> str:
    told = [(case.image_sha256, case.labels, case.group) for case in cases]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _is_own(case: ReferenceCase, group: str | None, image_sha256: str) -> bool:
    return case.image_sha256 == image_sha256 or (bool(group) and case.group == group)
