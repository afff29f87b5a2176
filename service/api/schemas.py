"""The wire's shapes, and how domain values become them.

Probabilities are lists of label and probability in the task's order: labels are data, so they
are values here and never names of fields.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field

from retrieval.neighbour import Neighbour
from service.api import examples
from service.domain import (
    INTENDED_USE,
    Diagnosis,
    LabelledAnswer,
    Missing,
    Provenance,
    predicted_labels,
)
from specialists.prediction import SpecialistPrediction
from specialists.task import Concept, Task

Sha256 = Annotated[str, Field(description="hexadecimal")]


class DiagnosisRequest(BaseModel):
    """One image and the task it is to be looked at for; the file's name is not kept."""

    model_config = ConfigDict(extra="forbid")

    file: UploadFile = Field(description="DICOM, PNG, JPEG, TIFF, WebP or BMP")
    task: str = Field(min_length=1, max_length=64, examples=["cxr-pneumonia"])
    frame: int | None = Field(None, ge=1, description="of several frames or pages, counted from 1")
    group: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{1,128}$",
        description="pseudonym of the patient or study, so that retrieval leaves out their own "
        "images; never a name or a number that identifies them",
    )


class LabelProbability(BaseModel):
    label: str
    probability: float


class LabelledAnswerResponse(BaseModel):
    """What was answered, and the probability of every label in the task's order."""

    labels: list[str]
    probabilities: list[LabelProbability]


class SpecialistPredictionResponse(BaseModel):
    specialist: str
    labels: list[str] | None = Field(
        description="the labels it names; null where the task has changed since or is gone"
    )
    probabilities: list[LabelProbability]
    validation_accuracy: float | None
    weights_sha256: Sha256


class NeighbourResponse(BaseModel):
    case_id: str
    labels: list[str]
    similarity: float = Field(description="mean cosine similarity over its retrievers")
    score: float = Field(
        description="reciprocal-rank fusion score, by which neighbours are ordered"
    )
    retrievers: list[str]
    source: str
    licence: str
    report: str


class MissingResponse(BaseModel):
    part: str
    reason: str


class EvidenceResponse(BaseModel):
    """What the generalist was shown: specialists' predictions (MoED) and similar cases (RAD)."""

    moed: list[SpecialistPredictionResponse]
    rad: list[NeighbourResponse]


class GeneralistResponse(BaseModel):
    engine: str
    model: str
    weights_sha256: str
    sampling: str


class SpecialistWeights(BaseModel):
    specialist: str
    weights_sha256: Sha256


class ProvenanceResponse(BaseModel):
    """Everything needed to say later how the diagnosis came about."""

    input_sha256: Sha256
    code_version: str
    preprocessing_version: str
    task_sha256: Sha256
    weights: list[SpecialistWeights]
    index_ids: list[str]
    prompt_template: str
    initial_prompt_sha256: Sha256
    arbitration_prompt_sha256: Sha256
    generalist: GeneralistResponse


class DiagnosisResponse(BaseModel):
    """The generalist's final answer with all it rests on."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.DIAGNOSIS]})

    id: str
    created_at: datetime
    task: str
    labels: list[str]
    probabilities: list[LabelProbability]
    initial: LabelledAnswerResponse = Field(description="the generalist's answer without evidence")
    evidence: EvidenceResponse
    agreement: float | None = Field(description="share of the specialists that name these labels")
    needs_review: bool
    review_reasons: list[str]
    degraded: list[MissingResponse] = Field(description="parts that should have contributed")
    provenance: ProvenanceResponse
    durations_seconds: dict[str, float]
    notes: list[str] = Field(description="what intake had to choose, such as the frame")
    intended_use: str


class ConceptResponse(BaseModel):
    scheme: str
    code: str
    meaning: str


class LabelResponse(BaseModel):
    name: str
    concept: ConceptResponse | None


class TaskResponse(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.TASK]})

    name: str
    kind: str
    modality: str
    body_part: str
    labels: list[LabelResponse]
    nothing_found: str | None = Field(description="the label that stands for no finding")
    thresholds: list[float] = Field(description="by label; empty means 0.5 for each")
    panel: list[str] = Field(description="backbones that should answer; empty means all ten")


class TasksResponse(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"tasks": [examples.TASK]}]})

    tasks: list[TaskResponse]


def diagnosis_response(diagnosis: Diagnosis, task: Task | None) -> DiagnosisResponse:
    """A diagnosis on the wire; `task` is as it is now, None where it no longer exists."""
    if task is not None and task.label_names != diagnosis.label_names:
        task = None
    final, names = diagnosis.final, diagnosis.label_names
    return DiagnosisResponse(
        id=diagnosis.id,
        created_at=diagnosis.created_at,
        task=diagnosis.task,
        labels=list(final.labels),
        probabilities=_probabilities(names, final.probabilities),
        initial=_answer(names, diagnosis.initial),
        evidence=EvidenceResponse(
            moed=[_prediction(names, p, task) for p in diagnosis.evidence.moed],
            rad=[_neighbour(neighbour) for neighbour in diagnosis.evidence.rad],
        ),
        agreement=diagnosis.agreement,
        needs_review=diagnosis.needs_review,
        review_reasons=list(diagnosis.review_reasons),
        degraded=[_missing(missing) for missing in diagnosis.degraded],
        provenance=_provenance(diagnosis.provenance),
        durations_seconds=diagnosis.durations_seconds,
        notes=list(diagnosis.notes),
        intended_use=INTENDED_USE,
    )


def task_response(task: Task) -> TaskResponse:
    return TaskResponse(
        name=task.name,
        kind=task.kind,
        modality=task.modality,
        body_part=task.body_part,
        labels=[
            LabelResponse(name=label.name, concept=_concept(label.concept)) for label in task.labels
        ],
        nothing_found=task.nothing_found,
        thresholds=list(task.thresholds),
        panel=list(task.panel),
    )


def _concept(concept: Concept | None) -> ConceptResponse | None:
    if concept is None:
        return None
    return ConceptResponse(scheme=concept.scheme, code=concept.code, meaning=concept.meaning)


def _probabilities(names: Iterable[str], values: Iterable[float]) -> list[LabelProbability]:
    return [
        LabelProbability(label=name, probability=value)
        for name, value in zip(names, values, strict=True)
    ]


def _answer(names: tuple[str, ...], answer: LabelledAnswer) -> LabelledAnswerResponse:
    return LabelledAnswerResponse(
        labels=list(answer.labels), probabilities=_probabilities(names, answer.probabilities)
    )


def _prediction(
    names: tuple[str, ...], prediction: SpecialistPrediction, task: Task | None
) -> SpecialistPredictionResponse:
    return SpecialistPredictionResponse(
        specialist=prediction.specialist,
        labels=list(predicted_labels(task, prediction)) if task else None,
        probabilities=_probabilities(names, prediction.probabilities),
        validation_accuracy=prediction.validation_accuracy,
        weights_sha256=prediction.weights_sha256,
    )


def _neighbour(neighbour: Neighbour) -> NeighbourResponse:
    case = neighbour.case
    return NeighbourResponse(
        case_id=case.id,
        labels=list(case.labels),
        similarity=neighbour.similarity,
        score=neighbour.score,
        retrievers=list(neighbour.retrievers),
        source=case.source,
        licence=case.licence,
        report=case.report,
    )


def _missing(missing: Missing) -> MissingResponse:
    return MissingResponse(part=missing.part, reason=missing.reason)


def _provenance(provenance: Provenance) -> ProvenanceResponse:
    generalist = provenance.generalist
    return ProvenanceResponse(
        input_sha256=provenance.input_sha256,
        code_version=provenance.code_version,
        preprocessing_version=provenance.preprocessing_version,
        task_sha256=provenance.task_sha256,
        weights=[
            SpecialistWeights(specialist=name, weights_sha256=sha256)
            for name, sha256 in provenance.weights_sha256.items()
        ],
        index_ids=list(provenance.index_ids),
        prompt_template=provenance.prompt_template,
        initial_prompt_sha256=provenance.initial_prompt_sha256,
        arbitration_prompt_sha256=provenance.arbitration_prompt_sha256,
        generalist=GeneralistResponse(
            engine=generalist.engine,
            model=generalist.model,
            weights_sha256=generalist.weights_sha256,
            sampling=generalist.sampling,
        ),
    )
