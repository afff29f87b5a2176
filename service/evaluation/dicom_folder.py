"""Labelled DICOM files: a folder whose `index.csv` (split, image, label, group) names them.

Of a file only its pixels are kept, and a pseudonym of its patient; of the index what it says.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from service.evaluation.images import (
    BrokenImage,
    IntakeImages,
    OnImage,
    SoundImage,
    examined,
)
from service.intake.dataset import looks_like_dicom
from specialists.errors import InvalidDataset
from specialists.task import Task
from specialists.training import folder as indexed
from specialists.training.dataset import Dataset
from specialists.training.split import Split

_HEAD_BYTES = 132  # preamble and prefix, PS3.10 section 7.1


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """The splits without the images that cannot be read, and those images."""

    dataset: Dataset
    broken: tuple[BrokenImage, ...]


def has_dicom(folder: Path) -> bool:
    """Whether the first image that the folder's index names is a DICOM file."""
    try:
        with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
            image = next(csv.DictReader(file), {}).get("image")
        with (folder / (image or "")).open("rb") as file:
            return bool(looks_like_dicom(file.read(_HEAD_BYTES)))
    except (OSError, ValueError, csv.Error):
        return False


def read(
    folder: Path, task: Task, key: bytes = b"", on_image: OnImage | None = None
) -> LabelledImages:
    """The data set of a folder, its images decoded as intake does, windows included.

    The group of an image is the pseudonym that `key` makes of its PatientID, as in the service;
    where there is none (no key, not a DICOM file), the group that the index gives. No split is held
    out. Raises InvalidDataset.
    """
    splits: dict[str, Split] = {}
    broken: list[BrokenImage] = []
    for name, split in indexed.read(folder, task).items():
        check_distinct(split.ids, folder.name)
        sound, bad = examined(folder, split.ids, key, on_image)
        if not sound:
            raise InvalidDataset(f"no image of split {name!r} of {folder.name} can be read")
        splits[name] = _readable(folder, split, sound)
        broken.extend(bad)
    return LabelledImages(Dataset(folder.name, task, splits), tuple(broken))


def _readable(folder: Path, split: Split, sound: dict[str, SoundImage]) -> Split:
    kept = split.choose([place for place, id in enumerate(split.ids) if id in sound])
    return replace(
        kept,
        images=IntakeImages([folder / id for id in kept.ids]),
        groups=tuple(
            sound[id].group or group for id, group in zip(kept.ids, kept.groups, strict=True)
        ),
    )


def check_distinct(ids: Sequence[str], source: str) -> None:
    """Raises InvalidDataset where a split names an image twice."""
    if len(set(ids)) < len(ids):
        twice = next(id for place, id in enumerate(ids) if id in ids[:place])
        raise InvalidDataset(f"{source} names the image {twice!r} more than once")
