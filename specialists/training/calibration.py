"""What a training makes small, and the temperature that makes probabilities honest."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 the name torch's own documentation uses
from torch import Tensor

from specialists.task import Task, TaskKind
from specialists.training.split import Targets

LARGEST_WEIGHT = 10.0
LOWEST, HIGHEST = 0.05, 20.0
_GOLDEN = (math.sqrt(5) - 1) / 2


def loss(kind: str, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of (images, labels) logits, with a weight per label where given."""
    if kind == TaskKind.MULTI_LABEL:
        return F.binary_cross_entropy_with_logits(logits, targets.float(), pos_weight=weights)
    return F.cross_entropy(logits, targets, weight=weights)


def label_weights(task: Task, targets: Targets) -> Tensor:
    """Rare labels weigh more: by inverse frequency, or for several labels by no : yes."""
    if task.kind == TaskKind.MULTI_LABEL:
        present = targets.sum(axis=0)
        weights = (len(targets) - present) / np.maximum(present, 1)
        weights = weights.clip(min=1 / LARGEST_WEIGHT)  # who always has a label must learn it too
    else:
        counts = np.bincount(targets, minlength=len(task.labels))
        weights = len(targets) / (len(counts) * np.maximum(counts, 1))
    return torch.from_numpy(weights.clip(max=LARGEST_WEIGHT)).float()


def fit_temperature(kind: str, logits: Tensor, targets: Tensor) -> float:
    """The temperature with the least cross-entropy (Guo et al. 2017), between 0.05 and 20."""
    logits = logits.double()

    def cost(log_temperature: float) -> float:
        return float(loss(kind, logits / math.exp(log_temperature), targets))

    return math.exp(_lowest(cost, math.log(LOWEST), math.log(HIGHEST)))


def _lowest(cost: Callable[[float], float], low: float, high: float) -> float:
    """Golden-section search; the cost is convex in 1 / temperature, so it has one valley."""
    while high - low > 1e-4:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if cost(left) < cost(right):
            high = right
        else:
            low = left
    return (low + high) / 2
