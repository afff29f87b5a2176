"""What the pipeline needs of its parts."""

from typing import Protocol

from retrieval.neighbour import Query, Retrieval
from service.domain import Completion, Diagnosis, GeneralistIdentity, Prompt
from specialists.prediction import Consultation, Pixels
from specialists.task import Task


class Specialists(Protocol):
    async def consult(self, pixels: Pixels, task: Task) -> Consultation:
        """Predictions and embeddings of those that can answer; the others are missing."""
        ...


class Retriever(Protocol):
    async def search(
        self, task: str, queries: tuple[Query, ...], *, group: str | None, image_sha256: str
    ) -> Retrieval:
        """The fused neighbours of a case, never of its own group nor the image itself.

        `image_sha256` is that of the pixels (`domain.pixels_sha256`).
        """
        ...


class Generalist(Protocol):
    @property
    def identity(self) -> GeneralistIdentity: ...

    async def answer(self, prompt: Prompt) -> Completion:
        """A probability per choice, or free text; raises GeneralistUnavailable."""
        ...

    async def check(self) -> None:
        """Returns when the generalist can answer; raises GeneralistUnavailable."""
        ...


class Store(Protocol):
    async def save(self, diagnosis: Diagnosis) -> None:
        """Durable when this returns."""
        ...

    async def get(self, diagnosis_id: str) -> Diagnosis:
        """Raises NotFound."""
        ...

    async def check(self) -> None:
        """Returns when the store can be read."""
        ...
