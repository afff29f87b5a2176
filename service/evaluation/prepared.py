"""The panel asked of many images at once, and answering one by one."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain import pixels_sha256
from service.errors import GscoError
from specialists.loader import Specialist
from specialists.prediction import (
    Consultation,
    Embedding,
    Hear,
    MissingSpecialist,
    Pixels,
    SpecialistPrediction,
    unheard,
)
from specialists.task import Task
from specialists.training import evaluate


@dataclass(frozen=True, eq=False)
class PreparedPanel:
    """Consultations computed beforehand, by what the image shows."""

    known: Mapping[str, Consultation]

    async def consult(self, pixels: Pixels, task: Task, hear: Hear = unheard) -> Consultation:
        del task, hear
        return self.known[pixels_sha256(pixels)]


@dataclass(frozen=True, eq=False)
class Panel:
    """The specialists that are measured, and those that should be there and are not."""

    specialists: tuple[Specialist, ...]
    missing: tuple[MissingSpecialist, ...] = ()

    async def prepare(self, images: Sequence[Pixels], task: Task) -> PreparedPanel:
        """Consults about all images together, in batches."""
        return await asyncio.to_thread(self._prepared, images, task)

    def _prepared(self, images: Sequence[Pixels], task: Task) -> PreparedPanel:
        said = evaluate.run(self.specialists, images) if images else {}
        members = [_member(one, *said[one.name]) for one in self.specialists if images]
        return PreparedPanel(
            {
                pixels_sha256(pixels): Consultation(
                    task.name,
                    tuple(predictions[row] for predictions, _ in members),
                    tuple(embeddings[row] for _, embeddings in members),
                    self.missing,
                )
                for row, pixels in enumerate(images)
            }
        )


def _member(
    specialist: Specialist, probabilities: NDArray[Any], embeddings: NDArray[Any]
) -> tuple[list[SpecialistPrediction], list[Embedding]]:
    if not (np.isfinite(probabilities).all() and np.isfinite(embeddings).all()):
        raise GscoError(f"specialist {specialist.name!r} gave numbers that are not finite")
    name, sha256 = specialist.name, specialist.manifest.weights_sha256
    accuracy = specialist.manifest.validation.get("accuracy")
    return (
        [
            SpecialistPrediction(
                name, tuple(row.tolist()), sha256, accuracy, specialist.computed_in
            )
            for row in probabilities
        ],
        [Embedding(name, sha256, row) for row in embeddings],
    )
