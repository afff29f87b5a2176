"""What retrieval is asked, and what it answers."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]  # (dim,), unit length


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One specialist's embedding of the case, to be looked up in that specialist's index."""

    retriever: str
    encoder_sha256: str
    vector: Vector


@dataclass(frozen=True, slots=True)
class ReferenceCase:
    """A known case. `group` is the patient or study, so that nobody retrieves themselves."""

    id: str
    task: str
    labels: tuple[str, ...]
    image_sha256: str
    group: str
    report: str = ""
    source: str = ""
    licence: str = ""
    modality: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which reference cases may be retrieved: one of each list that is not empty.

    `since` and `until` tell when a case was added, the latter excluded; both have a time zone.
    """

    sources: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


EVERY_CASE = Filter()


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A reference case that resembles the query.

    `similarity` is the mean cosine similarity over the retrievers that found it, `score` the
    reciprocal-rank fusion score by which neighbours are ordered.
    """

    case: ReferenceCase
    similarity: float
    score: float
    retrievers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MissingRetriever:
    """A specialist whose index could not be searched, and why in one sentence."""

    retriever: str
    reason: str


@dataclass(frozen=True, slots=True)
class Retrieval:
    """The fused neighbours of one case, best first, and what was missing in the search.

    `typicality` is the share of the reference cases that are less like their nearest other one
    than the case is like its nearest, as a mean over the retrievers: near 0 for an image unlike
    anything known. None where there are too few reference cases to tell.
    """

    neighbours: tuple[Neighbour, ...]
    index_ids: tuple[str, ...] = ()
    missing: tuple[MissingRetriever, ...] = ()
    typicality: float | None = None
