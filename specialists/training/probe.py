"""Linear-probe specialists: a pretrained trunk as it is, and a linear layer fitted on top of it."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from specialists import catalogue, loader
from specialists.architectures import EmbeddingClassifier, build, on_device
from specialists.catalogue import Architecture, Precision
from specialists.training import batches, heads, numerics, pretrained
from specialists.training.batches import ResizedImages
from specialists.training.calibration import label_weights
from specialists.training.heads import Features, Known, LinearHead
from specialists.training.plan import Plan
from specialists.training.trainer import Examples


@dataclass(frozen=True, slots=True, eq=False)
class Probed:
    """A model with a fitted last layer, and how it came about."""

    model: EmbeddingClassifier
    recipe: dict[str, Any]
    seconds: float


def probe(plan: Plan, key: str, training: Examples, validation: Examples) -> Probed:
    """Embeds every image once and fits the last layer; the trunk is rounded as it will be stored.

    Raises InvalidWeights where the trunk's file has changed since it was chosen.
    """
    started = time.monotonic()
    architecture = plan.architecture(key)
    model = build(architecture, len(plan.task.labels))
    pretrained.fill(model, plan.begins[key], key)
    model.load_state_dict(loader.stored(model))
    on_device(model, plan.device)
    known, judged = (
        Known(embeddings(model, one.images, architecture, plan.recipe.precision), one.targets)
        for one in (training, validation)
    )
    weights = label_weights(plan.task, training.targets) if plan.recipe.balanced else None
    head = heads.linear(plan.task, known, judged, catalogue.probe_penalties(), weights)
    put_on(model, head)
    recipe = {**plan.recipe_of_probe(), "penalty": head.penalty}
    return Probed(model, recipe, time.monotonic() - started)


@torch.inference_mode()
def embeddings(
    model: EmbeddingClassifier,
    images: ResizedImages,
    architecture: Architecture,
    precision: Precision = Precision.FLOAT32,
    batch_size: int = 64,
) -> Features:
    """(images, dimension): what the last linear layer reads, not of unit length."""
    model.eval()
    device = next(model.parameters()).device
    parts: list[Features] = []
    for batch in batches.in_order(images, architecture.mean, architecture.std, batch_size):
        with numerics.autocast(precision, device.type):
            _, found = model(batch.to(device, memory_format=torch.channels_last))
        parts.append(found.float().cpu().numpy())
    return np.concatenate(parts)


def put_on(model: EmbeddingClassifier, head: LinearHead) -> None:
    """The head as the model's last linear layer."""
    tensors = {"weight": head.weight, "bias": head.bias}
    named = {name: tensors[name.rpartition(".")[2]] for name in model.classifier_names()}
    model.backbone.load_state_dict(named, strict=False)
