"""The published procedure, written for this comparison after what its scripts do.

One image after another, one backbone after another: a forward in float32 for the prediction, a
second one for the features, which are not pooled (AlexNet: its second hidden layer), and
scikit-learn's brute-force cosine over the features of every reference case.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from specialists import transforms
from specialists.loader import Specialist
from specialists.prediction import Pixels

NEIGHBOURS = 10


@dataclass(frozen=True, slots=True)
class Taken:
    """Milliseconds of one image."""

    forwards: float
    search: float


class Procedure:
    """Ten specialists and their reference cases; vectors of the latter are random numbers."""

    def __init__(self, specialists: Sequence[Specialist], references: int) -> None:
        self._specialists = specialists
        self._device = next(specialists[0].model.parameters()).device
        self._references = references
        self._indexes: dict[str, NearestNeighbors] = {}

    @torch.inference_mode()
    def answer(self, pixels: Pixels) -> Taken:
        forwards = search = 0.0
        for one in self._specialists:
            started = time.perf_counter()
            vector = self._seen(one, pixels)
            known = self._known(one.name, vector.shape[1])
            between = time.perf_counter()
            known.kneighbors(normalize(vector))
            forwards += between - started
            search += time.perf_counter() - between
        return Taken(1000 * forwards, 1000 * search)

    def _seen(self, one: Specialist, pixels: Pixels) -> Any:
        how = one.manifest.preprocessing
        resized = transforms.resize(pixels, how.input_size)[None]
        image = transforms.normalise(resized, how.mean, how.std).to(self._device)
        one.model(image)[0].softmax(dim=-1).cpu()
        return features(one, image).cpu().numpy()

    def _known(self, name: str, dimension: int) -> NearestNeighbors:
        """Made when the first image shows how long the features are; that image is not timed."""
        if name not in self._indexes:
            vectors = np.random.default_rng(0).standard_normal(
                (self._references, dimension), dtype=np.float32
            )
            self._indexes[name] = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine").fit(
                normalize(vectors, copy=False)
            )
        return self._indexes[name]


def features(one: Specialist, images: torch.Tensor) -> torch.Tensor:
    """What the published scripts retrieve by, flattened."""
    backbone: Any = one.model.backbone
    if one.name == "alexnet":
        flat = backbone.avgpool(backbone.features(images)).flatten(1)
        found: torch.Tensor = backbone.classifier[:4](flat)
        return found
    return backbone.forward_features(images).flatten(1)  # type: ignore[no-any-return]
