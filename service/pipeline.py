"""The collaboration: what happens to one case, stage by stage."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import version
from typing import Any, Generic, TypeVar

from service import ports, spans
from service.domain import (
    Answer,
    Case,
    Completion,
    Diagnosis,
    Evidence,
    LabelledAnswer,
    Prompt,
    Provenance,
    Report,
    Result,
    agreement,
    arbitration,
)
from service.errors import InvalidInput, PromptTooLong
from service.gathering import gather, queries_of, shortened, uses_rad
from service.generalist import parser, prompt
from service.generalist import template as templates
from service.generalist.template import Template
from service.progress import Stopwatch, Tell, nobody
from specialists.task import Task, TaskKind

__all__ = ["Pipeline", "queries_of"]

PREPROCESSING_VERSION = "2"  # oblong pixels are made square

First = TypeVar("First")
Second = TypeVar("Second")
Said = TypeVar("Said")
Kept = TypeVar("Kept", bound=Result)


@dataclass(frozen=True)
class Course(Generic[Said]):
    """What was said of a case first and last, and all that led from one to the other."""

    initial: Said
    evidence: Evidence
    final: Said
    provenance: Provenance
    notes: tuple[str, ...]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Pipeline:
    """The protocol of a case, over whichever parts it is given.

    Missing specialists or reference cases degrade an answer and are named in it; without the
    generalist there is none (GeneralistUnavailable). Everything is stored before it is returned.
    """

    specialists: ports.Specialists
    retriever: ports.Retriever
    generalist: ports.Generalist
    store: ports.Store
    template: Template = field(default_factory=lambda: templates.find(templates.DEFAULT))
    calibrated: Callable[[Diagnosis], Diagnosis] = lambda diagnosis: diagnosis

    async def diagnose(self, case: Case, tell: Tell = nobody) -> Diagnosis:
        """The generalist's final label or labels."""
        _demand(case.task, TaskKind.SINGLE_LABEL, TaskKind.MULTI_LABEL)
        course = await self._collaborate(case, partial(parser.labelled, case), tell)
        diagnosis = Diagnosis(
            id=case.id,
            created_at=datetime.now(UTC),
            task=case.task.name,
            label_names=case.task.label_names,
            final=course.final,
            initial=course.initial,
            evidence=course.evidence,
            agreement=agreement(case.task, course.evidence.moed, course.final.labels),
            review_reasons=parser.review_reasons(case, course.final, course.evidence),
            provenance=course.provenance,
            arbitration=arbitration(case.task, course.initial, course.evidence.moed, course.final),
            notes=course.notes,
            durations_seconds=course.seconds,
        )
        return await self._stored(self.calibrated(diagnosis))

    async def report(self, case: Case, tell: Tell = nobody) -> Report:
        """A draft report with Findings and Impression; `case.draft` may hold a specialist's."""
        _demand(case.task, TaskKind.REPORT)
        course = await self._collaborate(case, lambda said: said.text, tell)
        findings, impression = parser.sections(course.final)
        report = Report(
            id=case.id,
            created_at=datetime.now(UTC),
            task=case.task.name,
            consulted=case.consulted.name if case.consulted else None,
            label_names=case.evidence_task.label_names,
            findings=findings,
            impression=impression,
            text=course.final,
            initial_text=course.initial,
            evidence=course.evidence,
            review_reasons=parser.report_review_reasons(case, course.final, course.evidence),
            provenance=course.provenance,
            draft_sha256=_sha256(case.draft) if case.draft else None,
            notes=course.notes,
            durations_seconds=course.seconds,
        )
        return await self._stored(report)

    async def answer(self, case: Case, tell: Tell = nobody) -> Answer:
        """The answer to `case.question`: one of `case.choices` where there are any."""
        _demand(case.task, TaskKind.QUESTION)
        course = await self._collaborate(case, lambda said: said, tell)
        answer = Answer(
            id=case.id,
            created_at=datetime.now(UTC),
            task=case.task.name,
            consulted=case.consulted.name if case.consulted else None,
            label_names=case.evidence_task.label_names,
            question=case.question,
            text=course.final.text,
            initial_text=course.initial.text,
            choices=case.choices,
            probabilities=course.final.probabilities,
            evidence=course.evidence,
            review_reasons=parser.answer_review_reasons(case, course.final, course.evidence),
            provenance=course.provenance,
            notes=course.notes,
            durations_seconds=course.seconds,
        )
        return await self._stored(answer)

    async def weigh(
        self, case: Case, initial: LabelledAnswer, evidence: Evidence
    ) -> LabelledAnswer:
        """The final answer to other evidence, after an initial answer that is known already.

        For measuring: nothing is stored.
        """
        first = prompt.initial(self.template, case)
        read = partial(parser.labelled, case)
        _, final, _ = await self._arbitrate(
            case, first, initial, evidence, read, Stopwatch(case.task.name), nobody
        )
        return final

    async def _collaborate(
        self, case: Case, read: Callable[[Completion], Said], tell: Tell
    ) -> Course[Said]:
        watch = Stopwatch(case.task.name)
        with watch.stage("total"):
            with watch.stage("prompt"):
                first = prompt.initial(self.template, case)
            initial, evidence = await _together(
                self._look(case, first, read, watch, tell),
                gather(self.specialists, self.retriever, case, watch, tell),
            )
            last, final, notes = await self._arbitrate(
                case, first, initial, evidence, read, watch, tell
            )
        return Course(
            initial,
            evidence,
            final,
            self._provenance(case, evidence, first, last),
            (*case.image.notes, *_what_is_switched_off(case), *notes),
            watch.seconds,
        )

    async def _look(
        self,
        case: Case,
        asked: Prompt,
        read: Callable[[Completion], Said],
        watch: Stopwatch,
        tell: Tell,
    ) -> Said:
        """The first answer; it is the last one, and heard as such, where none can follow."""
        is_last = not (case.evidence_task.is_labelled or case.draft)
        with watch.stage("initial"):
            written = await self._write(asked, tell if is_last else nobody)
        with watch.stage("parse"):
            said = read(written)
        tell("initial", said)
        return said

    async def _arbitrate(
        self,
        case: Case,
        first: Prompt,
        initial: Said,
        evidence: Evidence,
        read: Callable[[Completion], Said],
        watch: Stopwatch,
        tell: Tell,
    ) -> tuple[Prompt, Said, tuple[str, ...]]:
        """The final answer: the first, with nothing to weigh. What is too long is shortened."""
        if not prompt.weighed(self.template, case, evidence):
            return first, initial, ()
        look = initial if isinstance(initial, LabelledAnswer) else None
        too_long: PromptTooLong | None = None
        for shown in shortened(evidence):
            with watch.stage("prompt"):
                asked = prompt.arbitration(self.template, case, shown, look)
            try:
                with watch.stage("arbitration"):
                    written = await self._write(asked, tell)
            except PromptTooLong as error:
                too_long = error
                continue
            with watch.stage("parse"):
                final = read(written)
            return asked, final, _what_was_left_out(evidence, shown)
        raise too_long or PromptTooLong("the prompt is too long for the generalist")

    async def _write(self, asked: Prompt, tell: Tell) -> Completion:
        """Free text is told piece by piece where somebody listens."""
        if asked.choices or tell is nobody:
            return await self.generalist.answer(asked)
        pieces: list[str] = []
        async with aclosing(self.generalist.stream(asked)) as stream:
            async for piece in stream:
                pieces.append(piece)
                tell("text", piece)
        return Completion("".join(pieces).strip())

    async def _stored(self, result: Kept) -> Kept:
        """Who leaves while it is being saved comes too late: a save has no half-way."""
        with spans.span("store", task=result.task):
            saving = asyncio.ensure_future(self.store.save(result))
            while not saving.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait((saving,))  # which, unlike await, cancels nothing
            saving.result()
        return result

    def _provenance(
        self, case: Case, evidence: Evidence, initial: Prompt, final: Prompt
    ) -> Provenance:
        return Provenance(
            input_sha256=case.image.sha256,
            code_version=_code_version(),
            preprocessing_version=PREPROCESSING_VERSION,
            task_sha256=_task_sha256(case.task),
            weights_sha256={
                **{one.specialist: one.weights_sha256 for one in evidence.moed},
                **{one.specialist: one.weights_sha256 for one in evidence.segmentations},
            },
            index_ids=evidence.index_ids,
            prompt_template=self.template.version,
            initial_prompt_sha256=prompt.sha256(initial),
            arbitration_prompt_sha256=prompt.sha256(final),
            generalist=self.generalist.identity,
            requested_by=case.requested_by,
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


_ASKED = {
    TaskKind.SINGLE_LABEL: "a diagnosis",
    TaskKind.MULTI_LABEL: "a diagnosis",
    TaskKind.REPORT: "a report",
    TaskKind.QUESTION: "an answer",
}


def _demand(task: Task, *kinds: TaskKind) -> None:
    if task.kind not in kinds:
        raise InvalidInput(
            f"task {task.name!r} is a {task.kind} task: it gives {_ASKED[task.kind]}, "
            f"not {_ASKED[kinds[0]]}"
        )


def _what_was_left_out(evidence: Evidence, shown: Evidence) -> tuple[str, ...]:
    if len(shown.rad) == len(evidence.rad):
        return ()
    return (
        f"the prompt held {len(shown.rad)} of {len(evidence.rad)} similar cases: "
        "more would not fit the generalist's context",
    )


def _what_is_switched_off(case: Case) -> tuple[str, ...]:
    if uses_rad(case) or not case.evidence_task.is_labelled:
        return ()
    return ("no similar cases: the task has switched retrieval off",)


@cache
def _code_version() -> str:
    """Read once: finding an installed distribution is a search of the disk."""
    return version("gsco")


def _task_sha256(task: Task) -> str:
    """Of all that the task says of its answers; how images come to it is none of them.

    What is said by every task by default was once not said at all.
    """
    said_since = {"rad": True, "segment": None, "segmenters": ()}
    fields = {
        name: value
        for name, value in asdict(task).items()
        if name != "rules" and (name not in said_since or value != said_since[name])
    }
    return _sha256(json.dumps(fields, sort_keys=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
