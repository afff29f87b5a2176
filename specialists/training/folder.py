"""A folder of images: a CSV that names them, or {train,val,test}/LABEL/*.jpg|png|dcm."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specialists.errors import InvalidDataset
from specialists.task import Task, TaskKind
from specialists.training.split import SPLITS, FileImages, Split, Targets, single_target

INDEX = "index.csv"
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".dcm"})
SEPARATOR = "|"
"""Between the labels of one image in a CSV, as in ChestX-ray14's."""


@dataclass(frozen=True, slots=True)
class _Row:
    split: str
    image: str  # relative to the folder
    labels: str
    group: str | None


def read(folder: Path, task: Task, index: str = INDEX) -> dict[str, Split]:
    """The splits that the folder has, by the index where there is one; raises InvalidDataset."""
    rows = list(_indexed(folder / index) if (folder / index).is_file() else _walked(folder))
    if not rows:
        raise InvalidDataset(f"{folder.name} has no {index} and no images in {{split}}/{{label}}/")
    return {
        name: _split(folder, [r for r in rows if r.split == name], task)
        for name in SPLITS
        if any(row.split == name for row in rows)
    }


def _split(folder: Path, rows: list[_Row], task: Task) -> Split:
    return Split(
        images=FileImages(tuple(folder / row.image for row in rows)),
        targets=_targets(rows, task),
        groups=tuple(row.group for row in rows),
        ids=tuple(row.image for row in rows),
    )


def _targets(rows: list[_Row], task: Task) -> Targets:
    if task.kind == TaskKind.MULTI_LABEL:
        return np.stack([_marks(row, task) for row in rows])
    return np.array([single_target(row.labels, task, row.image) for row in rows], dtype=np.int64)


def _marks(row: _Row, task: Task) -> Targets:
    """One row of 0 and 1; an image without a label has the task's "nothing found" label."""
    marks = np.zeros(len(task.labels), dtype=np.int64)
    names = [name.strip() for name in row.labels.split(SEPARATOR) if name.strip()]
    for name in names or filter(None, [task.nothing_found]):
        marks[single_target(name, task, row.image)] = 1
    return marks


def _indexed(index: Path) -> Iterator[_Row]:
    try:
        with index.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if missing := {"split", "image", "label"} - set(rows.fieldnames or ()):
                raise InvalidDataset(f"{index.name} lacks the columns {', '.join(sorted(missing))}")
            yield from (_row(row, index) for row in rows)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidDataset(f"{index.name} is not a CSV file in UTF-8") from error


def _row(row: dict[str, str], index: Path) -> _Row:
    split, image = row["split"], row["image"]
    if split not in SPLITS:
        raise InvalidDataset(f"{index.name} has the split {split!r}; known: {', '.join(SPLITS)}")
    path = index.parent / image
    if not path.resolve().is_relative_to(index.parent.resolve()) or not path.is_file():
        raise InvalidDataset(f"{index.name} names {image!r}, which is not a file of the folder")
    return _Row(split, image, row["label"] or "", row.get("group") or None)


def _walked(folder: Path) -> Iterator[_Row]:
    for split in SPLITS:
        for path in sorted((folder / split).glob("*/*")):
            if path.suffix.lower() in SUFFIXES:
                relative = path.relative_to(folder).as_posix()
                yield _Row(split, relative, path.parent.name, None)
