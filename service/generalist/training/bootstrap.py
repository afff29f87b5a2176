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

import numpy as np

from service.domain import Image, Prompt
from service.generalist.training import examples
from service.ports import Generalist
from specialists.task import Task

MOST_TOKENS = 160


@dataclass(frozen=True, slots=True)
class Guided:
    """One image with its diagnosis, and the name by which its answer is filed."""

    id: str
    image: Image
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Instruction:
    """What was asked of a case, and what the teacher answered."""

    id: str
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
            yield Instruction(case.id, case.labels, asked, answer)


def _is_usable(answer: str, labels: Sequence[str], longest: int) -> bool:
    said = answer.casefold()
    return 0 < len(answer) <= longest and all(label.casefold() in said for label in labels)
