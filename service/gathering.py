"""Evidence of one case: what the specialists say, and which known cases are like it."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from retrieval.errors import RetrievalError
from retrieval.neighbour import Query, Retrieval
from service import ports, spans
from service.domain import Case, Evidence, Missing
from service.progress import Stopwatch, Tell
from specialists.batcher import Turn
from specialists.prediction import Consultation

FEWER_NEIGHBOURS = (5, 2, 0)


async def gather(
    specialists: ports.Specialists,
    retriever: ports.Retriever,
    case: Case,
    watch: Stopwatch,
    tell: Tell,
) -> Evidence:
    """MoED, then RAD by the same embeddings; nothing for a case without a task that has labels.

    A task that has switched RAD off gets none, and lacks nothing by it. What is missing is named
    in the evidence: it degrades an answer and stops none.
    """
    if not case.evidence_task.is_labelled:
        return Evidence()
    with watch.stage("specialists"):
        consultation = await specialists.consult(
            case.image.pixels, case.evidence_task, partial(tell, "specialist")
        )
    tell("specialists", consultation.predictions)
    if not uses_rad(case):
        missing = _missing_specialists(consultation)
        return Evidence(
            moed=consultation.predictions,
            missing=missing,
            segmentations=consultation.segmentations,
        )
    with watch.stage("retrieval"):
        retrieval, failure = await _retrieve(retriever, case, consultation)
    tell("retrieval", retrieval.neighbours)
    return Evidence(
        moed=consultation.predictions,
        rad=retrieval.neighbours,
        missing=(*_missing_specialists(consultation), *_missing_retrievers(retrieval), *failure),
        index_ids=retrieval.index_ids,
        typicality=retrieval.typicality,
        segmentations=consultation.segmentations,
    )


def tell_turn(turn: Turn) -> None:
    """A specialist's turn, as spans of the case that it answered."""
    queued, name = turn.queue_seconds, turn.name
    spans.past(spans.SPECIALIST_QUEUE, queued, ago_seconds=turn.seconds, specialist=name)
    spans.past(spans.SPECIALIST, turn.seconds, specialist=name)


def uses_rad(case: Case) -> bool:
    """Whether similar cases are wanted: neither the task nor the one it consults declines them."""
    return case.task.rad and case.evidence_task.rad


def queries_of(consultation: Consultation) -> tuple[Query, ...]:
    """What retrieval is asked: every specialist's embedding, for that specialist's index."""
    return tuple(
        Query(embedding.specialist, embedding.encoder_sha256, embedding.vector)
        for embedding in consultation.embeddings
    )


def shortened(evidence: Evidence) -> Iterator[Evidence]:
    """The evidence as it is, then with fewer neighbours, the least similar going first."""
    yield evidence
    for count in FEWER_NEIGHBOURS:
        if count < len(evidence.rad):
            yield replace(evidence, rad=evidence.rad[:count])


async def _retrieve(
    retriever: ports.Retriever, case: Case, consultation: Consultation
) -> tuple[Retrieval, tuple[Missing, ...]]:
    """Neighbours, or none and the reason: retrieval never stops an answer."""
    queries = queries_of(consultation)
    if not queries:
        return Retrieval(()), (Missing("retrieval", "no specialist to embed the image"),)
    try:
        found = await retriever.search(
            case.evidence_task.name,
            queries,
            group=case.group,
            image_sha256=case.image.pixels_sha256,
        )
    except RetrievalError as error:
        return Retrieval(()), (Missing("retrieval", str(error)),)
    return found, ()


def _missing_specialists(consultation: Consultation) -> tuple[Missing, ...]:
    return tuple(
        Missing(f"specialist {missing.specialist}", missing.reason)
        for missing in consultation.missing
    )


def _missing_retrievers(retrieval: Retrieval) -> tuple[Missing, ...]:
    return tuple(
        Missing(f"retrieval by {missing.retriever}", missing.reason)
        for missing in retrieval.missing
    )
