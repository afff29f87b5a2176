"""Cases with questions or reports: a CSV or JSONL that names images relative to itself.

    image,split,group,question,answer,choices
    images/1.png,test,patient-1,Is there an effusion?,yes,yes|no

Columns: image, split, and question and answer (choices optional) or report; optional are group (the
patient) and id. Data sets with other names, such as VQA-RAD, are read through `NAMES` or a mapping.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service.evaluation.images import BrokenImage, IntakeImages, OnImage, examined, is_file
from specialists.errors import InvalidDataset
from specialists.prediction import Pixels
from specialists.task import TaskKind
from specialists.training.split import SPLITS

NAMES = {
    "image": ("image", "image_name", "image_path"),
    "split": ("image_split", "split"),  # VQA-RAD's own "split" puts one image on both sides
    "group": ("group", "patient_id", "subject_id"),
    "id": ("id", "qid"),
    "question": ("question",),
    "answer": ("answer",),
    "choices": ("choices",),
    "report": ("report",),
}
"""What we call a column → what it may be called; the first that is there is read."""

NEEDED = {TaskKind.QUESTION: ("question", "answer"), TaskKind.REPORT: ("report",)}
INDEXES = ("index.csv", "index.jsonl", "cases.csv", "cases.jsonl", "qa.jsonl")
IMAGES = "images"
SEPARATOR = "|"

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TextCase:
    """One question or one image to report; `group` is the patient or study where it is known."""

    id: str
    image: str  # as the index names it
    pixels_sha256: str
    group: str | None
    question: str = ""
    answer: str = ""
    choices: tuple[str, ...] = ()
    report: str = ""

    @property
    def cluster(self) -> str:
        """What to resample by: the group, else the image, which may have several questions."""
        return self.group or self.pixels_sha256


@dataclass(frozen=True, slots=True, eq=False)
class TextCases:
    """The cases of one split whose images can be read, and the images that cannot.

    `images`, `groups` and `ids` are parallel to `cases`, as in a specialist's Split.
    """

    source: str
    split: str
    cases: tuple[TextCase, ...]
    broken: tuple[BrokenImage, ...]
    folder: Path

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def images(self) -> Sequence[Pixels]:
        return IntakeImages([self.folder / case.image for case in self.cases])

    @property
    def groups(self) -> tuple[str | None, ...]:
        return tuple(case.group for case in self.cases)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(case.id for case in self.cases)

    def limited(self, count: int | None) -> "TextCases":
        """At most so many cases, evenly chosen from the whole."""
        if count is None or count >= len(self):
            return self
        chosen = (self.cases[place * len(self) // count] for place in range(count))
        return replace(self, cases=tuple(chosen))

    def one_per_image(self) -> "TextCases":
        """The first case of every image: what a look for leaks needs."""
        first = {case.image: case for case in reversed(self.cases)}
        return replace(self, cases=tuple(c for c in self.cases if first[c.image] is c))


def read(
    path: Path,
    kind: TaskKind,
    split: str = "test",
    columns: Mapping[str, str] | None = None,
    on_image: OnImage | None = None,
) -> TextCases:
    """The cases of a split, in the order of the index; every image is decoded once to see that it
    can be.

    `path` is the index, or a folder with one (`INDEXES`); images are looked for beside it and in
    `images/`. `columns` maps our names of columns to the file's. Raises InvalidDataset for missing
    columns or values, duplicate ids, an unknown split, and where no case is left.
    """
    index = _index(path)
    found = _rows(index)
    if not found:
        raise InvalidDataset(f"{index.name} has no cases")
    rows = list(_renamed(found, kind, columns or {}, index.name))
    _check_ids(rows, index.name)
    chosen = [row for row in rows if row["split"] == split]
    if not chosen:
        known = ", ".join(sorted({row["split"] for row in rows})) or "none"
        raise InvalidDataset(f"{index.name} has no case of split {split!r}; it has {known}")
    folder = _folder(index, chosen)
    sound, broken = examined(folder, [row["image"] for row in chosen], on_image=on_image)
    if not sound:
        raise InvalidDataset(f"no image of split {split!r} of {index.name} can be read")
    cases = tuple(
        _case(row, sound[row["image"]].pixels_sha256) for row in chosen if row["image"] in sound
    )
    return TextCases(index.name, split, cases, broken, folder)


def _index(path: Path) -> Path:
    if path.is_file():
        return path
    for name in INDEXES:
        if (path / name).is_file():
            return path / name
    raise InvalidDataset(
        f"{path.name} is neither an index nor a folder with {' or '.join(INDEXES)}"
    )


def _rows(index: Path) -> list[dict[str, Any]]:
    try:
        with index.open(newline="", encoding="utf-8-sig") as file:
            if index.suffix == ".csv":
                return list(csv.DictReader(file))
            rows = [json.loads(line) for line in file if line.strip()]
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise InvalidDataset(f"{index.name} is neither CSV nor JSON lines in UTF-8") from error
    if not all(isinstance(row, dict) for row in rows):
        raise InvalidDataset(f"{index.name} has a line that is not a JSON object")
    return rows


def _renamed(
    rows: list[dict[str, Any]], kind: TaskKind, columns: Mapping[str, str], source: str
) -> Iterator[dict[str, str]]:
    """Every row under our names of columns, as text, with an id."""
    if kind not in NEEDED:
        raise InvalidDataset(f"{source} is read for question and report tasks, not {kind}")
    if unknown := set(columns) - set(NAMES):
        raise InvalidDataset(f"no column is called {min(unknown)!r}, only {', '.join(NAMES)}")
    needed = ("image", "split", *NEEDED[kind])
    there = {column for row in rows for column in row}
    found = {name: _called(name, there, columns) for name in NAMES}
    if missing := [name for name in needed if found[name] is None]:
        raise InvalidDataset(f"{source} lacks the columns {', '.join(missing)}")
    for number, row in enumerate(rows, start=1):
        texts = {name: _text(row.get(column)) for name, column in found.items() if column}
        if empty := [name for name in needed if not texts[name]]:
            raise InvalidDataset(f"row {number} of {source} has no {empty[0]}")
        _check_row(texts, f"row {number} of {source}")
        yield {**texts, "id": texts.get("id") or f"{texts['split']}/{number}"}


def _called(name: str, there: set[str], columns: Mapping[str, str]) -> str | None:
    names = (columns[name],) if name in columns else NAMES[name]
    return next((column for column in names if column in there), None)


def _text(value: Any) -> str:
    if isinstance(value, list):  # the choices of a question in JSON
        return SEPARATOR.join(str(one).strip() for one in value)
    return "" if value is None else str(value).strip()


def _check_row(row: Row, where: str) -> None:
    if row["split"] not in SPLITS:
        raise InvalidDataset(f"{where} has the split {row['split']!r}; known: {', '.join(SPLITS)}")
    choices = [choice.lower() for choice in _choices(row)]
    if choices and row.get("answer", "").lower() not in choices:
        raise InvalidDataset(f"{where} has an answer that is none of its choices")


def _check_ids(rows: Sequence[Row], source: str) -> None:
    seen: set[str] = set()
    for row in rows:
        if row["id"] in seen:
            raise InvalidDataset(f"{source} has the id {row['id']!r} more than once")
        seen.add(row["id"])


def _folder(index: Path, rows: Sequence[Row]) -> Path:
    """Where the images are: beside the index, or in `images/` where none is beside it."""
    beside = index.parent
    if any(is_file(beside, row["image"]) for row in rows) or not (beside / IMAGES).is_dir():
        return beside
    return beside / IMAGES


def _case(row: Row, pixels_sha256: str) -> TextCase:
    return TextCase(
        id=row["id"],
        image=row["image"],
        pixels_sha256=pixels_sha256,
        group=row.get("group") or None,
        question=row.get("question", ""),
        answer=row.get("answer", ""),
        choices=_choices(row),
        report=row.get("report", ""),
    )


def _choices(row: Row) -> tuple[str, ...]:
    return tuple(one.strip() for one in row.get("choices", "").split(SEPARATOR) if one.strip())
