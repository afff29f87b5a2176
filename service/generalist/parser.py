"""From what the generalist answered to a diagnosis, and whether a person must look."""

import re
from collections.abc import Iterator

from service import modality
from service.domain import (
    Case,
    Completion,
    Evidence,
    LabelledAnswer,
    labels_of,
    predicted_labels,
    vote,
)
from service.errors import UnparsableAnswer

_SECTIONS = re.compile(  # headings may be set off as in Markdown: "**Findings:**", "## Findings:"
    r"[\s*#]*findings?[\s*]*:(.*?)\bimpressions?[\s*]*:(.*)", re.IGNORECASE | re.DOTALL
)

_LOW = "low probability"
_AGAINST = "the generalist stands against the panel or a divided one"
_MISSING = "missing evidence"
_NO_SECTIONS = "the report has no sections"
_NOT_MENTIONED = "most specialists name"
_MODALITY = "the file says it is"

KINDS_OF_REASONS = {
    _LOW: "low-probability",
    _AGAINST: "against-panel",
    _MISSING: "missing-evidence",
    _MODALITY: "modality",
    _NO_SECTIONS: "no-sections",
    _NOT_MENTIONED: "not-mentioned",
    "the label set holds": "label-set",  # service.calibration
    "Text is burned into": "burned-in-text",  # service.intake.dicom, as the next
    "Something like burned-in text": "burned-in-text",
}
"""The beginnings of sentences that ask for review, for figures: sentences name labels."""
OTHER_KIND = "other"

LOW_PROBABILITY = 0.6
"""Below this the final answer is a close call; replaced by conformal sets where calibrated."""


def labelled(case: Case, completion: Completion) -> LabelledAnswer:
    """The answer as labels and probabilities; raises UnparsableAnswer rather than guess."""
    names = case.task.label_names
    probabilities = completion.probabilities
    if len(probabilities) != len(names):
        raise UnparsableAnswer(
            f"the generalist gave {len(probabilities)} probabilities for {len(names)} labels"
        )
    return LabelledAnswer(labels_of(case.task, probabilities), probabilities)


def review_reasons(case: Case, final: LabelledAnswer, evidence: Evidence) -> tuple[str, ...]:
    """Why a person must look at this case, one sentence each; empty when nothing stands out."""
    return tuple(_reasons(case, final, evidence))


def sections(text: str) -> tuple[str, str]:
    """Findings and Impression of a report; a text without the two is all findings."""
    found = _SECTIONS.fullmatch(text)
    return (_body(found[1]), _body(found[2])) if found else (text.strip(), "")


def report_review_reasons(case: Case, text: str, evidence: Evidence) -> tuple[str, ...]:
    """Why a person must look at this report first; every report is a draft."""
    return tuple(_report_reasons(case, text, evidence))


def answer_review_reasons(case: Case, said: Completion, evidence: Evidence) -> tuple[str, ...]:
    """Why a person must look at this answer, one sentence each."""
    return tuple(_answer_reasons(case, said, evidence))


def _body(section: str) -> str:
    return section.strip(" \t\r\n*#")


def _answer_reasons(case: Case, said: Completion, evidence: Evidence) -> Iterator[str]:
    if said.probabilities and max(said.probabilities) < LOW_PROBABILITY:
        yield _low(max(said.probabilities))
    yield from _of_input(case, evidence)


def _report_reasons(case: Case, text: str, evidence: Evidence) -> Iterator[str]:
    if not _SECTIONS.fullmatch(text):
        yield f"{_NO_SECTIONS} Findings and Impression"
    task = case.evidence_task
    most = vote(task, evidence.moed) if task.is_labelled else None
    for label in most or ():
        if label != task.nothing_found and label.casefold() not in text.casefold():
            yield f"{_NOT_MENTIONED} {label}, which the report does not mention"
    yield from _of_input(case, evidence)


def _of_input(case: Case, evidence: Evidence) -> Iterator[str]:
    yield from case.image.cautions
    if case.modality and modality.differs(case.task.modality, case.modality):
        yield f"{_MODALITY} {case.modality}, the task is for {case.task.modality}"
    if evidence.missing:
        yield f"{_MISSING}: {', '.join(missing.part for missing in evidence.missing)}"


def is_close_call(reason: str) -> bool:
    """Whether a reason for review is only that the likeliest label is not likely enough."""
    return reason.startswith(_LOW)


def kind_of(reason: str) -> str:
    """Which kind a reason for review is of, in one word."""
    kinds = (kind for start, kind in KINDS_OF_REASONS.items() if reason.startswith(start))
    return next(kinds, OTHER_KIND)


def _low(probability: float) -> str:
    return f"{_LOW}: {probability:.2f} for the likeliest label"


def _reasons(case: Case, final: LabelledAnswer, evidence: Evidence) -> Iterator[str]:
    if max(final.probabilities) < LOW_PROBABILITY:
        yield _low(max(final.probabilities))
    agreed = sum(predicted_labels(case.task, p) == final.labels for p in evidence.moed)
    if evidence.moed and 2 * agreed <= len(evidence.moed):
        said = f"{agreed} of {len(evidence.moed)} specialists name {_named(final.labels)}"
        yield f"{_AGAINST}: {said}"
    yield from _of_input(case, evidence)


def _named(labels: tuple[str, ...]) -> str:
    return " and ".join(labels) or "nothing"
