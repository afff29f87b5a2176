"""A task is data: what is asked of an image, and which labels may answer.

Nothing in code names a disease; a task is a TOML file in the home folder's `tasks/`:

    name = "cxr-pneumonia"
    kind = "single-label"
    modality = "chest X-ray"
    body_part = "chest"

    [[labels]]
    name = "normal"

    [[labels]]
    name = "pneumonia"
    concept = { scheme = "SCT", code = "233604007", meaning = "Pneumonia" }

    [[rules]]                       # which DICOM images it is for, when no task is named
    modality = ["CR", "DX"]
    body_part = ["CHEST"]
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from specialists.errors import InvalidTask, UnknownTask

MAX_LABELS = 512
MAX_LABEL_LENGTH = 100
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class TaskKind(StrEnum):
    SINGLE_LABEL = "single-label"
    MULTI_LABEL = "multi-label"
    REPORT = "report"
    QUESTION = "question"


@dataclass(frozen=True, slots=True)
class Concept:
    """A coded concept (DICOM PS3.3 section 8.8), for structured reports and FHIR."""

    scheme: str
    code: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Label:
    name: str
    concept: Concept | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Which images a task is for, when whoever sends one names none.

    An image fits when it has one of the values in every field that is not empty. Modalities are
    DICOM's, such as DX; body parts are BodyPartExamined or a code, such as CHEST or SCT:51185008;
    procedures are codes `scheme:value`, such as LN:36643-5.
    """

    modality: tuple[str, ...] = ()
    body_part: tuple[str, ...] = ()
    procedure: tuple[str, ...] = ()

    @property
    def conditions(self) -> int:
        """How many fields say something; a rule that says more is the more specific one."""
        return sum(map(bool, (self.modality, self.body_part, self.procedure)))


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked, of which images, with which answers. The order of labels is their identity."""

    name: str
    kind: TaskKind
    modality: str
    body_part: str = ""
    labels: tuple[Label, ...] = ()
    nothing_found: str | None = None
    thresholds: tuple[float, ...] = ()
    panel: tuple[str, ...] = ()
    """Backbones expected to answer; empty means the ten of the paper."""
    consults: str = ""
    """Of a report or question task: the labelled task whose specialists and cases serve it."""

    rad: bool = True
    """Whether similar cases are retrieved; `gsco retrieval assess` tells whether they help."""

    segment: Label | None = None
    """What segmentation specialists outline on an image of this task, such as a lesion."""

    segmenters: tuple[str, ...] = ()
    """Segmentation specialists expected to outline it; empty means all that are known."""
    rules: tuple[Rule, ...] = ()
    """Which DICOM images are for this task when none is named; any of them suffices."""

    def __post_init__(self) -> None:
        if problem := _problem_with(self):
            raise InvalidTask(f"task {self.name[:80]!r}: {problem}")

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def is_labelled(self) -> bool:
        return self.kind in {TaskKind.SINGLE_LABEL, TaskKind.MULTI_LABEL}


def parse(text: str) -> Task:
    """The task that a TOML document describes; raises InvalidTask with the first thing wrong."""
    try:
        return from_mapping(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InvalidTask(f"not a TOML document: {error}") from error


def read(path: Path) -> Task:
    """The task in a TOML file."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnknownTask(f"no task file {path.name!r}") from error
    except UnicodeDecodeError as error:
        raise InvalidTask(f"task file {path.name!r} is not UTF-8 text") from error
    except InvalidTask as error:
        raise InvalidTask(f"task file {path.name!r}: {error}") from error


def read_all(folder: Path) -> dict[str, Task]:
    """Every task of a folder, ordered by name; none where the folder is missing."""
    tasks = (read(path) for path in sorted(folder.glob("*.toml")))
    return {task.name: task for task in tasks}


def find(folder: Path, name: str) -> Task:
    """One task of a folder; raises UnknownTask with the names that exist."""
    tasks = read_all(folder)
    if name not in tasks:
        known = ", ".join(tasks) or "none yet (gsco tasks add FILE, or gsco demo --prepare-only)"
        raise UnknownTask(f"unknown task {name[:80]!r}; known tasks: {known}")
    return tasks[name]


def is_name(text: str) -> bool:
    """Whether a task could have this name; one that could not might be a path."""
    return bool(_NAME.fullmatch(text))


def from_mapping(told: Mapping[str, Any]) -> Task:
    """The task in a mapping laid out like the TOML file; raises InvalidTask."""
    _refuse_unknown("a task", told, Task)
    try:
        return Task(
            name=str(told["name"]),
            kind=_kind(told["kind"]),
            modality=str(told["modality"]),
            body_part=str(told.get("body_part", "")),
            labels=tuple(_label(entry) for entry in told.get("labels", ())),
            nothing_found=told.get("nothing_found"),
            thresholds=tuple(float(value) for value in told.get("thresholds", ())),
            panel=tuple(str(name) for name in told.get("panel", ())),
            consults=str(told.get("consults", "")),
            rad=told.get("rad", True),
            segment=_label(told["segment"]) if "segment" in told else None,
            segmenters=tuple(str(name) for name in told.get("segmenters", ())),
            rules=tuple(_rule(entry) for entry in told.get("rules", ())),
        )
    except KeyError as error:
        raise InvalidTask(f"a task needs the field {error.args[0]!r}") from error
    except (TypeError, ValueError) as error:
        raise InvalidTask(f"a field of the task has a wrong value: {error}") from error


def _refuse_unknown(what: str, told: Mapping[str, Any], kind: Any) -> None:
    """A field that nobody reads is a mistake in writing."""
    known = [field.name for field in fields(kind)]
    unknown = [name for name in told if name not in known]
    if unknown:
        raise InvalidTask(f"{what} has no field {unknown[0]!r}, only {', '.join(known)}")


def _kind(told: Any) -> TaskKind:
    if told not in list(TaskKind):
        raise InvalidTask(f"there is no kind {told!r} of task, only {', '.join(TaskKind)}")
    return TaskKind(told)


def _label(entry: Any) -> Label:
    if isinstance(entry, str):
        return Label(entry)
    if not isinstance(entry, Mapping):
        raise TypeError("a label is a text or a table")
    _refuse_unknown("a label", entry, Label)
    concept = entry.get("concept")
    return Label(str(entry["name"]), Concept(**concept) if concept else None)


def _rule(entry: Any) -> Rule:
    if not isinstance(entry, Mapping):
        raise TypeError("rules are tables: write [[rules]]")
    _refuse_unknown("a rule", entry, Rule)
    return Rule(**{name: _values(name, values) for name, values in entry.items()})


def _values(name: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{name} of a rule is a list of texts")
    return tuple(value.strip() if ":" in value else value.strip().upper() for value in values)


def _problem_with(task: Task) -> str | None:
    names = task.label_names
    if not _NAME.fullmatch(task.name):
        return "a name is lower-case letters, digits and hyphens, at most 64"
    if task.is_labelled and len(names) < 2:
        return f"a {task.kind} task needs at least two labels"
    if len(names) > MAX_LABELS:
        return f"{len(names)} labels are more than {MAX_LABELS}"
    if len({name.casefold() for name in names}) != len(names):
        return "two labels have the same name"
    if any(not _is_label(name) for name in names):
        return f"a label is 1 to {MAX_LABEL_LENGTH} printable characters without ',' or '\"'"
    if task.consults and (task.is_labelled or not _NAME.fullmatch(task.consults)):
        return "only a report or question task consults another task, by its name"
    if any(not rule.conditions for rule in task.rules):
        return "a rule names a modality, a body_part or a procedure"
    if task.rules and not task.is_labelled:
        return "only a labelled task is chosen by a rule"
    if not isinstance(task.rad, bool):
        return "rad is true or false"
    if task.segment and not (task.is_labelled and _is_label(task.segment.name)):
        return "only a task with labels has a segment, which is named like a label"
    if task.segmenters and not task.segment:
        return "segmenters outline a segment, and there is none"
    if task.nothing_found is not None and task.nothing_found not in names:
        return f"nothing_found names {task.nothing_found!r}, which is not a label"
    if task.thresholds and len(task.thresholds) != len(names):
        return f"{len(task.thresholds)} thresholds for {len(names)} labels"
    if any(not 0 < threshold < 1 for threshold in task.thresholds):
        return "a threshold lies between 0 and 1"
    return None


def _is_label(name: str) -> bool:
    """Labels are joined with commas and quoted in prompts, so neither mark may occur in one."""
    return (
        0 < len(name) <= MAX_LABEL_LENGTH
        and name == name.strip()
        and name.isprintable()
        and not {",", '"'} & set(name)
    )
