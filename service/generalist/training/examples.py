"""What is asked of a case, and the answer to learn: MedDr's five data types in miniature.

Diagnosis, report, question answering, diagnosis-guided instruction, description.
"""

import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from service.domain import Case, Evidence, Image, LabelledAnswer
from service.generalist import prompt
from service.generalist.template import Template
from service.generalist.training.augment import EVERYDAY, Images, varied
from service.generalist.training.panels import resize
from specialists.errors import InvalidDataset
from specialists.task import Task, TaskKind

YES_NO = ("yes", "no")
_BLANK = Image(np.zeros((1, 1, 3), np.uint8), "", "")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of one image of a batch, and the answer to learn."""

    image: int
    text: str
    answer: str


@dataclass(frozen=True, eq=False)
class Dialogue:
    """Questions with known answers about images, such as a question-answering data set."""

    task: Task
    images: Images
    rows: tuple[tuple[int, str, str], ...]  # image, question, answer
    organs: NDArray[np.float32]  # (images, organs) of 0 and 1: what the vision tower learns

    def example(self, template: Template, image: int, rng: np.random.Generator) -> Question:
        """A random question, with the permitted answers half of the time where it is closed."""
        _, question, answer = self.rows[self.row(rng)]
        return self.asked(template, image, question, answer, rng)

    def row(self, rng: np.random.Generator) -> int:
        return int(rng.integers(len(self.rows)))

    def asked(
        self, template: Template, image: int, question: str, answer: str, rng: np.random.Generator
    ) -> Question:
        closed = answer in YES_NO and rng.random() < 0.5
        told = prompt.asked(template, self.task, question, YES_NO if closed else ())
        return Question(image, told, answer)


@dataclass(frozen=True, eq=False)
class Taught:
    """What a teacher answered to instructions about images (`bootstrap`)."""

    task: Task
    images: Images
    rows: tuple[tuple[int, str, str], ...]  # image, instruction, answer

    def draw(self, rng: np.random.Generator) -> tuple[int, Images]:
        """A random row and its image, as another acquisition; answers may name a side."""
        row = int(rng.integers(len(self.rows)))
        how = EVERYDAY.scaled(1.0, mirrored=False)
        return row, varied(self.images[self.rows[row][0]], how, rng)

    def asked(self, image: int, row: int) -> Question:
        _, instruction, answer = self.rows[row]
        return Question(image, instruction, answer)


def read_dialogue(folder: Path, task: Task, size: int, split: str = "train") -> Dialogue:
    """The questions of a folder with `qa.jsonl` and `images/`, split by image (as VQA-RAD is).

    Raises InvalidDataset.
    """
    if task.kind is not TaskKind.QUESTION:
        raise InvalidDataset(f"task {task.name!r} is a {task.kind} task, not one of questions")
    chosen = [one for one in _entries(folder / "qa.jsonl") if one["image_split"] == split]
    if not chosen:
        raise InvalidDataset(f"{folder / 'qa.jsonl'} has no question of the split {split!r}")
    names = sorted({entry["image_name"] for entry in chosen})
    rows = tuple(
        (names.index(entry["image_name"]), str(entry["question"]).strip(), _spoken(entry["answer"]))
        for entry in chosen
    )
    pictures = np.stack([_picture(folder / "images" / name, size) for name in names])
    organ_of = {entry["image_name"]: str(entry.get("image_organ", "")) for entry in chosen}
    organs = sorted(set(organ_of.values()))
    marks = np.array([[organ_of[name] == organ for organ in organs] for name in names], np.float32)
    return Dialogue(task, pictures, rows, marks)


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    for number, entry in lines_of(path):
        missing = {"image_name", "image_split", "question", "answer"} - entry.keys()
        if missing:
            raise InvalidDataset(f"line {number} of {path} has no {min(missing)!r}")
        yield entry


def lines_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbered JSON objects of a file, one a line; raises InvalidDataset."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDataset(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            raise InvalidDataset(f"line {number} of {path} is no JSON object")
        yield number, entry


def _picture(path: Path, size: int) -> Any:
    try:
        with Pictures.open(path) as picture:
            return resize(np.asarray(picture.convert("RGB")), size)
    except OSError as error:
        raise InvalidDataset(f"the image {path} cannot be read") from error


def _spoken(answer: Any) -> str:
    text = " ".join(str(answer).split())
    return text.lower() if text.lower() in YES_NO else text


def diagnosis(
    template: Template,
    task: Task,
    image: int,
    labels: Sequence[str],
    evidence: Evidence | None = None,
    first_look: LabelledAnswer | None = None,
) -> Question:
    """The labels, asked for from the image alone or, with evidence, as in arbitration."""
    text = prompt.asked(template, task)
    if evidence is not None:
        text += prompt.weighed(template, Case("", task, _BLANK), evidence, first_look)
    return Question(image, text, ", ".join(labels))


def report(
    template: Template,
    task: Task,
    image: int,
    written: str,
    evidence: Evidence | None = None,
    consulted: Task | None = None,
    draft: str = "",
) -> Question:
    """The report, from the image alone or with evidence and, where given, a draft."""
    case = Case("", task, _BLANK, consulted=consulted, draft=draft)
    text = prompt.asked(template, task)
    if evidence is not None:
        text += prompt.weighed(template, case, evidence)
    return Question(image, text, written)


def about(
    template: Template,
    asked_of: Task,
    known: Task,
    image: int,
    labels: Sequence[str],
    rng: np.random.Generator,
    evidence: Evidence | None = None,
) -> Question:
    """A question that the labels answer, alone or with the evidence of the task with labels."""
    question, answer = _fact(known, labels, rng)
    choices = YES_NO if answer in YES_NO and rng.random() < 0.5 else ()
    text = prompt.asked(template, asked_of, question, choices)
    if evidence is not None:
        case = Case("", asked_of, _BLANK, consulted=known, question=question, choices=choices)
        text += prompt.weighed(template, case, evidence)
    return Question(image, text, answer)


def _fact(known: Task, labels: Sequence[str], rng: np.random.Generator) -> tuple[str, str]:
    asked = instructions()["questions"]
    kind = ("present", "present", "shown", "kind", "place")[rng.integers(5)]
    if kind == "present":
        others = [name for name in known.label_names if name not in labels]
        there = bool(rng.random() < 0.5) or not others
        label = str(rng.choice(labels if there else others))
        return asked[kind][0].format(label=label), asked[kind][1 if there else 2]
    question, answer = asked[kind]
    return question, filled(answer, known, labels)


def description(task: Task, image: int, labels: Sequence[str], written: str = "") -> Question:
    """What the image is and shows; the findings of its report where it has one."""
    told = instructions()["describe"]
    shown = f" {_findings(written)}" if written else ""
    return Question(image, told["prompt"], filled(told["answer"], task, labels) + shown)


def instruction(
    task: Task, image: int, labels: Sequence[str], written: str, rng: np.random.Generator
) -> Question:
    """Diagnosis-guided: the instruction as a teacher who knows the truth would follow it."""
    told = instructions()["bootstrap"]
    asked = f"{filled(told['given'], task, labels)} {rng.choice(told['instructions'])}"
    answer = _findings(written) if written else filled(told["explained"], task, labels)
    return Question(image, asked, answer)


def corpus(template: Template, task: Task) -> Iterator[str]:
    """Every sentence that prompts and answers of a task are made of, for the tokenizer."""
    words = instructions()
    yield from task.label_names
    yield prompt.asked(template, task)
    for sentence in template.evidence.values():
        yield sentence.replace("{", " ").replace("}", " ")
    for question, *replies in words["questions"].values():
        if task.labels:
            yield from (question.format(label=name) for name in task.label_names)
        yield from (filled(reply, task, task.label_names[:1]) for reply in replies)
    if task.kind is TaskKind.QUESTION:
        yield prompt.asked(template, task, "", YES_NO)
    if task.labels:
        for name in task.label_names:
            example = description(task, 0, (name,))
            yield from (example.text, example.answer)
            for sentence in words["bootstrap"]["instructions"]:
                yield f"{filled(words['bootstrap']['given'], task, (name,))} {sentence}"


def filled(sentence: str, task: Task, labels: Sequence[str]) -> str:
    return sentence.format(
        modality=task.modality, body_part=task.body_part, labels=" and ".join(labels)
    )


def _findings(written: str) -> str:
    return written.removeprefix("Findings: ").partition(" Impression: ")[0]


@cache
def instructions() -> dict[str, Any]:
    text = files("service.generalist.training").joinpath("instructions.toml").read_text("utf-8")
    return tomllib.loads(text)
