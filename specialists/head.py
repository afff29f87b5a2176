"""Specialists that have a last layer of their own, and their trunk from elsewhere."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from specialists import loader
from specialists.architectures import EmbeddingClassifier, build
from specialists.errors import InvalidSpecialist
from specialists.loader import Manifest, Specialist
from specialists.task import Task
from specialists.trunk import PREFIX


def trunk_of(manifest: Manifest) -> str | None:
    """What specialists that can share a trunk have in common, if they say so (`trunk.py`)."""
    if not manifest.trunk_sha256:
        return None
    return f"{manifest.backbone} {manifest.scale} {manifest.trunk_sha256}"


def load(folder: Path, task: Task | None = None) -> Specialist:
    """As `loader.load`, checked alike, but only the last layer's tensors are kept.

    For whoever has another way to the embeddings: without one it answers nothing.
    """
    manifest, tensors = loader.read(folder, task)
    with torch.device("meta"):
        model = build(loader.architecture_of(manifest), len(manifest.labels))
    loader.check_finite(tensors, manifest)
    if _shapes(tensors) != _shapes(model.state_dict()):
        raise loader.unfit(manifest)
    loader.check_trunk(tensors, model, manifest)
    own = {name: tensors[name].float() for name in _own(model)}
    model.load_state_dict(own, strict=False, assign=True)
    return Specialist(manifest, model.eval())


def load_beside(
    donor: Specialist, folder: Path, task: Task | None = None, device: str = "cpu"
) -> Specialist:
    """As `loader.load`, with the trunk of another that has the same."""
    specialist = loader.load(folder, task, device) if donor.is_whole else load(folder, task)
    if trunk_of(specialist.manifest) != trunk_of(donor.manifest):
        raise InvalidSpecialist(f"{specialist.name!r} was replaced while it was read")
    if donor.is_whole:
        _share(specialist.model, donor.model)
    return replace(specialist, trunk=donor.trunk, computed_in=donor.computed_in)


def _share(model: EmbeddingClassifier, donor: EmbeddingClassifier) -> None:
    """The donor's own tensors take the place of equal ones."""
    own, tensors, lent = _own(model), model.state_dict(), donor.state_dict()
    chosen = {name: tensors[name] if name in own else lent[name] for name in tensors}
    model.load_state_dict(chosen, assign=True)


def _own(model: EmbeddingClassifier) -> frozenset[str]:
    return frozenset(PREFIX + name for name in model.classifier_names())


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
