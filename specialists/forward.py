"""Images through a specialist: calibrated probabilities and unit-length embeddings."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 the name torch's own documentation uses
from numpy.typing import NDArray
from torch import Tensor

from specialists.loader import Specialist
from specialists.task import TaskKind

Arrays = tuple[NDArray[np.float32], NDArray[np.float32]]
"""(images, labels) probabilities and (images, dimension) embeddings."""


def probabilities(kind: str, logits: Tensor, temperature: float) -> Tensor:
    """Sigmoid for several labels, softmax for one, of the logits divided by the temperature."""
    scaled = logits / temperature
    return scaled.sigmoid() if kind == TaskKind.MULTI_LABEL else scaled.softmax(dim=-1)


@torch.inference_mode()
def forward(specialist: Specialist, images: Tensor) -> Arrays:
    """One forward of (batch, 3, size, size) normalised images; embeddings have length 1."""
    embeddings = embed(specialist, images)
    manifest = specialist.manifest
    logits = specialist.model.classify(embeddings).float()
    predicted = probabilities(manifest.kind, logits, manifest.temperature)
    return predicted.cpu().numpy(), F.normalize(embeddings.float(), dim=-1).cpu().numpy()


def embed(specialist: Specialist, images: Tensor) -> Tensor:
    """(batch, dimension) as the last layer reads them, by the fastest way there is."""
    if specialist.trunk is not None:
        return specialist.trunk(images)
    device = next(specialist.model.parameters()).device
    return specialist.model.embed(
        images.to(device, memory_format=torch.channels_last, non_blocking=True)
    )
