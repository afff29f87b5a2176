"""What is kept of every case: enough to compute all figures again, and nobody's name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import cattrs

from service.domain import Diagnosis
from service.evaluation.cases import LabelledCase

Kind = TypeVar("Kind", "CaseRecord", "TextRecord")
Odds = tuple[float, ...]  # a probability per label


@dataclass(frozen=True, slots=True)
class KnownCase:
    """A neighbour, as far as figures need it."""

    id: str
    labels: tuple[str, ...]
    similarity: float


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """One case: what holds, what each specialist said, what was retrieved, what was answered.

    `answers` by system or trial. Of a case that could not be read, `broken` says why.
    """

    id: str
    patient: int
    labels: tuple[str, ...] = ()
    pixels_sha256: str = ""
    specialists: Mapping[str, Odds] = field(default_factory=dict)
    neighbours: tuple[KnownCase, ...] = ()
    typicality: float | None = None
    answers: Mapping[str, Odds] = field(default_factory=dict)
    label_set: tuple[str, ...] = ()
    coverage: float | None = None
    review_reasons: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    broken: str = ""


def of(
    labelled: LabelledCase, patient: int, diagnosis: Diagnosis, answers: Mapping[str, Odds]
) -> CaseRecord:
    """The record of a diagnosed case."""
    evidence = diagnosis.evidence
    return CaseRecord(
        id=labelled.case.id,
        patient=patient,
        labels=labelled.labels,
        pixels_sha256=labelled.case.image.pixels_sha256,
        specialists={one.specialist: one.probabilities for one in evidence.moed},
        neighbours=tuple(
            KnownCase(one.case.id, one.case.labels, one.similarity) for one in evidence.rad
        ),
        typicality=evidence.typicality,
        answers=answers,
        label_set=diagnosis.label_set,
        coverage=diagnosis.coverage,
        review_reasons=diagnosis.review_reasons,
        missing=tuple(missing.part for missing in evidence.missing),
        notes=diagnosis.notes,
    )


@dataclass(frozen=True, slots=True)
class TextRecord:
    """One question or report: the reference, and what each system wrote."""

    id: str
    patient: int
    reference: str = ""
    question: str = ""
    choices: tuple[str, ...] = ()
    written: Mapping[str, str] = field(default_factory=dict)
    review_reasons: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    broken: str = ""


def line(record: CaseRecord | TextRecord) -> str:
    """As one line of JSON; what is empty is left out."""
    document = cattrs.unstructure(record)
    told = {key: value for key, value in document.items() if value not in (None, "", (), [], {})}
    return json.dumps(told, separators=(",", ":"))


def read(text: str, kind: type[Kind]) -> Kind:
    """From a line of JSON; raises ValueError."""
    document: Any = json.loads(text)
    try:
        return cattrs.structure({"id": "", **document}, kind)
    except (cattrs.BaseValidationError, TypeError) as error:
        raise ValueError("not a record of a case") from error
