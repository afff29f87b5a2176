"""A small library of reference cases for tests: a real database, real FAISS, in one folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from builders import a_reference_case, sha256_of
from sqlalchemy import Engine

from retrieval import indexing, ingest
from retrieval.kinds import IVF_FP16, Rules
from retrieval.manifest import Manifest
from retrieval.neighbour import Query, Retrieval, Vector
from retrieval.retriever import FaissRetriever

TASK = "cxr-pneumonia"
SPECIALIST = "resnet18"
ENCODER = sha256_of("encoder")


def at(degrees: float) -> Vector:
    """A unit vector; two of them are as similar as the cosine of the angle between them."""
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 0], np.float32)


def rules(exact_up_to: int) -> Rules:
    """Lists even for the few cases of a story, kept precisely enough for angles a degree apart."""
    return Rules(exact_up_to, ladder=(IVF_FP16,), floor=0)


@dataclass
class Library:
    """Cases stand at angles, so that a story can say which is nearer."""

    engine: Engine
    indexes: Path
    retriever: FaissRetriever

    def put(self, case_id: str, degrees: float, *specialists: str, **fields: object) -> None:
        ingest.ingest(self.engine, [a_reference_case(case_id, **fields)])
        for specialist in specialists or (SPECIALIST,):
            self.store(case_id, at(degrees), specialist)

    def store(
        self, case_id: str, vector: Vector, specialist: str = SPECIALIST, encoder: str = ENCODER
    ) -> None:
        ingest.store_vectors(self.engine, TASK, specialist, encoder, {case_id: vector})

    def build(self, specialist: str = SPECIALIST, exact_up_to: int = 1000) -> Manifest:
        return indexing.build(self.engine, self.indexes, TASK, specialist, rules(exact_up_to))

    def update(self, specialist: str = SPECIALIST, exact_up_to: int = 1000) -> Manifest:
        return indexing.update(self.engine, self.indexes, TASK, specialist, rules(exact_up_to))

    def add(self, *case_ids: str, exact_up_to: int = 1000) -> Manifest:
        few = rules(exact_up_to)
        return indexing.put(self.engine, self.indexes, TASK, SPECIALIST, case_ids, few)

    def remove(self, *case_ids: str) -> int:
        return ingest.remove(self.engine, self.indexes, case_ids)

    def folder(self, specialist: str = SPECIALIST) -> Path:
        return self.indexes / TASK / specialist

    async def search(
        self,
        *specialists: str,
        degrees: float = 0,
        group: str | None = None,
        image_sha256: str = "",
        encoder: str = ENCODER,
    ) -> Retrieval:
        asked = specialists or (SPECIALIST,)
        queries = tuple(Query(name, encoder, at(degrees)) for name in asked)
        return await self.retriever.search(TASK, queries, group=group, image_sha256=image_sha256)

    async def found(self, **circumstances: object) -> list[str]:
        """The ids of the neighbours, best first."""
        retrieval = await self.search(**circumstances)  # type: ignore[arg-type]
        return [neighbour.case.id for neighbour in retrieval.neighbours]


async def problem(library: Library) -> str:
    """Why the one retriever is missing."""
    retrieval = await library.search()
    assert retrieval.neighbours == ()
    return retrieval.missing[0].reason
