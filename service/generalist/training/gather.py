"""Everything MedDr-nano learns from: real data sets, phantoms, and what real panels say of them.

Held out of a real data set's train split, a share of the patients is shown neither to the vision
tower nor to the panel that stands in for the task's own, so that both meet these images as they
will meet a hospital's. Phantoms are drawn afresh. Validation and test splits are never trained on.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.generalist.training import panels
from service.generalist.training.examples import Dialogue
from service.generalist.training.lessons import Lesson
from service.generalist.training.panels import Labelled, Material
from service.generalist.training.recipe import Material as Wanted
from service.generalist.training.recipe import Recipe
from specialists import catalogue
from specialists.catalogue import Scale
from specialists.errors import InvalidSpecialist
from specialists.loader import Specialist
from specialists.task import Task, TaskKind
from specialists.training import dataset, evaluate
from specialists.training.dataset import Dataset
from specialists.training.finetune import finetune
from specialists.training.split import Split

SEEING, ARBITRATING, JUDGING, KNOWN = 1, 4, 5, 3  # seeds of the phantom series
STAND_IN_BATCH = 64
MOST_STAND_IN_EPOCHS = 60
SHIFTED = 0.8

Note = Callable[[str], None]


class Phantom(Protocol):
    """A synthetic image with its truth (`service.demo.phantoms`)."""

    @property
    def rgb(self) -> NDArray[np.uint8]: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def report(self) -> str: ...


class Drawn(Protocol):
    """A task whose images are drawn (`service.demo.tasks`)."""

    @property
    def task(self) -> Task: ...

    def series(self, count: int, seed: int) -> Iterator[Phantom]:
        """Phantoms with balanced labels; the same seed gives the same images."""
        ...


@dataclass(frozen=True, eq=False)
class Hospital:
    """A real data set for one task, its train split parted into `seen` and `held` patients."""

    dataset: Dataset
    seen: Split
    held: Split

    @property
    def task(self) -> Task:
        return self.dataset.task


def hospital(task: Task, path: Path, recipe: Recipe) -> Hospital:
    data = dataset.read(path, task)
    seen, held = dataset.hold_out(data.split("train"), recipe.material.held_out, task.name)
    return Hospital(data, seen, held)


def lessons(
    recipe: Recipe,
    hospitals: Sequence[Hospital],
    demos: Sequence[Drawn],
    dialogues: Sequence[Dialogue],
) -> Iterator[Lesson]:
    """What the vision tower learns from: labels, and the words of reports that name places."""
    yield from (lesson for _, lesson in looks(recipe, hospitals))
    for demo in demos:
        drawn = list(demo.series(recipe.material.phantoms_to_see, seed=SEEING))
        images = _resized([phantom.rgb for phantom in drawn], recipe.model.image_size)
        yield _lesson(demo.task, images, _truths(demo.task, drawn), recipe)
        if demo.task.kind is TaskKind.MULTI_LABEL:
            words = _words(recipe.words_to_see, drawn)
            name = f"{demo.task.name} words"
            weight = recipe.weights.get(name, 1.0)
            yield Lesson(name, images, words, exclusive=False, mirrored=False, weight=weight)
    for dialogue in dialogues:
        weight = recipe.weights.get(dialogue.task.name, 1.0)
        yield Lesson(dialogue.task.name, dialogue.images, dialogue.organs, True, False, weight)


def looks(recipe: Recipe, hospitals: Sequence[Hospital]) -> tuple[tuple[Task, Lesson], ...]:
    """The lessons of the real data sets by task."""
    return tuple((one.task, lesson_of(one, recipe)) for one in hospitals)


def lesson_of(one: Hospital, recipe: Recipe) -> Lesson:
    images = _resized(one.seen.images, recipe.model.image_size)
    return _lesson(one.task, images, _marks(one.task, one.seen), recipe)


def stand_ins(
    one: Hospital, wanted: Wanted, trunks: Mapping[str, Path], folder: Path, note: Note
) -> Path:
    """Nano specialists that learned from the `seen` patients only; kept, and continued, there.

    They begin from `trunks` (weights by backbone), or else from random numbers.
    """
    half = Dataset(
        one.dataset.source, one.task, {"train": one.seen, "val": one.dataset.split("val")}
    )
    enough = math.ceil(wanted.stand_in_steps * STAND_IN_BATCH / len(one.seen))
    epochs = min(max(wanted.stand_in_epochs, enough), MOST_STAND_IN_EPOCHS)
    panel = catalogue.panel_of(one.task)
    finetune(
        one.task,
        half,
        panel,
        Scale.NANO,
        folder / one.task.name,
        epochs=epochs,
        patience=epochs,
        weights={key: trunks[key] for key in panel if key in trunks},
        on_progress=lambda at: note(f"{one.task.name}: {at.backbone} epoch {at.number}"),
    )
    return folder / one.task.name


def of_hospital(one: Hospital, panel: Path, recipe: Recipe) -> tuple[Material, Material]:
    """The held patients in many versions to learn from, and validation cases to judge by."""
    specialists = _panel(panel, one.task)
    known = Labelled(list(one.seen.images), _marks(one.task, one.seen))
    wanted = recipe.material
    versions = max(2, math.ceil(wanted.cases_at_least / len(one.held)))
    held = Labelled(list(one.held.images), _marks(one.task, one.held))
    size = recipe.model.image_size
    learned = panels.material(
        one.task, specialists, known, held, size,
        versions=versions, seed=recipe.seed, shifted=SHIFTED,
    )  # fmt: skip
    val = one.dataset.split("val")
    places = np.linspace(0, len(val) - 1, min(len(val), wanted.cases_to_judge)).astype(int).tolist()
    some = val.choose(places)
    judged = panels.material(
        one.task, specialists, known, Labelled(list(some.images), _marks(one.task, some)), size,
        versions=2, seed=recipe.seed + 1, shifted=1.0,
    )  # fmt: skip
    return learned, judged


def of_phantoms(demo: Drawn, panel: Path, recipe: Recipe) -> tuple[Material, Material]:
    """Fresh phantoms to learn from and to judge by, with the shipped specialists' evidence."""
    specialists = _panel(panel, demo.task)
    wanted, size = recipe.material, recipe.model.image_size
    known = _labelled(demo, wanted.reference_phantoms, KNOWN)
    mirrored = demo.task.kind is not TaskKind.MULTI_LABEL  # their reports name sides
    learned = panels.material(
        demo.task, specialists, known, _labelled(demo, wanted.phantoms_to_arbitrate, ARBITRATING),
        size, versions=2, seed=recipe.seed, shifted=SHIFTED, mirrored=mirrored,
    )  # fmt: skip
    judged = panels.material(
        demo.task, specialists, known, _labelled(demo, wanted.phantoms_to_judge, JUDGING),
        size, versions=2, seed=recipe.seed + 1, shifted=1.0, mirrored=mirrored,
    )  # fmt: skip
    return learned, judged


def kept(
    task: Task, folder: Path, make: Callable[[], tuple[Material, Material]]
) -> tuple[Material, Material]:
    """The materials of a task, from the files of an earlier run where there are any."""
    paths = folder / f"{task.name}-learned.npz", folder / f"{task.name}-judged.npz"
    if not all(path.exists() for path in paths):
        folder.mkdir(parents=True, exist_ok=True)
        for pool, path in zip(make(), paths, strict=True):
            panels.write(pool, path)
    learned, judged = (panels.read(task, path) for path in paths)
    return learned, judged


def _panel(folder: Path, task: Task) -> tuple[Specialist, ...]:
    found, missing = evaluate.load_panel(folder, task)
    if not found:
        raise InvalidSpecialist(f"no specialist for task {task.name!r}: {missing[0].reason}")
    return found


def _lesson(
    task: Task, images: NDArray[np.uint8], targets: NDArray[np.float32], recipe: Recipe
) -> Lesson:
    exclusive = task.kind is TaskKind.SINGLE_LABEL
    return Lesson(
        task.name, images, targets, exclusive=exclusive, weight=recipe.weights.get(task.name, 1.0)
    )


def _resized(images: Sequence[NDArray[np.uint8]], size: int) -> NDArray[np.uint8]:
    return np.stack([panels.resize(pixels, size) for pixels in images])


def _marks(task: Task, split: Split) -> NDArray[np.float32]:
    targets = np.asarray(split.targets)
    if task.kind is TaskKind.MULTI_LABEL:
        return targets.astype(np.float32)
    return np.eye(len(task.labels), dtype=np.float32)[targets.reshape(-1)]


def _labelled(demo: Drawn, count: int, seed: int) -> Labelled:
    phantoms = list(demo.series(count, seed=seed))
    return Labelled(
        [phantom.rgb for phantom in phantoms],
        _truths(demo.task, phantoms),
        [phantom.report for phantom in phantoms],
    )


def _truths(task: Task, phantoms: Sequence[Phantom]) -> NDArray[np.float32]:
    return np.array(
        [[name in phantom.labels for name in task.label_names] for phantom in phantoms], np.float32
    )


def _words(words: Sequence[str], phantoms: Sequence[Phantom]) -> NDArray[np.float32]:
    reports = [phantom.report.casefold() for phantom in phantoms]
    return np.array([[word in report for word in words] for report in reports], np.float32)
