"""A specialist that was trained elsewhere, verified as a whole before anything is moved."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from specialists import catalogue, loader
from specialists.errors import InvalidSpecialist, SpecialistRefused, UnknownBackbone
from specialists.exchange import allowed, parcel, tensors
from specialists.forward import forward
from specialists.loader import Manifest, Specialist
from specialists.segmentation import models, network
from specialists.segmentation.network import Segmenter
from specialists.task import Task


@dataclass(frozen=True, slots=True)
class Added:
    """A specialist that now stands in the home folder."""

    manifest: Manifest
    folder: Path
    replaced: bool


def add(
    source: Path,
    home: Path,
    find_task: Callable[[str], Task],
    *,
    manifest: Path | None = None,
    replace: bool = False,
) -> Added:
    """Takes a folder, a tar file, or weights with their manifest into `home/TASK/BACKBONE`.

    Nothing is ever unpickled. Raises SpecialistRefused with the first thing wrong and UnknownTask,
    and leaves whatever stood there before as it was.
    """
    with parcel.opened(source, manifest) as opened:
        promised = allowed.read(parcel.read(opened.manifest, allowed.MAX_BYTES, "the manifest"))
        task = find_task(promised.task)
        wanted = _expected(promised)
        limit = tensors.most_bytes(wanted)
        weights = parcel.read(opened.weights, limit, "the weights")
    check_sha256(weights, promised)
    tensors.read(weights, wanted)
    folder = home / task.name / promised.backbone
    return install(folder, weights, promised, task, replace=replace)


def install(
    folder: Path, weights: bytes, manifest: Manifest, task: Task, *, replace: bool
) -> Added:
    """Puts checked weights into place once they have loaded and answered; raises as `add` does."""
    exists = folder.exists()
    if exists and not replace:
        raise SpecialistRefused(
            f"task {task.name!r} has a specialist {folder.name!r} already: --replace to replace it"
        )
    loader.install(folder, weights, manifest, lambda fresh: _try(fresh, task))
    return Added(manifest, folder, exists)


def check_sha256(weights: bytes, manifest: Manifest) -> None:
    if loader.sha256(weights) != manifest.weights_sha256:
        raise SpecialistRefused(
            f"the weights of {manifest.backbone!r} are not those of their manifest: sha256 differs"
        )


def _expected(manifest: Manifest) -> tensors.Tensors:
    try:
        wanted, dimension = _architecture(manifest)
    except UnknownBackbone as error:
        raise SpecialistRefused(str(error)) from error
    if manifest.embedding_dimension != dimension:
        raise SpecialistRefused(
            f"the manifest promises embeddings of {manifest.embedding_dimension} numbers, the "
            f"architecture has {dimension}"
        )
    return wanted


def _architecture(manifest: Manifest) -> tuple[tensors.Tensors, int]:
    """Its tensors, and how many numbers an embedding has: none of a segmentation model."""
    if manifest.kind == models.KIND:
        return tensors.expected_of_segmenter(models.find(manifest.backbone)), 0
    architecture = catalogue.find(manifest.backbone).at(manifest.scale)
    return tensors.expected(architecture, len(manifest.labels)), architecture.dimension


def _try(folder: Path, task: Task) -> None:
    """Loads it as the service will, and asks it once."""
    try:
        outlines = loader.read_manifest(folder).kind == models.KIND
        specialist = (network.load if outlines else loader.load)(folder, task)
    except InvalidSpecialist as error:
        raise SpecialistRefused(str(error)) from error
    manifest = specialist.manifest
    counted = sum(parameter.numel() for parameter in specialist.model.parameters())
    if counted != manifest.parameters:
        raise SpecialistRefused(
            f"the manifest promises {manifest.parameters} parameters, the weights have {counted}"
        )
    _ask(specialist)


def _ask(specialist: Specialist | Segmenter) -> None:
    if isinstance(specialist, Segmenter):
        _outline(specialist)
        return
    size = specialist.manifest.preprocessing.input_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        answers = forward(specialist, torch.randn(2, 3, size, size))
    if not all(np.isfinite(answer).all() for answer in answers):
        raise SpecialistRefused(
            f"the weights of {specialist.name!r} answer with numbers that are not finite"
        )


def _outline(segmenter: Segmenter) -> None:
    size = segmenter.manifest.preprocessing.input_size
    try:
        network.forward(segmenter, np.full((1, size, size, 3), 128, np.uint8))
    except FloatingPointError as error:
        raise SpecialistRefused(
            f"the weights of {segmenter.name!r} answer with numbers that are not finite"
        ) from error
