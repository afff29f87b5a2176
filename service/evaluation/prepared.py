"""The panel asked of many images at once, and answering one by one."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain import pixels_sha256
from service.errors import GscoError
from specialists.loader import Specialist
from specialists.panel import Answer, answers
from specialists.prediction import Consultation, Hear, MissingSpecialist, Pixels, unheard
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
        members = [_answers(one, *said[one.name]) for one in self.specialists if images]
        return PreparedPanel(
            {
                pixels_sha256(pixels): Consultation(
                    task.name,
                    tuple(member[row][0] for member in members),
                    tuple(member[row][1] for member in members),
                    self.missing,
                )
                for row, pixels in enumerate(images)
            }
        )


def _answers(
    specialist: Specialist, probabilities: NDArray[np.float32], embeddings: NDArray[np.float32]
) -> list[Answer]:
    try:
        return answers(specialist, probabilities, embeddings)
    except FloatingPointError as error:
        raise GscoError(str(error)) from error
