"""What is told of a task's panel: who can answer, and who should but cannot."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from specialists import loader
from specialists.catalogue import Scale, panel_of
from specialists.errors import InvalidSpecialist
from specialists.loader import Manifest
from specialists.prediction import MissingSpecialist
from specialists.stamps import Stamp
from specialists.task import Task


@dataclass(frozen=True, slots=True)
class LoadedSpecialist:
    """A specialist that can answer.

    `refused` says why the newer one in its folder does not take its place.
    """

    name: str
    scale: Scale
    weights_sha256: str
    validation: dict[str, float | None]  # metrics on its validation split
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class LoadedPanel:
    """Who can answer for a task, and who should but cannot.

    One that is not in memory is read when it is asked; what is told of it is from its manifests.
    """

    task: str
    specialists: tuple[LoadedSpecialist, ...]
    missing: tuple[MissingSpecialist, ...]
    in_memory: bool = True


@dataclass(frozen=True, slots=True)
class Resting:
    """A panel that is not in memory, and how its folders looked when it was described."""

    task: Task
    stamps: Mapping[str, Stamp]
    description: LoadedPanel


def described(folder: Path, task: Task) -> LoadedPanel:
    """A panel on disk, `folder/TASK/BACKBONE`, as its manifests promise it."""
    specialists, missing = [], []
    for name in panel_of(task):
        try:
            manifest = loader.read_manifest(folder / task.name / name)
            loader.check_task(manifest, task)
        except InvalidSpecialist as error:
            missing.append(MissingSpecialist(name, str(error)))
        else:
            specialists.append(described_by(manifest))
    return LoadedPanel(task.name, tuple(specialists), tuple(missing), in_memory=False)


def described_by(manifest: Manifest, refused: str | None = None) -> LoadedSpecialist:
    """One specialist."""
    figures = dict(manifest.validation)
    return LoadedSpecialist(
        manifest.backbone, manifest.scale, manifest.weights_sha256, figures, refused
    )
