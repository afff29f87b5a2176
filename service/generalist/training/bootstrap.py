"""Diagnosis-guided bootstrapping: instruction data from images whose diagnosis is known.

A teacher is given the image, its modality and its diagnosis, and follows an instruction; the
pair of instruction and answer, without the diagnosis, is what a smaller generalist then learns.
The procedure is data and code: `instructions.toml` holds the words, a teacher is any generalist
of ours, so that a large one behind an OpenAI-compatible API can be pointed at a hospital's cases.
GSCo names this data type; its own prompts are not public, these are ours.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from service.domain import Image, Prompt, pixels_sha256
from service.generalist.training import examples
from service.generalist.training.examples import Taught
from service.generalist.training.panels import resize
from service.ports import Generalist
from specialists.errors import InvalidDataset
from specialists.task import Task
from specialists.training.split import Split

MOST_TOKENS = 160


@dataclass(frozen=True, slots=True)
class Guided:
    """One image with its diagnosis, and the name by which its answer is filed."""

    id: str
    image: Image
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Instruction:
    """What was asked of a case, and what the teacher answered; `image` is that of its pixels."""

    id: str
    image: str  # sha256, by which the image is found again in the data set
    labels: tuple[str, ...]
    asked: str
    answer: str

    def line(self) -> str:
        """One line of JSON, without the image."""
        return json.dumps(asdict(self), ensure_ascii=False)


async def bootstrap(
    teacher: Generalist, task: Task, cases: Sequence[Guided], seed: int
) -> AsyncIterator[Instruction]:
    """An instruction with its answer per case, in their order; unusable answers are left out.

    An answer is usable when it names the diagnosis and is no longer than the words allow: a
    teacher that contradicts what it was told has not looked. Raises GeneralistUnavailable.
    """
    rng = np.random.default_rng(seed)
    words = examples.instructions()["bootstrap"]
    for case in cases:
        asked = str(rng.choice(words["instructions"]))
        given = examples.filled(words["given"], task, case.labels)
        prompt = Prompt(case.image, f"{given} {asked}", max_tokens=MOST_TOKENS)
        answer = " ".join((await teacher.answer(prompt)).text.split())
        if _is_usable(answer, case.labels, words["longest_answer"]):
            yield Instruction(case.id, case.image.sha256, case.labels, asked, answer)


def read(path: Path, task: Task, split: Split, size: int) -> Taught:
    """The instructions of a file about images of a train split, to learn from.

    Raises InvalidDataset for a line without text, or of an image that the split does not hold.
    """
    places = {pixels_sha256(pixels): place for place, pixels in enumerate(split.images)}
    rows: list[tuple[int, str, str]] = []
    for number, entry in examples.lines_of(path):
        image, asked, answer = (entry.get(name) for name in ("image", "asked", "answer"))
        if not (isinstance(asked, str) and isinstance(answer, str) and asked and answer):
            raise InvalidDataset(f"line {number} of {path} lacks what was asked or answered")
        if image not in places:
            raise InvalidDataset(
                f"line {number} of {path} is of an image that the train split of "
                f"{task.name!r} does not hold"
            )
        rows.append((places[image], asked, answer))
    if not rows:
        raise InvalidDataset(f"{path} holds no instructions")
    used = sorted({place for place, *_ in rows})
    images = np.stack([resize(split.images[place], size) for place in used])
    return Taught(task, images, tuple((used.index(at), asked, told) for at, asked, told in rows))


def _is_usable(answer: str, labels: Sequence[str], longest: int) -> bool:
    said = answer.casefold()
    return 0 < len(answer) <= longest and all(label.casefold() in said for label in labels)
