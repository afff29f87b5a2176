"""Reports and answers on the wire."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.api import examples
from service.api.schemas import CaseRequest
from service.api.shapes import (
    EvidenceResponse,
    LabelProbability,
    MissingResponse,
    ProvenanceResponse,
    evidence_shape,
    missing_shape,
    probabilities_shape,
    provenance_shape,
)
from service.domain import INTENDED_USE, Answer, Report
from service.generalist.prompt import one_line
from specialists.task import Task

LONGEST_QUESTION = 500
LONGEST_DRAFT = 10_000
LONGEST_CHOICE = 100
MOST_CHOICES = 20


def _one_line(question: str) -> str:
    if not (line := one_line(question)):
        raise ValueError("is empty")
    return line


def _distinct(given: list[str]) -> list[str]:
    """One permitted answer is no choice, and two that are equal cannot be told apart."""
    choices = [choice.strip() for choice in given]
    if any(not _is_choice(choice) for choice in choices):
        raise ValueError(f"each is one line of 1 to {LONGEST_CHOICE} characters without '\"'")
    if len({choice.casefold() for choice in choices}) < len(choices) or len(choices) == 1:
        raise ValueError("two or more different answers, or none for an open question")
    return choices


def _is_choice(text: str) -> bool:
    return 0 < len(text) <= LONGEST_CHOICE and text.isprintable() and '"' not in text


Question = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_QUESTION),
    AfterValidator(_one_line),
]
Choices = Annotated[list[str], Field(max_length=MOST_CHOICES), AfterValidator(_distinct)]
Draft = Annotated[str, Field(max_length=LONGEST_DRAFT)]


class ReportRequest(CaseRequest):
    """One image and the report task."""

    task: str = Field(min_length=1, max_length=64, examples=["phantom-cxr-report"])
    draft: Draft = Field("", description="a report specialist's text, as evidence")


class AnswerRequest(CaseRequest):
    """One image and a question about it."""

    task: str = Field(min_length=1, max_length=64, examples=["phantom-cxr-questions"])
    question: Question
    choices: Choices = Field(
        default_factory=list,
        description="the permitted answers to a closed question; repeat the field for each",
    )


class ReportResponse(BaseModel):
    """A draft report, to be read, corrected and signed by a person."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.REPORT]})

    id: str
    created_at: datetime
    task: str
    consulted: str | None = Field(description="the task whose specialists and cases were asked")
    findings: str
    impression: str
    text: str
    initial_text: str = Field(description="what was written without evidence")
    draft_sha256: str | None = Field(description="of the draft that was passed in")
    evidence: EvidenceResponse
    needs_review: bool
    review_reasons: list[str]
    degraded: list[MissingResponse]
    provenance: ProvenanceResponse
    durations_seconds: dict[str, float]
    notes: list[str]
    intended_use: str


class AnswerResponse(BaseModel):
    """The answer to a question; with choices, one of them and a probability for each."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ANSWER]})

    id: str
    created_at: datetime
    task: str
    consulted: str | None = Field(description="the task whose specialists and cases were asked")
    question: str
    answer: str
    probabilities: list[LabelProbability] | None = Field(
        description="of each choice; null for an open question"
    )
    initial_answer: str = Field(description="what was answered without evidence")
    evidence: EvidenceResponse
    needs_review: bool
    review_reasons: list[str]
    degraded: list[MissingResponse]
    provenance: ProvenanceResponse
    durations_seconds: dict[str, float]
    notes: list[str]
    intended_use: str


def report_response(report: Report, consulted: Task | None) -> ReportResponse:
    """A report on the wire; `consulted` is the task as it is now, None where it is gone."""
    return ReportResponse(
        id=report.id,
        created_at=report.created_at,
        task=report.task,
        consulted=report.consulted,
        findings=report.findings,
        impression=report.impression,
        text=report.text,
        initial_text=report.initial_text,
        draft_sha256=report.draft_sha256,
        evidence=evidence_shape(
            report.label_names, report.evidence, _unchanged(consulted, report.label_names)
        ),
        needs_review=report.needs_review,
        review_reasons=list(report.review_reasons),
        degraded=[missing_shape(missing) for missing in report.degraded],
        provenance=provenance_shape(report.provenance),
        durations_seconds=report.durations_seconds,
        notes=list(report.notes),
        intended_use=INTENDED_USE,
    )


def answer_response(answer: Answer, consulted: Task | None) -> AnswerResponse:
    """An answer on the wire; `consulted` is the task as it is now, None where it is gone."""
    return AnswerResponse(
        id=answer.id,
        created_at=answer.created_at,
        task=answer.task,
        consulted=answer.consulted,
        question=answer.question,
        answer=answer.text,
        probabilities=probabilities_shape(answer.choices, answer.probabilities)
        if answer.choices
        else None,
        initial_answer=answer.initial_text,
        evidence=evidence_shape(
            answer.label_names, answer.evidence, _unchanged(consulted, answer.label_names)
        ),
        needs_review=answer.needs_review,
        review_reasons=list(answer.review_reasons),
        degraded=[missing_shape(missing) for missing in answer.degraded],
        provenance=provenance_shape(answer.provenance),
        durations_seconds=answer.durations_seconds,
        notes=list(answer.notes),
        intended_use=INTENDED_USE,
    )


def _unchanged(task: Task | None, names: tuple[str, ...]) -> Task | None:
    return task if task is not None and task.label_names == names else None
