"""What can be learnt on top of embeddings alone: a linear layer, and the vote of the nearest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from specialists.task import Task
from specialists.training.calibration import loss
from specialists.training.metrics import Probabilities
from specialists.training.split import Targets, marked

NEIGHBOURS = 11
"""As in the study that GSCo's specialists come from (Doerrich et al., MedMNIST+)."""

MOST_STEPS = 500
_LEAST_SPREAD = 1e-6

Features = NDArray[np.float32]  # (images, dimension), not of unit length


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Embeddings with their targets."""

    features: Features
    targets: Targets


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """A linear layer, (labels, dimension) and (labels,), and the L2 penalty that made it."""

    weight: Tensor
    bias: Tensor
    penalty: float

    def logits(self, features: Features) -> Tensor:
        """(images, labels)."""
        return torch.from_numpy(features) @ self.weight.T + self.bias


def linear(
    task: Task,
    training: Known,
    validation: Known,
    penalties: Sequence[float],
    weights: Tensor | None = None,
) -> LinearHead:
    """Logistic regression on standardised embeddings, by the penalty best on validation.

    A convex problem: the same data give the same layer, without a seed. `weights` are of labels.
    """
    mean, scale = training.features.mean(axis=0), _scale(training.features)
    known = Known((training.features - mean) * scale, training.targets)
    heads: list[LinearHead] = []
    for penalty in sorted(penalties, reverse=True):  # from each to the next is a small step
        heads.append(_fitted(task, known, penalty, weights, heads[-1] if heads else None))
    standing = [_unscaled(head, mean, scale) for head in heads]
    return min(standing, key=lambda head: _cost(task, head, validation))


def nearest(task: Task, known: Known, features: Features, count: int = NEIGHBOURS) -> Probabilities:
    """(images, labels): the share of each label among the most similar known images (cosine)."""
    count = min(count, len(known.features))
    search = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute")
    places = search.fit(known.features).kneighbors(features, return_distance=False)
    return np.asarray(marked(task, known.targets)[places].mean(axis=1), dtype=np.float32)


def _scale(features: Features) -> Features:
    """One over the spread of each number; a number that never changed says nothing."""
    spread = features.std(axis=0)
    flat = spread <= _LEAST_SPREAD * np.maximum(np.abs(features).max(axis=0), _LEAST_SPREAD)
    return np.asarray(np.where(flat, 0, 1 / np.where(flat, 1, spread)), dtype=np.float32)


def _fitted(
    task: Task, known: Known, penalty: float, weights: Tensor | None, start: LinearHead | None
) -> LinearHead:
    features, targets = torch.from_numpy(known.features), torch.from_numpy(known.targets)
    labels, dimension = len(task.labels), features.shape[1]

    def cost(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        layer = torch.from_numpy(flat).view(labels, dimension + 1).float().requires_grad_()
        logits = features @ layer[:, :-1].T + layer[:, -1]
        total = loss(task.kind, logits, targets, weights)
        total = total + penalty / 2 * layer[:, :-1].square().sum()
        (slope,) = torch.autograd.grad(total, layer)
        return float(total.detach()), slope.double().numpy().ravel()

    begin = np.zeros((labels, dimension + 1)) if start is None else _layer(start)
    options = {"maxiter": MOST_STEPS, "ftol": 1e-10, "gtol": 1e-6}
    found = minimize(cost, begin.ravel(), jac=True, method="L-BFGS-B", options=options)
    layer = torch.from_numpy(found.x).view(labels, dimension + 1).float()
    return LinearHead(layer[:, :-1].contiguous(), layer[:, -1].contiguous(), penalty)


def _layer(head: LinearHead) -> NDArray[np.float64]:
    return torch.cat([head.weight, head.bias.unsqueeze(1)], dim=1).double().numpy()


def _unscaled(head: LinearHead, mean: Features, scale: Features) -> LinearHead:
    """The same layer for embeddings as they come."""
    weight = head.weight * torch.from_numpy(scale)
    return LinearHead(weight, head.bias - weight @ torch.from_numpy(mean), head.penalty)


def _cost(task: Task, head: LinearHead, validation: Known) -> float:
    targets = torch.from_numpy(validation.targets)
    return float(loss(task.kind, head.logits(validation.features), targets))
