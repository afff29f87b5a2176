"""What people make of diagnoses: accepted, or overridden with what they say instead."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from service.domain import Diagnosis
from service.errors import InvalidInput
from specialists.task import Task, TaskKind


class Decision(StrEnum):
    ACCEPT = "accept"
    OVERRIDE = "override"


@dataclass(frozen=True, slots=True)
class Review:
    """One reviewer's word on a diagnosis; the latest of several counts.

    `labels` are what the reviewer says holds: of an accepted diagnosis, its own.
    """

    diagnosis: str
    created_at: datetime
    reviewer: str
    decision: Decision
    labels: tuple[str, ...]
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """What a reviewer says of a diagnosis, and when."""

    reviewer: str
    labels: tuple[str, ...]
    comment: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A diagnosis and the review that counts, None as long as there is none."""

    diagnosis: Diagnosis
    review: Review | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which diagnoses are listed; None stands for all."""

    task: str | None = None
    needs_review: bool | None = None
    reviewed: bool | None = None


@dataclass(frozen=True, slots=True)
class WeekOfTask:
    """What became of the diagnoses of one task that were made in one week, from Monday, in UTC.

    `model` is the generalist that made them, where it was asked for.
    """

    task: str
    week: date
    diagnoses: int
    needing_review: int
    accepted: int
    overridden: int
    model: str | None = None
    weights_sha256: str | None = None

    @property
    def reviewed(self) -> int:
        return self.accepted + self.overridden


def accepted(diagnosis: Diagnosis, word: Word) -> Review:
    """The review that agrees; raises InvalidInput where it names other labels nevertheless."""
    if word.labels and set(word.labels) != set(diagnosis.final.labels):
        raise InvalidInput("these are not the labels of the diagnosis: override it instead")
    return _review(diagnosis, word, Decision.ACCEPT, diagnosis.final.labels)


def overridden(diagnosis: Diagnosis, task: Task | None, word: Word) -> Review:
    """The review that names other labels; `task` is as it is now, None where it is gone.

    Raises InvalidInput where the labels are no answer to the task, or are those of the diagnosis.
    """
    if any(label not in diagnosis.label_names for label in word.labels):
        known = ", ".join(diagnosis.label_names)
        raise InvalidInput(f"an override names labels of the diagnosis: {known}")
    chosen = tuple(name for name in diagnosis.label_names if name in word.labels)
    if task is not None:
        refuse_impossible(task, chosen)
    if chosen == diagnosis.final.labels:
        raise InvalidInput("these are the labels of the diagnosis: accept it instead")
    return _review(diagnosis, word, Decision.OVERRIDE, chosen)


def _review(
    diagnosis: Diagnosis, word: Word, decision: Decision, labels: tuple[str, ...]
) -> Review:
    return Review(diagnosis.id, word.at, word.reviewer, decision, labels, word.comment)


def refuse_impossible(task: Task, chosen: tuple[str, ...]) -> None:
    """Raises InvalidInput where these labels are no answer to the task."""
    if task.kind is TaskKind.SINGLE_LABEL and len(chosen) != 1:
        raise InvalidInput(f"task {task.name!r} is answered by one label: name one")
    if task.nothing_found in chosen and len(chosen) > 1:
        raise InvalidInput(f"{task.nothing_found!r} stands alone: no other label holds with it")
    if not chosen and task.nothing_found is not None:
        raise InvalidInput(f"name a label: {task.nothing_found!r} where none holds")
