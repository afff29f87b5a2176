"""Labelled cases of a data set, read one by one when they are needed."""

from collections.abc import Iterator
from dataclasses import dataclass

from service.domain import Case, Image, pixels_sha256, target_labels
from specialists.errors import InvalidDataset
from specialists.task import Task
from specialists.training.split import Split

UNREADABLE = "the image cannot be read"
CHUNK = 32
"""Cases whose evidence is computed together: fixed, so that a resumed run repeats it exactly."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledCase:
    case: Case
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BrokenCase:
    """An image that cannot be read: counted and told, never dropped in silence."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """The cases of a split for one task, in order.

    A case is named after the task and its place in the split: names of files may be patients'.
    """

    task: Task
    split: Split
    places: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.places)

    def chunks(self) -> Iterator["Cases"]:
        for start in range(0, len(self), CHUNK):
            yield Cases(self.task, self.split, self.places[start : start + CHUNK])

    def ids(self) -> tuple[str, ...]:
        return tuple(self._id(place) for place in self.places)

    def read(self) -> tuple[list[LabelledCase], list[BrokenCase]]:
        """All of them, decoded, and those that cannot be."""
        whole: list[LabelledCase] = []
        broken: list[BrokenCase] = []
        for place in self.places:
            try:
                whole.append(self._case(place))
            except InvalidDataset:
                broken.append(BrokenCase(self._id(place), UNREADABLE))
        return whole, broken

    def _id(self, place: int) -> str:
        return f"{self.task.name}-{place}"

    def _case(self, place: int) -> LabelledCase:
        pixels = self.split.images[place]
        sha256 = pixels_sha256(pixels)
        image = Image(pixels, sha256, "application/octet-stream")
        case = Case(self._id(place), self.task, image, self.split.groups[place])
        return LabelledCase(case, target_labels(self.task, self.split.targets[place]))


def cases_of(task: Task, split: Split, limit: int | None = None) -> Cases:
    """The cases of a split, or at most `limit` of them, evenly chosen from the whole."""
    count = len(split)
    if limit is None or limit >= count:
        return Cases(task, split, tuple(range(count)))
    return Cases(task, split, tuple(place * count // limit for place in range(limit)))


def readable(split: Split) -> tuple[Split, tuple[str, ...]]:
    """The images that can be read, and why the others cannot: a sentence that names the file."""
    sound, lost = [], []
    for place in range(len(split)):
        try:
            split.images[place]
        except InvalidDataset as error:
            lost.append(str(error))
        else:
            sound.append(place)
    return split.choose(sound), tuple(lost)


def patients(cases: Cases) -> tuple[int, ...]:
    """A number for each case's patient, counted as they first occur; without a group, its own."""
    numbers: dict[str, int] = {}
    groups = (cases.split.groups[place] or f"case {place}" for place in cases.places)
    return tuple(numbers.setdefault(group, len(numbers)) for group in groups)
