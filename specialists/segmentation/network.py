"""Segmentation models in torch, and as folders on disk like every other specialist."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import segmentation_models_pytorch as smp
import torch
from numpy.typing import NDArray
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from specialists import loader, transforms
from specialists.errors import InvalidSpecialist, UnknownBackbone
from specialists.loader import WEIGHTS, Manifest, Preprocessing
from specialists.segmentation import models
from specialists.segmentation.models import KIND, MEAN, STD, Model
from specialists.task import Task


@dataclass(frozen=True, slots=True, eq=False)
class Segmenter:
    """A trained segmentation specialist, ready to outline: evaluation mode, float32."""

    manifest: Manifest
    model: nn.Module = field(repr=False)

    @property
    def name(self) -> str:
        return self.manifest.backbone


def build(model: Model) -> nn.Module:
    """The untrained network: (batch, 3, size, size) images → (batch, 1, size, size) logits."""
    constructor = getattr(smp, model.decoder)
    return cast(
        nn.Module,
        constructor(model.encoder, encoder_weights=None, classes=1, **_arguments(model)),
    )


def _arguments(model: Model) -> Mapping[str, Any]:
    """Encoders take tuples where TOML has arrays."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in model.arguments.items()}


def on_device(network: nn.Module, device: str) -> nn.Module:
    network.to(device)
    network.to(memory_format=torch.channels_last)
    return network


def save(folder: Path, network: nn.Module, manifest: Manifest) -> Manifest:
    """Writes it, whole or not at all, over an earlier one; the sha256 is filled in."""
    weights = save_tensors(loader.stored(network))
    manifest = replace(manifest, weights_sha256=loader.sha256(weights))
    loader.install(folder, weights, manifest)
    return manifest


def load(folder: Path, task: Task | None = None, device: str = "cpu") -> Segmenter:
    """The specialist in a folder, checked against its manifest and, where given, against the task.

    Raises InvalidSpecialist where a file is missing or damaged, the weights' sha256 or shapes are
    not those promised, or it outlines something else than the task's segment.
    """
    manifest = loader.read_manifest(folder)
    model = _model(manifest)
    if task is not None:
        _check_task(manifest, task)
    network, tensors = build(model), loader.read_weights(folder / WEIGHTS, manifest)
    loader.check_finite(tensors, manifest)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InvalidSpecialist(
            f"the weights of {manifest.backbone!r} do not fit its architecture"
        ) from error
    return Segmenter(manifest, on_device(network, device).eval())


def preprocessing_of(model: Model) -> Preprocessing:
    return Preprocessing(transforms.VERSION, model.input_size, MEAN, STD)


@torch.inference_mode()
def forward(segmenter: Segmenter, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(batch, size, size, 3) images → (batch, size, size) calibrated probabilities.

    Raises FloatingPointError where they are not finite.
    """
    device = next(segmenter.model.parameters()).device
    batch = transforms.normalise(images, MEAN, STD)
    logits = segmenter.model(batch.to(device, memory_format=torch.channels_last)).float()
    chances: Tensor = (logits / segmenter.manifest.temperature).sigmoid()[:, 0]
    if not bool(chances.isfinite().all()):
        raise FloatingPointError(f"specialist {segmenter.name!r} gave numbers that are not finite")
    return np.asarray(chances.cpu().numpy(), np.float32)


def _model(manifest: Manifest) -> Model:
    if manifest.kind != KIND:
        raise InvalidSpecialist(f"specialist {manifest.backbone!r} outlines nothing")
    try:
        model = models.find(manifest.backbone)
    except UnknownBackbone as error:
        raise InvalidSpecialist(str(error)) from error
    if manifest.preprocessing != preprocessing_of(model):
        raise InvalidSpecialist(
            f"specialist {manifest.backbone!r} was trained with other preprocessing than this "
            f"version's {transforms.VERSION!r} at {model.input_size} px"
        )
    return model


def _check_task(manifest: Manifest, task: Task) -> None:
    wanted = task.segment.name if task.segment else "nothing"
    if manifest.task != task.name or manifest.labels != (wanted,):
        raise InvalidSpecialist(
            f"specialist {manifest.backbone!r} outlines {', '.join(manifest.labels)} on task "
            f"{manifest.task!r}, not {wanted} on {task.name!r}"
        )
