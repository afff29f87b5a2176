"""What the pipeline needs of its parts."""

from collections.abc import AsyncGenerator
from typing import Protocol, TypeVar

from retrieval.neighbour import Query, Retrieval
from service.domain import Completion, GeneralistIdentity, Prompt, Result
from specialists.prediction import Consultation, Hear, Pixels, unheard
from specialists.task import Task

Kept = TypeVar("Kept", bound=Result)


class Specialists(Protocol):
    async def consult(self, pixels: Pixels, task: Task, hear: Hear = unheard) -> Consultation:
        """Predictions and embeddings of those that can answer; the others are missing.

        `hear` is told of each prediction as it comes.
        """
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
        """A probability per choice, or free text.

        Raises GeneralistUnavailable, PromptTooLong and Overloaded, UnparsableAnswer.
        """
        ...

    def stream(self, prompt: Prompt) -> AsyncGenerator[str, None]:
        """Free text in pieces as it is written; raises as `answer` does."""
        ...

    async def check(self) -> None:
        """Returns when the generalist can answer; raises GeneralistUnavailable."""
        ...


class Store(Protocol):
    async def save(self, result: Result) -> None:
        """Durable when this returns."""
        ...

    async def get(self, kind: type[Kept], id: str) -> Kept:
        """What was saved of this kind under this id; raises NotFound."""
        ...

    async def check(self) -> None:
        """Returns when the store can be read."""
        ...
