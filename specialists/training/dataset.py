"""Labelled images to train on, evaluate with and retrieve from: a MedMNIST file, folder or CSV."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specialists.errors import InvalidDataset
from specialists.task import Task
from specialists.training import folder, medmnist
from specialists.training.split import Split, marked

VALIDATION_SHARE = 0.1
_SEED = 20240423


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """The splits of one source for one task; a missing `val` is held out of `train`."""

    source: str
    task: Task
    splits: Mapping[str, Split]

    def split(self, name: str) -> Split:
        """One split; raises InvalidDataset with those that exist."""
        if name not in self.splits:
            raise InvalidDataset(
                f"{self.source} has no split {name!r}, only {_listed(self.splits)}"
            )
        return self.splits[name]

    def fingerprint(self) -> str:
        """sha256 over every image and target in order, hexadecimal."""
        digest = hashlib.sha256()
        for name, split in sorted(self.splits.items()):
            digest.update(f"{name} {len(split)} {split.targets.tolist()}".encode())
            for pixels in split.images:
                digest.update(str(pixels.shape).encode())
                digest.update(pixels.tobytes())
        return digest.hexdigest()


def read(path: Path, task: Task) -> Dataset:
    """The dataset in a MedMNIST .npz file, in a folder of images, or in a CSV that names images.

    A folder holds `index.csv` (columns split, image, label and, where known, group), or else
    `{train,val,test}/LABEL/*.jpg|png`; a CSV of that kind may have any name. Raises InvalidDataset
    with the first thing wrong.
    """
    if not task.is_labelled:
        raise InvalidDataset(
            f"task {task.name!r} is a {task.kind} task, which specialists do not learn"
        )
    if not path.exists():
        raise InvalidDataset(f"no dataset at {path}")
    return Dataset(path.name, task, with_validation(_splits(path, task), path.name))


def _splits(path: Path, task: Task) -> dict[str, Split]:
    if path.is_dir():
        return folder.read(path, task)
    if path.suffix.lower() == ".csv":
        return folder.read(path.parent, task, path.name)
    return medmnist.read(path, task)


def with_validation(splits: Mapping[str, Split], source: str) -> dict[str, Split]:
    """The splits, where there is no `val` with one held out of `train`; raises InvalidDataset."""
    if "train" not in splits:
        raise InvalidDataset(f"{source} has no split 'train', only {_listed(splits)}")
    if "val" in splits:
        return dict(splits)
    train, val = hold_out(splits["train"], VALIDATION_SHARE, source)
    return {**splits, "train": train, "val": val}


def demand_every_label(dataset: Dataset) -> None:
    """Raises InvalidDataset where no training image has some label: nobody could learn it."""
    counts = marked(dataset.task, dataset.split("train").targets).sum(axis=0)
    for name, count in zip(dataset.task.label_names, counts, strict=True):
        if not count:
            raise InvalidDataset(
                f"no training image of {dataset.source} has the label {name!r}: add some, or make "
                f"task {dataset.task.name!r} without it"
            )


def hold_out(split: Split, share: float, source: str = "the dataset") -> tuple[Split, Split]:
    """The split without, and only with, a share of its groups; an image without group stands alone.

    The same images are held out every time. Raises InvalidDataset where there are too few groups.
    """
    groups = [group or image for group, image in zip(split.groups, split.ids, strict=True)]
    names = sorted(set(groups))
    if len(names) < 2:
        raise InvalidDataset(f"{source} is too small to hold out a validation split")
    count = max(1, round(share * len(names)))
    held = set(np.random.default_rng(_SEED).permutation(names)[:count].tolist())
    kept = [place for place, group in enumerate(groups) if group not in held]
    return split.choose(kept), split.choose([p for p, group in enumerate(groups) if group in held])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
