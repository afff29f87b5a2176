"""Diagnoses and tasks on the wire, and how domain values become them."""

from datetime import datetime

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field

from service.api import examples
from service.api.schemas_jobs import JobRequest
from service.api.shapes import (
    EvidenceResponse,
    LabelledAnswerResponse,
    LabelProbability,
    MissingResponse,
    ProvenanceResponse,
    answer_shape,
    evidence_shape,
    missing_shape,
    probabilities_shape,
    provenance_shape,
)
from service.domain import INTENDED_USE, Arbitration, Diagnosis
from specialists.task import Concept, Label, Task

TASK_NAME = r"^[a-z0-9][a-z0-9-]{0,63}$"
FRAME = Field(None, ge=1, description="of several frames or pages, counted from 1")
FRAMES = Field(
    None,
    max_length=256,
    examples=["all", "1,4-6"],
    description="several frames of one file, at most 64: the reply has `diagnoses`",
)
TASK = Field(
    None,
    min_length=1,
    max_length=64,
    examples=["cxr-pneumonia"],
    description="unset: chosen by the tasks' rules, for a DICOM file",
)
GROUP = Field(
    None,
    pattern=r"^[A-Za-z0-9._-]{1,128}$",
    description="pseudonym of the patient or study, so that retrieval leaves out their own "
    "images; never a name or a number that identifies them",
)


class CaseRequest(JobRequest):
    """What every case is asked with; the file's name is not kept."""

    file: UploadFile = Field(description="DICOM, PNG, JPEG, TIFF, WebP or BMP")
    frame: int | None = FRAME
    group: str | None = GROUP


class DiagnosisRequest(CaseRequest):
    """One image and the task it is to be looked at for."""

    task: str | None = TASK
    frames: str | None = FRAMES


class DiagnosisReference(JobRequest):
    """What is to be looked at, on a DICOMweb source of the settings: never an address."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.REFERENCE]})

    source: str = Field(min_length=1, max_length=64, description="its name in the settings")
    study_instance_uid: str = Field(max_length=64)
    series_instance_uid: str | None = Field(None, max_length=64)
    sop_instance_uid: str | None = Field(
        None, max_length=64, description="unset: every image of the series or study, at most 64"
    )
    task: str | None = TASK
    frame: int | None = FRAME
    frames: str | None = FRAMES
    group: str | None = GROUP


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
    arbitration: Arbitration = Field(
        description="how the final answer came out of the first one and the specialists' majority"
    )
    label_set: list[str] | None = Field(
        description="holds the truth with the probability `coverage`; null where the task is not "
        "calibrated"
    )
    coverage: float | None
    needs_review: bool
    review_reasons: list[str]
    degraded: list[MissingResponse] = Field(description="parts that should have contributed")
    provenance: ProvenanceResponse
    durations_seconds: dict[str, float]
    notes: list[str] = Field(description="what intake had to choose, such as the frame")
    intended_use: str


class ImageDiagnosisResponse(BaseModel):
    """The diagnosis of one image of several; `sop_instance_uid` is null for other than DICOM."""

    sop_instance_uid: str | None
    frame_number: int | None
    diagnosis: DiagnosisResponse


class RefusedResponse(BaseModel):
    """An image of several that was not diagnosed; `type` is that of the problem it would be."""

    sop_instance_uid: str | None
    frame_number: int | None
    type: str
    detail: str


class DiagnosesResponse(BaseModel):
    """What came of several images asked for at once."""

    diagnoses: list[ImageDiagnosisResponse]
    refused: list[RefusedResponse]


class ConceptResponse(BaseModel):
    scheme: str
    code: str
    meaning: str


class LabelResponse(BaseModel):
    name: str
    concept: ConceptResponse | None


class RuleResponse(BaseModel):
    """An image fits that has one of the values in every field that is not empty."""

    modality: list[str]
    body_part: list[str]
    procedure: list[str]


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
    consults: str = Field(
        description="of a report or question task: the task whose specialists and cases serve it"
    )
    segment: LabelResponse | None = Field(description="what segmentation specialists outline")
    segmenters: list[str] = Field(description="who should outline it; empty means all known")
    rules: list[RuleResponse] = Field(
        description="which DICOM images are for this task when none is named"
    )


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
        probabilities=probabilities_shape(names, final.probabilities),
        initial=answer_shape(names, diagnosis.initial),
        evidence=evidence_shape(names, diagnosis.evidence, task),
        arbitration=diagnosis.arbitration,
        label_set=list(diagnosis.label_set) if diagnosis.coverage is not None else None,
        coverage=diagnosis.coverage,
        agreement=diagnosis.agreement,
        needs_review=diagnosis.needs_review,
        review_reasons=list(diagnosis.review_reasons),
        degraded=[missing_shape(missing) for missing in diagnosis.degraded],
        provenance=provenance_shape(diagnosis.provenance),
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
        labels=[_label(label) for label in task.labels],
        nothing_found=task.nothing_found,
        thresholds=list(task.thresholds),
        panel=list(task.panel),
        consults=task.consults,
        segment=_label(task.segment) if task.segment else None,
        segmenters=list(task.segmenters),
        rules=[
            RuleResponse(
                modality=list(rule.modality),
                body_part=list(rule.body_part),
                procedure=list(rule.procedure),
            )
            for rule in task.rules
        ],
    )


def _label(label: Label) -> LabelResponse:
    return LabelResponse(name=label.name, concept=_concept(label.concept))


def _concept(concept: Concept | None) -> ConceptResponse | None:
    if concept is None:
        return None
    return ConceptResponse(scheme=concept.scheme, code=concept.code, meaning=concept.meaning)
