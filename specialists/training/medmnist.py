"""MedMNIST's file format: one .npz with {train,val,test}_{images,labels}.

Images are uint8 (N, H, W) or (N, H, W, 3); labels (N, 1), or (N, L) of 0 and 1 for several labels.
Source: MedMNIST v2, medmnist/dataset.py. An `index.csv` beside the file with the columns split,
row and group, where it exists, names the patient of each row.
"""

import csv
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specialists.errors import InvalidDataset
from specialists.task import Task, TaskKind
from specialists.training.split import SPLITS, ArrayImages, Split, Targets


def read(path: Path, task: Task) -> dict[str, Split]:
    """The splits that the file has; raises InvalidDataset."""
    arrays = _arrays(path)
    groups = _groups(path.with_name("index.csv"))
    return {
        name: _split(name, arrays, task, groups, path.name)
        for name in SPLITS
        if f"{name}_images" in arrays or f"{name}_labels" in arrays
    }


def _arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """All arrays of the file. Objects are refused: reading them would mean unpickling."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidDataset(f"{path.name} is not a readable .npz file of plain arrays") from error


def _split(
    name: str,
    arrays: dict[str, NDArray[np.generic]],
    task: Task,
    groups: dict[tuple[str, int], str],
    source: str,
) -> Split:
    images, labels = (_array(arrays, f"{name}_{part}", source) for part in ("images", "labels"))
    _check_images(images, f"{name}_images of {source}")
    if len(images) != len(labels):
        raise InvalidDataset(f"{source} has {len(images)} {name}_images but {len(labels)} labels")
    rows = range(len(images))
    return Split(
        images=ArrayImages(images.astype(np.uint8, copy=False)),
        targets=_targets(labels, task, f"{name}_labels of {source}"),
        groups=tuple(groups.get((name, row)) for row in rows),
        ids=tuple(f"{name}/{row}" for row in rows),
    )


def _array(arrays: dict[str, NDArray[np.generic]], key: str, source: str) -> NDArray[np.generic]:
    if key not in arrays:
        raise InvalidDataset(f"{source} has no {key!r}, only {', '.join(arrays) or 'nothing'}")
    return arrays[key]


def _check_images(images: NDArray[np.generic], where: str) -> None:
    grey, colour = images.ndim == 3, images.ndim == 4 and images.shape[-1] == 3
    if images.dtype != np.uint8 or not (grey or colour) or not images.size:
        raise InvalidDataset(
            f"{where} are {images.shape} {images.dtype}, not (N, H, W) or (N, H, W, 3) uint8"
        )


def _targets(labels: NDArray[np.generic], task: Task, where: str) -> Targets:
    if not np.issubdtype(labels.dtype, np.integer):
        raise InvalidDataset(f"{where} are {labels.dtype}, not whole numbers")
    numbers = labels.astype(np.int64)
    if task.kind == TaskKind.MULTI_LABEL:
        return _marks(numbers, task, where)
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    if numbers.ndim != 1:
        raise InvalidDataset(f"{where} have shape {labels.shape}; a {task.kind} task needs (N, 1)")
    return _within(numbers, len(task.labels), task, where)


def _marks(numbers: Targets, task: Task, where: str) -> Targets:
    if numbers.ndim != 2 or numbers.shape[1] != len(task.labels):
        raise InvalidDataset(
            f"{where} have shape {numbers.shape}; task {task.name!r} needs (N, {len(task.labels)})"
        )
    return _within(numbers, 2, task, where)


def _within(numbers: Targets, count: int, task: Task, where: str) -> Targets:
    outside = numbers[(numbers < 0) | (numbers >= count)]
    if outside.size:
        raise InvalidDataset(
            f"{where} hold {outside[0]}; task {task.name!r} allows 0 to {count - 1}"
        )
    return numbers


def _groups(index: Path) -> dict[tuple[str, int], str]:
    """(split, row) → group, where an index beside the file has those columns; else nothing."""
    if not index.is_file():
        return {}
    with index.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if not {"split", "row", "group"} <= set(rows.fieldnames or ()):
            return {}
        return {(row["split"], int(row["row"])): row["group"] for row in rows if row["group"]}
