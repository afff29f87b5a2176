"""The specialists of one task, each with its queue, and what they say together."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from specialists import catalogue, transforms
from specialists.batcher import Batcher
from specialists.catalogue import Scale
from specialists.errors import PoolOverloaded, SpecialistUnavailable, UnknownBackbone
from specialists.forward import forward
from specialists.loader import Preprocessing, Specialist
from specialists.prediction import (
    Consultation,
    Embedding,
    MissingSpecialist,
    Pixels,
    SpecialistPrediction,
)
from specialists.task import Task

Answer = tuple[SpecialistPrediction, Embedding]


@dataclass(frozen=True, slots=True)
class LoadedSpecialist:
    """A specialist that can answer."""

    name: str
    scale: Scale
    weights_sha256: str
    validation: dict[str, float | None]  # metrics on its validation split


@dataclass(frozen=True, slots=True)
class LoadedPanel:
    """Who can answer for a task, and who should but cannot."""

    task: str
    specialists: tuple[LoadedSpecialist, ...]
    missing: tuple[MissingSpecialist, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A specialist and the queue in front of it."""

    specialist: Specialist
    batcher: Batcher[Tensor, Answer]


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """The members of one task in the panel's order, and who is missing."""

    task: Task
    members: tuple[Member, ...]
    missing: tuple[MissingSpecialist, ...]

    async def consult(self, pixels: Pixels) -> Consultation:
        """Asks every member at once; raises PoolOverloaded, ValueError on unusable pixels."""
        inputs = await asyncio.to_thread(_prepare, pixels, self.members)
        futures = _submit(self.members, inputs)
        answers = await asyncio.gather(*futures, return_exceptions=True)
        return self._consultation(answers)

    def find(self, name: str) -> Specialist:
        """One member; raises SpecialistUnavailable, or UnknownBackbone with those that belong."""
        for member in self.members:
            if member.specialist.name == name:
                return member.specialist
        for absent in self.missing:
            if absent.specialist == name:
                raise SpecialistUnavailable(f"specialist {name!r} cannot answer: {absent.reason}")
        known = ", ".join(catalogue.panel_of(self.task))
        raise UnknownBackbone(
            f"no specialist {name[:80]!r} on the panel of task {self.task.name!r}; known: {known}"
        )

    def describe(self) -> LoadedPanel:
        specialists = tuple(_describe(member.specialist) for member in self.members)
        return LoadedPanel(self.task.name, specialists, self.missing)

    def _consultation(self, answers: Sequence[Answer | BaseException]) -> Consultation:
        given = [answer for answer in answers if not isinstance(answer, BaseException)]
        return Consultation(
            task=self.task.name,
            predictions=tuple(prediction for prediction, _ in given),
            embeddings=tuple(embedding for _, embedding in given),
            missing=(*self.missing, *self._failures(answers)),
        )

    def _failures(self, answers: Sequence[Answer | BaseException]) -> list[MissingSpecialist]:
        failures = []
        for member, answer in zip(self.members, answers, strict=True):
            if isinstance(answer, PoolOverloaded | asyncio.CancelledError):
                raise answer
            if isinstance(answer, BaseException):
                reason = f"failed on this image: {type(answer).__name__}"
                failures.append(MissingSpecialist(member.specialist.name, reason))
        return failures


def answer(specialist: Specialist, images: Sequence[Tensor]) -> list[Answer]:
    """One forward of (3, size, size) images, together, and what it says of each.

    Raises FloatingPointError where the numbers are not finite.
    """
    probabilities, embeddings = forward(specialist, torch.stack(list(images)))
    if not (np.isfinite(probabilities).all() and np.isfinite(embeddings).all()):
        raise FloatingPointError(f"specialist {specialist.name!r} gave numbers that are not finite")
    name, sha256 = specialist.name, specialist.manifest.weights_sha256
    accuracy = specialist.manifest.validation.get("accuracy")
    return [
        (
            SpecialistPrediction(name, tuple(row.tolist()), sha256, accuracy),
            Embedding(name, sha256, embedding),
        )
        for row, embedding in zip(probabilities, embeddings, strict=True)
    ]


def _prepare(pixels: Pixels, members: Sequence[Member]) -> list[Tensor]:
    """(3, size, size) for each member; computed once for all that see alike."""
    prepared: dict[Preprocessing, Tensor] = {}
    resized: dict[int, Pixels] = {}
    for member in members:
        how = member.specialist.manifest.preprocessing
        if how.input_size not in resized:
            resized[how.input_size] = transforms.resize(pixels, how.input_size)
        if how not in prepared:
            batch = resized[how.input_size][None]
            prepared[how] = transforms.normalise(batch, how.mean, how.std)[0]
    return [prepared[member.specialist.manifest.preprocessing] for member in members]


def _submit(members: Sequence[Member], inputs: Sequence[Tensor]) -> list[asyncio.Future[Answer]]:
    """All questions or none: where one queue is full, those already asked are withdrawn."""
    futures: list[asyncio.Future[Answer]] = []
    try:
        for member, image in zip(members, inputs, strict=True):
            futures.append(member.batcher.submit(image))
    except PoolOverloaded:
        for future in futures:
            future.cancel()
        raise
    return futures


def _describe(specialist: Specialist) -> LoadedSpecialist:
    manifest = specialist.manifest
    validation = dict(manifest.validation)
    return LoadedSpecialist(specialist.name, manifest.scale, manifest.weights_sha256, validation)
