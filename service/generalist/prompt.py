"""What the generalist is told.

The sentence order is that of the one published GSCo template (role, kind of task, modality, the
permitted diagnoses, evidence, answer format) with one change: everything constant comes before
the evidence, so that arbitration reuses the prefix the initial diagnosis computed
(docs/decisions/0002-evidence-last.md). As published, evidence is plain labels in a row, without
probabilities or model names. The wording is ours.
"""

import hashlib
from collections.abc import Sequence

from service.domain import Case, Evidence, Prompt, predicted_labels
from specialists.task import Task, TaskKind

TEMPLATE = "gsco-plain/1"
ANSWER_TOKENS = 64

_ROLE = "You are a medical imaging assistant."
_KINDS = {
    TaskKind.SINGLE_LABEL: "Your task is diagnosis.",
    TaskKind.MULTI_LABEL: "Your task is diagnosis with several possible findings.",
}
_FORMATS = {
    TaskKind.SINGLE_LABEL: "Answer with exactly one option.",
    TaskKind.MULTI_LABEL: "Answer with every option that applies, joined by commas.",
}


def initial(case: Case) -> Prompt:
    """The image alone: what the generalist sees by itself."""
    return _prompt(case, instruction(case.task))


def arbitration(case: Case, evidence: Evidence) -> Prompt:
    """The same words as the initial prompt, followed by the evidence that there is."""
    predicted = [predicted_labels(case.task, prediction) for prediction in evidence.moed]
    retrieved = [neighbour.case.labels for neighbour in evidence.rad]
    return _prompt(case, instruction(case.task) + evidence_sentences(retrieved, predicted))


def instruction(task: Task) -> str:
    """Role, task, image, permitted diagnoses and answer format: equal for all cases of a task."""
    options = ", ".join(f'"{name}"' for name in task.label_names)
    return (
        f"{_ROLE} {_KINDS[task.kind]} The image is a {task.modality}. "
        f"The permitted diagnoses are {options}. {_FORMATS[task.kind]}"
    )


def evidence_sentences(
    retrieved: Sequence[tuple[str, ...]], predicted: Sequence[tuple[str, ...]]
) -> str:
    """RAD, then MoED, each only where there is any; starts with a space."""
    sentences = ""
    if retrieved:
        sentences += f" Diagnoses of the most similar cases: {_row(retrieved)}."
    if predicted:
        sentences += f" Diagnoses of the specialist models: {_row(predicted)}."
    return sentences


def sha256(prompt: Prompt) -> str:
    """Names a rendered prompt without keeping it: image, text and permitted answers."""
    parts = (prompt.image.pixels_sha256, prompt.text, *prompt.choices)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def _prompt(case: Case, text: str) -> Prompt:
    return Prompt(case.image, text, choices=case.task.label_names, max_tokens=ANSWER_TOKENS)


def _row(answers: Sequence[tuple[str, ...]]) -> str:
    return ", ".join(" and ".join(labels) for labels in answers)
