"""What a result says, before any format: groups of numbers and codes, then codes and texts.

SR, FHIR and HL7 v2 all say exactly this. Report texts of neighbours are left out: they are about
other patients.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from math import isfinite

from retrieval.neighbour import Neighbour
from service.domain import INTENDED_USE, Diagnosis, LabelledAnswer, Provenance, Report
from service.pacs import concepts
from service.pacs.concepts import NOT_FOR_CLINICAL_USE, line, name, paragraphs
from specialists.prediction import Segmentation, SpecialistPrediction
from specialists.task import Concept, Task

Written = Diagnosis | Report
"""Results that belong in a patient's record. An Answer is part of a conversation, and is not."""

DIGITS = 6


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What computed something, exactly enough to find it again (PS3.16 TID 4019)."""

    name: str
    version: str
    weights_sha256: str = ""
    settings: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Weights and settings, one sentence each."""
        weights = f"weights sha256: {self.weights_sha256}"
        return (weights, *self.settings) if self.weights_sha256 else self.settings


@dataclass(frozen=True, slots=True)
class Number:
    """A number from 0 to 1, or -1 to 1 for a similarity; `is_probability` tells its unit."""

    what: Concept
    value: float
    is_probability: bool = True


@dataclass(frozen=True, slots=True)
class Coded:
    what: Concept
    value: Concept


@dataclass(frozen=True, slots=True)
class Remark:
    what: Concept
    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """Things said together by one algorithm. `identifier` is unique within the result.

    Where `is_finding`, `about` is a label that the final answer names.
    """

    identifier: str
    about: Concept
    algorithm: Algorithm
    numbers: tuple[Number, ...] = ()
    codes: tuple[Coded, ...] = ()
    is_finding: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """Everything a result says; the generalist answers for what is in no group."""

    id: str
    created_at: datetime
    task: str
    code_version: str
    generalist: Algorithm
    groups: tuple[Group, ...]
    codes: tuple[Coded, ...]
    remarks: tuple[Remark, ...]
    conclusion: str

    @property
    def findings(self) -> tuple[Concept, ...]:
        return tuple(group.about for group in self.groups if group.is_finding)


def content_of(result: Written, task: Task | None) -> Content:
    """What a result says, its labels coded by `task`: the one with its labels, as it is now.

    For a report that is the task it consulted. None where the task no longer exists.
    """
    owner = result.task if isinstance(result, Diagnosis) else result.consulted or result.task
    labels = concepts.label_concepts(owner, result.label_names, task)
    generalist = _generalist(result.provenance)
    own, codes, texts, conclusion = (
        _of_diagnosis(result, labels, generalist)
        if isinstance(result, Diagnosis)
        else _of_report(result)
    )
    return Content(
        id=result.id,
        created_at=result.created_at,
        task=result.task,
        code_version=name(result.provenance.code_version),
        generalist=generalist,
        groups=(*own, *_evidence(result, labels)),
        codes=(_needs_review(result), *codes),
        remarks=(*texts, *_remarks(result, generalist)),
        conclusion=f"{conclusion} Preliminary, unverified, {NOT_FOR_CLINICAL_USE}.",
    )


Own = tuple[tuple[Group, ...], tuple[Coded, ...], tuple[Remark, ...], str]
"""What only one sort of result says, its conclusion last."""


def _of_diagnosis(diagnosis: Diagnosis, labels: dict[str, Concept], generalist: Algorithm) -> Own:
    final = diagnosis.final
    chances = dict(zip(diagnosis.label_names, final.probabilities, strict=True))
    findings = tuple(
        Group(
            f"finding {place}",
            labels[label],
            generalist,
            _numbers([(concepts.PROBABILITY, chances[label])]),
            is_finding=True,
        )
        for place, label in enumerate(final.labels, 1)
    )
    overall = _numbers(
        [
            (concepts.AGREEMENT, diagnosis.agreement),
            (concepts.TYPICALITY, diagnosis.evidence.typicality),
            (concepts.COVERAGE, diagnosis.coverage),
        ],
        is_probability=False,
    )
    groups = (
        *findings,
        _answer("final answer", concepts.FINAL, final, labels, generalist, overall),
        _answer("initial diagnosis", concepts.INITIAL, diagnosis.initial, labels, generalist),
    )
    codes = (
        Coded(concepts.ARBITRATION, concepts.arbitration(diagnosis.arbitration)),
        *(Coded(concepts.LABEL_SET, labels[label]) for label in diagnosis.label_set),
    )
    named = ", ".join(f"{labels[one].meaning} ({chances[one]:.2f})" for one in final.labels)
    return groups, codes, (), f"{named or 'No label'}."


def _of_report(report: Report) -> Own:
    findings, impression = paragraphs(report.findings), paragraphs(report.impression)
    said = ((concepts.FINDINGS, findings), (concepts.IMPRESSIONS, impression))
    texts = tuple(Remark(what, text) for what, text in said if text)
    return (), (), texts, impression or findings or "No text."


def _answer(
    identifier: str,
    about: Concept,
    answer: LabelledAnswer,
    labels: dict[str, Concept],
    algorithm: Algorithm,
    more: tuple[Number, ...] = (),
) -> Group:
    return Group(
        identifier,
        about,
        algorithm,
        (*_numbers(zip(labels.values(), answer.probabilities, strict=True)), *more),
        tuple(Coded(concepts.LABEL, labels[label]) for label in answer.labels),
    )


def _evidence(result: Written, labels: dict[str, Concept]) -> tuple[Group, ...]:
    version = name(result.provenance.code_version)
    retrieval = Algorithm("retrieval", version)
    return (
        *(_prediction(one, labels, version) for one in result.evidence.moed),
        *(_outline(one, version) for one in result.evidence.segmentations),
        *(
            _neighbour(place, one, labels, retrieval)
            for place, one in enumerate(result.evidence.rad, 1)
        ),
    )


def _prediction(
    prediction: SpecialistPrediction, labels: dict[str, Concept], version: str
) -> Group:
    specialist, numbers = name(prediction.specialist), prediction.computed_in
    settings = (f"computed in {numbers}",) if numbers else ()
    return Group(
        f"specialist {specialist}",
        concepts.SPECIALIST,
        Algorithm(specialist, version, line(prediction.weights_sha256), settings),
        _numbers(zip(labels.values(), prediction.probabilities, strict=True)),
    )


def _outline(segmentation: Segmentation, version: str) -> Group:
    specialist = name(segmentation.specialist)
    return Group(
        f"outline {specialist}",
        concepts.OUTLINE,
        Algorithm(specialist, version, line(segmentation.weights_sha256)),
        _numbers(
            [
                (concepts.SHARE, segmentation.share),
                (concepts.CERTAINTY, segmentation.certainty),
            ],
            is_probability=False,
        ),
        tuple(
            Coded(concepts.PLACE, concepts.place(one)) for one in dict.fromkeys(segmentation.places)
        ),
    )


def _neighbour(
    place: int, neighbour: Neighbour, labels: dict[str, Concept], retrieval: Algorithm
) -> Group:
    return Group(
        f"reference case {place}: {line(neighbour.case.id, 100)}",
        concepts.SIMILAR_CASE,
        retrieval,
        _numbers([(concepts.SIMILARITY, neighbour.similarity)], is_probability=False),
        tuple(
            Coded(concepts.REFERENCE_LABEL, labels[label])
            for label in neighbour.case.labels
            if label in labels
        ),
    )


def _numbers(
    pairs: Iterable[tuple[Concept, float | None]], *, is_probability: bool = True
) -> tuple[Number, ...]:
    """Of what is known, rounded to what every format can hold."""
    return tuple(
        Number(what, round(float(value), DIGITS), is_probability)
        for what, value in pairs
        if value is not None and isfinite(value)
    )


def _needs_review(result: Written) -> Coded:
    return Coded(concepts.NEEDS_REVIEW, concepts.YES if result.needs_review else concepts.NO)


def _remarks(result: Written, generalist: Algorithm) -> tuple[Remark, ...]:
    indexes = (f"index: {id}" for id in result.provenance.index_ids)
    computed = "\n".join((generalist.name, *generalist.parameters, *indexes))
    texts = [
        *((concepts.REVIEW_REASON, reason) for reason in result.review_reasons),
        *((concepts.MISSING, f"{one.part}: {one.reason}") for one in result.degraded),
        *((concepts.NOTE, note) for note in result.notes),
        (concepts.PROVENANCE, computed),
        (concepts.INTENDED_USE, f"{NOT_FOR_CLINICAL_USE}. {INTENDED_USE}"),
    ]
    return tuple(Remark(what, paragraphs(text)) for what, text in texts if paragraphs(text))


def _generalist(provenance: Provenance) -> Algorithm:
    identity = provenance.generalist
    settings = {
        "engine": identity.engine,
        "sampling": identity.sampling,
        "prompt template": provenance.prompt_template,
        "initial prompt sha256": provenance.initial_prompt_sha256,
        "arbitration prompt sha256": provenance.arbitration_prompt_sha256,
        "task sha256": provenance.task_sha256,
        "input sha256": provenance.input_sha256,
        "preprocessing version": provenance.preprocessing_version,
    }
    return Algorithm(
        name(f"generalist {identity.model}"),
        name(provenance.code_version),
        line(identity.weights_sha256),
        tuple(line(f"{what}: {value}", 200) for what, value in settings.items()),
    )
