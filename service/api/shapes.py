"""Shapes that several answers share: evidence, what was missing, provenance.

Probabilities are lists of label and probability in the task's order: labels are data, so they
are values here and never names of fields.
"""

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, Field

from retrieval.neighbour import Neighbour
from service.domain import Evidence, LabelledAnswer, Missing, Provenance, predicted_labels
from specialists.prediction import Segmentation, SpecialistPrediction
from specialists.task import Task

Sha256 = Annotated[str, Field(description="hexadecimal")]


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
    computed_in: str | None = Field(
        description="the numbers of its arithmetic: float32, bfloat16, 8-bit integers and float32, "
        "8-bit integers and bfloat16; null where they were not recorded"
    )


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


class SegmentationResponse(BaseModel):
    """What one segmentation specialist outlines; masks are not part of an answer."""

    specialist: str
    segment: str
    share: float = Field(description="of the image; 0 where nothing is found")
    areas: int
    places: list[str] = Field(
        description="thirds of the image as it is seen, of the largest areas, the largest first"
    )
    certainty: float = Field(description="the Dice that its probabilities promise")
    validation_dice: float | None
    weights_sha256: Sha256


class MissingResponse(BaseModel):
    part: str
    reason: str


class EvidenceResponse(BaseModel):
    """What the generalist was shown: specialists' predictions (MoED) and similar cases (RAD)."""

    moed: list[SpecialistPredictionResponse]
    rad: list[NeighbourResponse]
    typicality: float | None = Field(
        description="share of the reference cases that are less like the others than this case "
        "is: near 0 for an image unlike anything known"
    )
    segmentations: list[SegmentationResponse] = Field(
        description="of tasks that have a segment; shown to the generalist where the prompt "
        "template says so"
    )


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


def probabilities_shape(names: Iterable[str], values: Iterable[float]) -> list[LabelProbability]:
    return [
        LabelProbability(label=name, probability=value)
        for name, value in zip(names, values, strict=True)
    ]


def answer_shape(names: tuple[str, ...], answer: LabelledAnswer) -> LabelledAnswerResponse:
    return LabelledAnswerResponse(
        labels=list(answer.labels), probabilities=probabilities_shape(names, answer.probabilities)
    )


def prediction_shape(
    names: tuple[str, ...], prediction: SpecialistPrediction, task: Task | None
) -> SpecialistPredictionResponse:
    return SpecialistPredictionResponse(
        specialist=prediction.specialist,
        labels=list(predicted_labels(task, prediction)) if task else None,
        probabilities=probabilities_shape(names, prediction.probabilities),
        validation_accuracy=prediction.validation_accuracy,
        weights_sha256=prediction.weights_sha256,
        computed_in=prediction.computed_in or None,
    )


def neighbour_shape(neighbour: Neighbour) -> NeighbourResponse:
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


def segmentation_shape(one: Segmentation) -> SegmentationResponse:
    return SegmentationResponse(
        specialist=one.specialist,
        segment=one.segment,
        share=one.share,
        areas=one.areas,
        places=list(one.places),
        certainty=one.certainty,
        validation_dice=one.validation_dice,
        weights_sha256=one.weights_sha256,
    )


def missing_shape(missing: Missing) -> MissingResponse:
    return MissingResponse(part=missing.part, reason=missing.reason)


def provenance_shape(provenance: Provenance) -> ProvenanceResponse:
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


def evidence_shape(
    names: tuple[str, ...], evidence: Evidence, task: Task | None
) -> EvidenceResponse:
    """The evidence on the wire; `task` is as it is now, None where it is gone or has changed."""
    return EvidenceResponse(
        moed=[prediction_shape(names, one, task) for one in evidence.moed],
        rad=[neighbour_shape(one) for one in evidence.rad],
        typicality=evidence.typicality,
        segmentations=[segmentation_shape(one) for one in evidence.segmentations],
    )
