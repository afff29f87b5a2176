"""The collaboration: what happens to one case, stage by stage."""

import asyncio
import hashlib
import json
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, TypeVar

from retrieval.errors import RetrievalError
from retrieval.neighbour import Query, Retrieval
from service import ports
from service.domain import (
    Case,
    Diagnosis,
    Evidence,
    LabelledAnswer,
    Missing,
    Prompt,
    Provenance,
    agreement,
    arbitration,
)
from service.errors import InvalidInput
from service.generalist import parser, prompt
from service.generalist import template as templates
from service.generalist.template import Template
from specialists.prediction import Consultation
from specialists.task import Task

PREPROCESSING_VERSION = "1"

First = TypeVar("First")
Second = TypeVar("Second")


@dataclass
class Stopwatch:
    """Seconds that each stage of one case took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - started, 4)


@dataclass(frozen=True)
class Pipeline:
    """The protocol of a case, over whichever parts it is given."""

    specialists: ports.Specialists
    retriever: ports.Retriever
    generalist: ports.Generalist
    store: ports.Store
    template: Template = field(default_factory=lambda: templates.find(templates.DEFAULT))

    async def diagnose(self, case: Case) -> Diagnosis:
        """The generalist's final answer, stored before it is returned.

        Missing specialists or reference cases degrade a diagnosis and are named in it; without
        the generalist there is none (GeneralistUnavailable).
        """
        _check_kind(case.task)
        watch = Stopwatch()
        with watch.stage("total"):
            initial_prompt = prompt.initial(self.template, case)
            initial, evidence = await _together(
                self._ask(case, initial_prompt, watch, "initial"),
                self._gather_evidence(case, watch),
            )
            final_prompt = prompt.arbitration(self.template, case, evidence, initial)
            final = await self._ask(case, final_prompt, watch, "arbitration")
        diagnosis = Diagnosis(
            id=case.id,
            created_at=datetime.now(UTC),
            task=case.task.name,
            label_names=case.task.label_names,
            final=final,
            initial=initial,
            evidence=evidence,
            agreement=agreement(case.task, evidence.moed, final.labels),
            review_reasons=parser.review_reasons(case, final, evidence),
            provenance=self._provenance(case, evidence, initial_prompt, final_prompt),
            arbitration=arbitration(case.task, initial, evidence.moed, final),
            notes=case.image.notes,
            durations_seconds=watch.seconds,
        )
        await self.store.save(diagnosis)
        return diagnosis

    async def _ask(self, case: Case, asked: Prompt, watch: Stopwatch, stage: str) -> LabelledAnswer:
        with watch.stage(stage):
            return parser.labelled(case, await self.generalist.answer(asked))

    async def _gather_evidence(self, case: Case, watch: Stopwatch) -> Evidence:
        with watch.stage("specialists"):
            consultation = await self.specialists.consult(case.image.pixels, case.task)
        with watch.stage("retrieval"):
            retrieval, failure = await self._retrieve(case, consultation)
        missing = (*_missing_specialists(consultation), *_missing_retrievers(retrieval), *failure)
        return Evidence(
            consultation.predictions,
            retrieval.neighbours,
            missing,
            retrieval.index_ids,
            retrieval.typicality,
        )

    async def _retrieve(
        self, case: Case, consultation: Consultation
    ) -> tuple[Retrieval, tuple[Missing, ...]]:
        """Neighbours, or none and the reason: retrieval never stops a diagnosis."""
        queries = queries_of(consultation)
        if not queries:
            return Retrieval(()), (Missing("retrieval", "no specialist to embed the image"),)
        try:
            found = await self.retriever.search(
                case.task.name, queries, group=case.group, image_sha256=case.image.pixels_sha256
            )
        except RetrievalError as error:
            return Retrieval(()), (Missing("retrieval", str(error)),)
        return found, ()

    def _provenance(
        self, case: Case, evidence: Evidence, initial: Prompt, final: Prompt
    ) -> Provenance:
        return Provenance(
            input_sha256=case.image.sha256,
            code_version=version("gsco"),
            preprocessing_version=PREPROCESSING_VERSION,
            task_sha256=_task_sha256(case.task),
            weights_sha256={p.specialist: p.weights_sha256 for p in evidence.moed},
            index_ids=evidence.index_ids,
            prompt_template=self.template.version,
            initial_prompt_sha256=prompt.sha256(initial),
            arbitration_prompt_sha256=prompt.sha256(final),
            generalist=self.generalist.identity,
        )


def queries_of(consultation: Consultation) -> tuple[Query, ...]:
    """What retrieval is asked: every specialist's embedding, for that specialist's index."""
    return tuple(
        Query(embedding.specialist, embedding.encoder_sha256, embedding.vector)
        for embedding in consultation.embeddings
    )


async def _together(
    first: Coroutine[Any, Any, First], second: Coroutine[Any, Any, Second]
) -> tuple[First, Second]:
    """Both at once; the first failure cancels the other and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            one, two = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return one.result(), two.result()


def _check_kind(task: Task) -> None:
    if not task.is_labelled:
        raise InvalidInput(
            f"task {task.name!r} is of kind {task.kind}; only labelled tasks are diagnosed"
        )


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


def _task_sha256(task: Task) -> str:
    return hashlib.sha256(json.dumps(asdict(task), sort_keys=True).encode()).hexdigest()
