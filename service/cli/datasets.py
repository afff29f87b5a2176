"""The data set that a command line names, of whichever kind it is."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli import output
from service.settings import Settings
from specialists.task import Task

if TYPE_CHECKING:  # torch is slow to import
    from service.evaluation.images import OnImage
    from specialists.training.dataset import Dataset

KEY = b"groups of one call, which are kept nowhere"
"""Makes pseudonyms where no key is set: whose images belong together must be known here too."""


def read(settings: Settings, path: Path, task: Task) -> "Dataset":
    """A MedMNIST file, a folder or a CSV; DICOM files are decoded as intake does it.

    Where there is no validation split, one is held out. The group of a DICOM file is a pseudonym of
    its PatientID, unless there is no key to make it and an index names groups. Raises
    InvalidDataset.
    """
    from specialists.training import dataset, folder

    inside = path.parent if path.name == folder.INDEX else path
    with output.progress() as bar:
        row = bar.add_task(f"reading {path.name}", total=None)
        if not holds_dicom(path):
            return dataset.read(path, task)
        return _decoded(
            inside,
            task,
            _key(settings, inside, task),
            lambda done, total: bar.update(row, completed=done, total=total),
        )


def _decoded(path: Path, task: Task, key: bytes, on_image: "OnImage") -> "Dataset":
    from service.evaluation import dicom_folder, images
    from specialists.training import dataset

    labelled = dicom_folder.read(path, task, key, on_image)
    found = labelled.dataset
    total = sum(map(len, found.splits.values())) + len(labelled.broken)
    if told := images.told(labelled.broken, total, path.name):
        output.messages.print(told, markup=False)
    return replace(found, splits=dataset.with_validation(found.splits, found.source))


def _key(settings: Settings, path: Path, task: Task) -> bytes:
    from specialists.training import folder

    key = settings.pseudonym_key.get_secret_value().encode()
    if key or any(any(split.groups) for split in folder.read(path, task).values()):
        return key
    return KEY


def holds_dicom(path: Path) -> bool:
    """Whether the images of a folder, or of its index, are DICOM files."""
    from service.evaluation import dicom_folder
    from specialists.training import folder

    inside = path.parent if path.name == folder.INDEX else path
    if not inside.is_dir():
        return False
    return dicom_folder.has_dicom(inside) or any(inside.glob("*/*/*.dcm"))
