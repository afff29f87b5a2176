"""What the panel says of one image."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (height, width, 3) RGB
Heat = NDArray[np.float32]  # (rows, columns) or (height, width), 0 to 1
Mask = NDArray[np.bool_]  # (height, width)
Vector = NDArray[np.float32]  # (dim,), unit length where it is an embedding


@dataclass(frozen=True, slots=True)
class SpecialistPrediction:
    """One specialist's answer: a calibrated probability per label, in the task's order.

    `computed_in` names the numbers of its arithmetic (`arithmetic.NUMBERS`); empty where nobody
    told. On a GPU the convolutions of "float32" may round to TF32, as PyTorch does.
    """

    specialist: str
    probabilities: tuple[float, ...]
    weights_sha256: str
    validation_accuracy: float | None = None
    computed_in: str = ""


Hear = Callable[[SpecialistPrediction], None]
"""Called with each prediction of a consultation as it comes; it must return at once."""


def unheard(prediction: SpecialistPrediction) -> None:
    """Nobody listens."""
    del prediction


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """Where one specialist places the image; `encoder_sha256` names the weights it comes from."""

    specialist: str
    encoder_sha256: str
    vector: Vector


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What one segmentation specialist outlines: where it lies, how large it is, how certain.

    `share` is the part of the image that it covers, 0 where nothing is found. `places` say where
    the largest of its `areas` lie, the largest first. `certainty` is the Dice that the
    probabilities promise (`specialists.segmentation.evidence`).

    `map` is in memory only, for whoever needs the mask while the request lives
    (`specialists.segmentation.evidence.mask`): it is never stored.
    """

    specialist: str
    segment: str
    weights_sha256: str
    share: float
    areas: int
    places: tuple[str, ...]
    certainty: float
    validation_dice: float | None = None
    map: Heat | None = field(default=None, repr=False, compare=False)
    """(rows, columns) over the whole image: the probability of each place to belong to it."""


@dataclass(frozen=True, slots=True)
class MissingSpecialist:
    """A specialist of the panel that could not answer, and why in one sentence."""

    specialist: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Consultation:
    """Everything the panel has to say of one image, in the panel's order.

    `predictions` and `embeddings` are parallel: one of each per specialist that answered. A task
    that has a segment also gets `segmentations` of it.
    """

    task: str
    predictions: tuple[SpecialistPrediction, ...]
    embeddings: tuple[Embedding, ...]
    missing: tuple[MissingSpecialist, ...] = ()
    segmentations: tuple[Segmentation, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Where one specialist looked for a label: a map over the whole image, 0 to 1.

    `grid` has the resolution of the layer that it was made of; its cells divide the image evenly.
    """

    specialist: str
    weights_sha256: str
    label: str
    probability: float
    layer: str
    grid: Heat  # (rows, columns)
