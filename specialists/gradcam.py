"""Where a specialist looked: which places of the image speak for a label.

Grad-CAM on the layer that the catalogue names, with the gradient kept at its place instead of
averaged over the map (HiResCAM, Draelos and Carin 2020). Where the map is averaged into the
logits, as in ResNet, DenseNet, EfficientNet and ConvNeXt at full scale, the two are the same; for
class tokens, flattened maps and earlier layers only this one points at what was found, see
docs/results/gradcam.md.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from specialists import catalogue, transforms
from specialists.architectures import shadow
from specialists.errors import UnknownLabel
from specialists.forward import probabilities
from specialists.loader import Specialist
from specialists.overlay import enlarge
from specialists.prediction import Explanation, Heat, Pixels


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What one forward and one backward leave on the heat layer; (channels, rows, columns) each."""

    label: int
    logits: Tensor  # (labels,)
    activation: Tensor
    gradient: Tensor  # of the label's logit


def heat(specialist: Specialist, pixels: Pixels, label: str) -> Heat:
    """(height, width) of the image, 0 to 1: how much each place speaks for the label.

    Raises UnknownLabel, and ValueError on pixels of another shape than (height, width, 3).
    """
    return enlarge(explain(specialist, pixels, label).grid, *pixels.shape[:2])


def explain(specialist: Specialist, pixels: Pixels, label: str | None = None) -> Explanation:
    """The map on the heat layer's own grid; without a label, of the most probable one.

    Raises as `heat` does.
    """
    manifest = specialist.manifest
    traced = trace(specialist, pixels, None if label is None else _place(specialist, label))
    predicted = probabilities(manifest.kind, traced.logits, manifest.temperature)
    return Explanation(
        specialist=specialist.name,
        weights_sha256=manifest.weights_sha256,
        label=manifest.labels[traced.label],
        probability=float(predicted[traced.label]),
        layer=_layer(specialist),
        grid=scaled((traced.activation * traced.gradient).sum(0)),
    )


def trace(specialist: Specialist, pixels: Pixels, label: int | None) -> Trace:
    """One forward, and one backward from a label's logit down to the heat layer."""
    model, seen = shadow(specialist.model), list[Tensor]()  # who serves others gets no hook
    layer = model.backbone.get_submodule(_layer(specialist))

    def cut(_layer: nn.Module, _given: object, output: Tensor) -> Tensor:
        """Makes a leaf of the layer's output, so that nothing before it is remembered."""
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    layer.register_forward_hook(cut)
    with torch.enable_grad():
        logits = model(_prepare(specialist, pixels))[0][0].float()
        chosen = int(logits.argmax()) if label is None else label
        (gradient,) = torch.autograd.grad(logits[chosen], seen[0])
    mapped = (_as_map(one[0].detach().float(), model.backbone) for one in (seen[0], gradient))
    return Trace(chosen, logits.detach(), *mapped)


def scaled(evidence: Tensor) -> Heat:
    """(rows, columns) from 0 to 1, the largest 1; nothing but zeros where nothing speaks for it."""
    positive = evidence.clamp(min=0)
    return np.asarray((positive / positive.max().clamp(min=1e-12)).cpu().numpy(), np.float32)


def _layer(specialist: Specialist) -> str:
    manifest = specialist.manifest
    return catalogue.find(manifest.backbone).at(manifest.scale).heat_layer


def _place(specialist: Specialist, label: str) -> int:
    labels = specialist.manifest.labels
    if label not in labels:
        raise UnknownLabel(f"no label {label[:100]!r}; known labels: {', '.join(labels)}")
    return labels.index(label)


def _prepare(specialist: Specialist, pixels: Pixels) -> Tensor:
    how = specialist.manifest.preprocessing
    resized = transforms.resize(pixels, how.input_size)
    image = transforms.normalise(resized[None], how.mean, how.std)
    device = next(specialist.model.parameters()).device
    return image.to(device, memory_format=torch.channels_last)


def _as_map(output: Tensor, backbone: nn.Module) -> Tensor:
    """(channels, rows, columns) of a feature map, or of tokens without those of no place.

    Transformers' channels come last: (tokens, channels), or SAM's (rows, columns, channels).
    """
    patches = cast(Any, getattr(backbone, "patch_embed", None))
    if patches is None:
        return output
    if output.ndim == 2:
        places = output[cast(int, getattr(backbone, "num_prefix_tokens", 0)) :]
        output = places.reshape(*patches.grid_size, -1)
    return output.permute(2, 0, 1)
