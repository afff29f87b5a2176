"""The second stage: the language model learns to answer, alone and with evidence.

The vision tower stays as it is. Real images of this stage were held out from the first one, so
the model meets its own first look as honest, and as fallible, as it will be in use.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from service.domain import LabelledAnswer
from service.generalist.architecture import InternVLChat
from service.generalist.chat import chat_ids
from service.generalist.template import Template
from service.generalist.training import batches, examples, reading
from service.generalist.training.augment import EVERYDAY, Images, varied
from service.generalist.training.batches import Rows
from service.generalist.training.evidence import EvidenceMix
from service.generalist.training.examples import Dialogue, Question, Taught
from service.generalist.training.lessons import Lesson
from service.generalist.training.optimisation import OnProgress, Optimisation, Progress, Stage
from service.generalist.training.panels import Material, named
from service.generalist.training.reading import Answers
from specialists.task import Task, TaskKind

NAME, POLISH = STAGES = ("arbitration", "polish")
GROUPS = 3
JUDGE_EVERY_STEPS = 250
TAUGHT_SHARE = 0.5  # of the instructions, where a teacher wrote some
_STREAMS = {NAME: 2, POLISH: 4}


@dataclass(frozen=True, slots=True)
class Shares:
    """How often each data type is drawn; `plain` is how often the published template is used."""

    diagnosis: float
    look: float  # diagnosis from the image alone, of images that the vision tower knows
    report: float
    question: float
    dialogue: float
    instruction: float
    description: float
    plain: float
    blind: float  # arbitrations that are not told the first look
    unseen: float  # arbitrations of few real images that are not shown the image


@dataclass(frozen=True, eq=False)
class Curriculum:
    """Everything the second stage learns from.

    `told` are report and question tasks with the place of the material they consult; `looks` are
    the real images that the vision tower learned from. Materials named in `few` hold so few
    images that they would be learned by heart: they teach to weigh and not to see.
    """

    rich: Template
    plain: Template
    materials: tuple[Material, ...]
    weights: tuple[float, ...]
    told: tuple[tuple[Task, int], ...]
    dialogues: tuple[Dialogue, ...]
    looks: tuple[tuple[Task, Lesson], ...]
    few: frozenset[int]
    shares: Shares
    evidence: EvidenceMix
    taught: tuple[Taught, ...] = ()


@dataclass(frozen=True, eq=False)
class Item:
    """One image of a batch and what is asked of it, before the first look is known."""

    kind: str
    image: Images
    material: int = 0  # or, of what a teacher wrote, the place in `taught`
    case: int = 0
    task: Task | None = None
    row: int = 0


def learn_to_arbitrate(
    model: InternVLChat,
    tokenizer: Any,
    curriculum: Curriculum,
    stage: Stage,
    seed: int,
    on_progress: OnProgress,
    file: Path | None = None,
    on_judged: Callable[[int], None] | None = None,
    name: str = NAME,
) -> list[Progress]:
    """Train projector and language model; every `JUDGE_EVERY_STEPS` a checkpoint can be judged.

    Taken up after an interruption, a step may be judged again.
    Called a second time, at a lower rate and under the name `POLISH`, it goes on from there.
    """
    model.train()
    model.vision_model.requires_grad_(requires_grad=False)
    learning = [pair for pair in model.named_parameters() if pair[1].requires_grad]
    optimisation = Optimisation(learning, stage, name, on_progress, file)
    reader = Reader(model, tokenizer)

    def judge(step: int) -> None:
        if on_judged and step and (step % JUDGE_EVERY_STEPS == 0 or step == stage.steps):
            model.eval()
            on_judged(step)
            model.train()

    judge(optimisation.taken)  # where it was interrupted between learning and judging
    for step in optimisation.remaining():
        rng = np.random.default_rng((seed, _STREAMS[name], step))
        items = [draw_item(curriculum, rng) for _ in range(stage.batch)]
        with sdpa_kernel(SDPBackend.MATH):
            loss, right = _learned(reader, curriculum, items, rng)
            optimisation.step(loss, right)
        judge(step + 1)
    return optimisation.history


class Reader:
    """The model being trained, read as the engines read it."""

    def __init__(self, model: InternVLChat, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._answers: dict[str, Answers] = {}

    def features(self, images: Sequence[Images]) -> Tensor:
        pixels = batches.pixel_values(np.stack(images)).to(batches.place_of(self.model))
        return self.model.image_features(pixels)

    def rows(self, questions: Sequence[Question]) -> Rows:
        return batches.rows(questions, self.tokenizer, self.model.config.image_tokens)

    @torch.no_grad()
    def read(
        self, features: Tensor, questions: Sequence[Question], tasks: Sequence[Task]
    ) -> list[tuple[float, ...]]:
        """The probability of every label for each question; nothing is learned."""
        permitted = [self._of(task) for task in tasks]
        ids, images = [], []
        for question, answers in zip(questions, permitted, strict=True):
            told = chat_ids(self.tokenizer, question.text, self.model.config.image_tokens)
            ids += [(*told, *begun) for begun in answers.partings]
            images += [question.image] * len(answers.partings)
        rows = Rows(tuple(ids), (0,) * len(ids), tuple(images))
        with batches.at_half_precision(self.model):
            scores = list(batches.next_scores(self.model, features, rows))
        found = []
        for answers in permitted:
            count = len(answers.partings)
            found.append(reading.probabilities(answers, scores[:count]))
            scores = scores[count:]
        return found

    def _of(self, task: Task) -> Answers:
        if task.name not in self._answers:
            self._answers[task.name] = reading.answers(task, self.tokenizer)
        return self._answers[task.name]


def _learned(
    reader: Reader, curriculum: Curriculum, items: Sequence[Item], rng: np.random.Generator
) -> tuple[Tensor, float]:
    with batches.at_half_precision(reader.model):
        features = reader.features([item.image for item in items])
        looks = _first_looks(reader, curriculum, items, features.detach())
        features = features * _shown(curriculum, items, rng).to(features.device)
        asked = [
            question
            for place, item in enumerate(items)
            for question in questions_of(curriculum, item, place, looks.get(place), rng)
        ]
        groups = batches.by_length(reader.rows(asked), GROUPS)
        parts = [batches.answer_loss(reader.model, features, group) for group in groups]
    loss = torch.stack([part for part, _ in parts]).sum() / len(asked)
    return loss, sum(right for _, right in parts) / len(asked)


def draw_item(curriculum: Curriculum, rng: np.random.Generator) -> Item:
    shares = curriculum.shares
    kinds = ("diagnosis", "look", "report", "question", "dialogue", "instruction", "description")
    weights = np.array([getattr(shares, kind) for kind in kinds])
    kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
    if kind == "dialogue" and curriculum.dialogues:
        dialogue = curriculum.dialogues[rng.integers(len(curriculum.dialogues))]
        row = dialogue.row(rng)
        return Item(kind, dialogue.images[dialogue.rows[row][0]], task=dialogue.task, row=row)
    if kind == "look" and curriculum.looks:
        task, lesson = curriculum.looks[rng.integers(len(curriculum.looks))]
        row = lesson.draw(rng)
        return Item(kind, varied(lesson.images[row], EVERYDAY, rng), task=task, row=row)
    if kind == "instruction" and curriculum.taught and rng.random() < TAUGHT_SHARE:
        place = int(rng.integers(len(curriculum.taught)))
        row, image = curriculum.taught[place].draw(rng)
        return Item("taught", image, place, row=row)
    wanted = {"report": TaskKind.REPORT, "question": TaskKind.QUESTION}.get(kind)
    told = [pair for pair in curriculum.told if pair[0].kind is wanted]
    if told:
        task, place = told[rng.integers(len(told))]
        return _drawn(curriculum, kind, place, rng, task)
    odds = np.array(curriculum.weights)
    place = int(rng.choice(len(odds), p=odds / odds.sum()))
    return _drawn(
        curriculum, kind if kind in {"instruction", "description"} else "diagnosis", place, rng
    )


def _drawn(
    curriculum: Curriculum,
    kind: str,
    place: int,
    rng: np.random.Generator,
    task: Task | None = None,
) -> Item:
    """A case of a material, every label as likely where labels exclude each other."""
    material = curriculum.materials[place]
    cases = np.arange(len(material))
    if material.task.kind is TaskKind.SINGLE_LABEL:
        present = np.flatnonzero(material.targets.any(0))
        cases = np.flatnonzero(material.targets[:, rng.choice(present)])
    case = int(rng.choice(cases))
    return Item(kind, material.images[case], place, case, task)


def _first_looks(
    reader: Reader, curriculum: Curriculum, items: Sequence[Item], features: Tensor
) -> dict[int, LabelledAnswer]:
    """What the model now says of the diagnosis items from the image alone."""
    places = [
        place
        for place, item in enumerate(items)
        if item.kind == "diagnosis" and reading.can_read(curriculum.materials[item.material].task)
    ]
    if not places:
        return {}
    tasks = [curriculum.materials[items[place].material].task for place in places]
    asked = [
        examples.diagnosis(curriculum.rich, task, place, ())
        for place, task in zip(places, tasks, strict=True)
    ]
    read = reader.read(features, asked, tasks)
    return {place: LabelledAnswer((), said) for place, said in zip(places, read, strict=True)}


def _shown(curriculum: Curriculum, items: Sequence[Item], rng: np.random.Generator) -> Tensor:
    """(items, 1, 1): 0 where the image is withheld, so that it cannot be learned by heart."""
    withheld = [
        item.kind == "diagnosis"
        and item.material in curriculum.few
        and rng.random() < curriculum.shares.unseen
        for item in items
    ]
    return (~torch.tensor(withheld)).float()[:, None, None]


def questions_of(
    curriculum: Curriculum,
    item: Item,
    place: int,
    look: LabelledAnswer | None,
    rng: np.random.Generator,
) -> list[Question]:
    template = curriculum.plain if rng.random() < curriculum.shares.plain else curriculum.rich
    if item.kind == "dialogue":
        dialogue = next(one for one in curriculum.dialogues if one.task == item.task)
        _, question, answer = dialogue.rows[item.row]
        return [dialogue.asked(template, place, question, answer, rng)]
    if item.kind == "look" and item.task:
        lesson = next(lesson for task, lesson in curriculum.looks if task == item.task)
        labels = named(item.task, lesson.targets[item.row])
        return [examples.diagnosis(template, item.task, place, labels)]
    if item.kind == "taught":
        return [curriculum.taught[item.material].asked(place, item.row)]
    material = curriculum.materials[item.material]
    labels, written = material.labels(item.case), material.reports[item.case]
    if item.kind == "instruction":
        return [examples.instruction(material.task, place, labels, written, rng)]
    if item.kind == "description":
        return [examples.description(material.task, place, labels, written)]
    evidence = curriculum.evidence.draw(material, item.case, rng)
    if item.kind == "report" and item.task:
        alone = examples.report(template, item.task, place, written)
        draft = _draft(material, item.case, rng)
        helped = examples.report(
            template, item.task, place, written, evidence, material.task, draft
        )
        return [alone, helped]
    if item.kind == "question" and item.task:
        helped_by = evidence if rng.random() < 0.6 else None
        return [examples.about(template, item.task, material.task, place, labels, rng, helped_by)]
    told = look if rng.random() >= curriculum.shares.blind else None
    helped = examples.diagnosis(template, material.task, place, labels, evidence, told)
    if item.material in curriculum.few:
        return [helped]
    return [examples.diagnosis(template, material.task, place, labels), helped]


def _draft(material: Material, case: int, rng: np.random.Generator) -> str:
    """Half of the time none; else the report of a case with the same, or with any, labels."""
    if rng.random() < 0.6:
        return ""
    same = np.flatnonzero((material.targets == material.targets[case]).all(1))
    rows = same if rng.random() < 0.75 else np.arange(len(material))
    return material.reports[int(rng.choice(rows))]
