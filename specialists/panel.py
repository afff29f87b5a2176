"""The specialists of one task, each with its queue, and what they say together."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specialists import catalogue, loader, transforms
from specialists.batcher import Batcher
from specialists.description import LoadedPanel, described_by
from specialists.errors import (
    InvalidSpecialist,
    PoolOverloaded,
    SpecialistUnavailable,
    UnknownBackbone,
)
from specialists.forward import forward
from specialists.loader import Preprocessing, Specialist
from specialists.prediction import (
    Consultation,
    Embedding,
    Hear,
    MissingSpecialist,
    Pixels,
    SpecialistPrediction,
    unheard,
)
from specialists.stamps import Stamp
from specialists.task import Task

Answer = tuple[SpecialistPrediction, Embedding]
Rows = NDArray[np.float32]


class Member:
    """A specialist, the queue in front of it, and how many are counting on it."""

    def __init__(
        self, specialist: Specialist, batcher: Batcher[Tensor, Answer], seconds: float = 0.0
    ) -> None:
        self.specialist, self.batcher, self.seconds = specialist, batcher, seconds
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def is_used(self) -> bool:
        return self._users > 0

    @contextmanager
    def used(self) -> Iterator[None]:
        """While this lasts, the member is not retired."""
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def retire(self) -> None:
        """Stops once nobody counts on it any more; whoever calls sees that nobody new does."""
        await self._unused.wait()
        await self.batcher.close()

    def serves(self, task: Task) -> bool:
        """Whether it was trained for a task as it is now."""
        try:
            loader.check_task(self.specialist.manifest, task)
        except InvalidSpecialist:
            return False
        return True


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """The members of one task in the panel's order, and who is missing.

    `stamps` tell how every folder looked when it was last dealt with; `refused` gives the reasons
    why members stay although their folders hold something newer.
    """

    task: Task
    members: tuple[Member, ...]
    missing: tuple[MissingSpecialist, ...]
    stamps: Mapping[str, Stamp]
    refused: Mapping[str, str]

    @property
    def is_used(self) -> bool:
        return any(member.is_used for member in self.members)

    async def consult(self, pixels: Pixels, hear: Hear = unheard) -> Consultation:
        """Asks every member at once; raises PoolOverloaded, ValueError on unusable pixels."""
        how = [member.specialist.manifest.preprocessing for member in self.members]
        inputs = await asyncio.to_thread(prepare, pixels, how)
        futures = _submit(self.members, inputs)
        for future in futures:
            future.add_done_callback(partial(_told, hear))
        answers = await asyncio.gather(*futures, return_exceptions=True)
        return self._consultation(answers)

    @contextmanager
    def used(self) -> Iterator[None]:
        """While this lasts its members are not retired, whatever takes their place."""
        with ExitStack() as stack:
            for member in self.members:
                stack.enter_context(member.used())
            yield

    def find(self, name: str) -> Member:
        """One member; raises SpecialistUnavailable, or UnknownBackbone with those that belong."""
        for member in self.members:
            if member.specialist.name == name:
                return member
        for absent in self.missing:
            if absent.specialist == name:
                raise SpecialistUnavailable(f"specialist {name!r} cannot answer: {absent.reason}")
        known = ", ".join(catalogue.panel_of(self.task))
        raise UnknownBackbone(
            f"no specialist {name[:80]!r} on the panel of task {self.task.name!r}; known: {known}"
        )

    def describe(self) -> LoadedPanel:
        manifests = [member.specialist.manifest for member in self.members]
        specialists = tuple(described_by(one, self.refused.get(one.backbone)) for one in manifests)
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
    """One forward of (3, size, size) images, together, and what it says of each; as `answers`."""
    return answers(specialist, *forward(specialist, torch.stack(list(images))))


def answers(specialist: Specialist, probabilities: Rows, embeddings: Rows) -> list[Answer]:
    """What a forward says of each image, from its (images, labels) and (images, dimension).

    Raises FloatingPointError where the numbers are not finite.
    """
    if not (np.isfinite(probabilities).all() and np.isfinite(embeddings).all()):
        raise FloatingPointError(f"specialist {specialist.name!r} gave numbers that are not finite")
    name, sha256 = specialist.name, specialist.manifest.weights_sha256
    accuracy = specialist.manifest.validation.get("accuracy")
    return [
        (
            SpecialistPrediction(
                name, tuple(row.tolist()), sha256, accuracy, specialist.computed_in
            ),
            Embedding(name, sha256, embedding),
        )
        for row, embedding in zip(probabilities, embeddings, strict=True)
    ]


def prepare(pixels: Pixels, preprocessings: Sequence[Preprocessing]) -> list[Tensor]:
    """(3, size, size) for each; resized once a size, computed once for all that see alike."""
    prepared: dict[Preprocessing, Tensor] = {}
    resized: dict[int, Pixels] = {}
    for how in preprocessings:
        if how.input_size not in resized:
            resized[how.input_size] = transforms.resize(pixels, how.input_size)
        if how not in prepared:
            batch = resized[how.input_size][None]
            prepared[how] = transforms.normalise(batch, how.mean, how.std)[0]
    return [prepared[how] for how in preprocessings]


def _told(hear: Hear, future: asyncio.Future[Answer]) -> None:
    if not future.cancelled() and future.exception() is None:
        hear(future.result()[0])


def _submit(members: Sequence[Member], inputs: Sequence[Tensor]) -> list[asyncio.Future[Answer]]:
    """All questions or none: where one queue is full, those already asked are withdrawn.

    The slowest specialist is asked first: begun last, it would keep one core busy while the
    others have nothing left to do.
    """
    futures: dict[int, asyncio.Future[Answer]] = {}
    try:
        for place in sorted(range(len(members)), key=lambda place: -members[place].seconds):
            futures[place] = members[place].batcher.submit(inputs[place])
    except PoolOverloaded:
        for future in futures.values():
            future.cancel()
        raise
    return [futures[place] for place in range(len(members))]
