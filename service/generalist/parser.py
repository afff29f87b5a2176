"""From what the generalist answered to a diagnosis, and whether a person must look."""

from collections.abc import Iterator

from service.domain import (
    Case,
    Completion,
    Evidence,
    LabelledAnswer,
    labels_of,
    predicted_labels,
)
from service.errors import UnparsableAnswer

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


def _reasons(case: Case, final: LabelledAnswer, evidence: Evidence) -> Iterator[str]:
    if max(final.probabilities) < LOW_PROBABILITY:
        yield f"low probability: {max(final.probabilities):.2f} for the likeliest label"
    agreed = sum(predicted_labels(case.task, p) == final.labels for p in evidence.moed)
    if evidence.moed and 2 * agreed <= len(evidence.moed):
        said = f"{agreed} of {len(evidence.moed)} specialists name {_named(final.labels)}"
        yield f"the generalist stands against the panel or a divided one: {said}"
    if evidence.missing:
        yield "missing evidence: " + ", ".join(missing.part for missing in evidence.missing)


def _named(labels: tuple[str, ...]) -> str:
    return " and ".join(labels) or "nothing"
