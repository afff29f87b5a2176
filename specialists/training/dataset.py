"""Labelled images to train on, evaluate with and retrieve from: a MedMNIST file or a folder."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specialists.errors import InvalidDataset
from specialists.task import Task
from specialists.training import folder, medmnist
from specialists.training.split import Split

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
    """The dataset in a MedMNIST .npz file, or in a folder of images.

    A folder holds `index.csv` (columns split, image, label and, where known, group), or else
    `{train,val,test}/LABEL/*.jpg|png`. Raises InvalidDataset with the first thing wrong.
    """
    if not task.is_labelled:
        raise InvalidDataset(
            f"task {task.name!r} is a {task.kind} task, which specialists do not learn"
        )
    if not path.exists():
        raise InvalidDataset(f"no dataset at {path}")
    splits = folder.read(path, task) if path.is_dir() else medmnist.read(path, task)
    return Dataset(path.name, task, _with_validation(splits, path.name))


def _with_validation(splits: Mapping[str, Split], source: str) -> dict[str, Split]:
    if "train" not in splits:
        raise InvalidDataset(f"{source} has no split 'train', only {_listed(splits)}")
    if "val" in splits:
        return dict(splits)
    train, val = hold_out(splits["train"], VALIDATION_SHARE, source)
    return {**splits, "train": train, "val": val}


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
