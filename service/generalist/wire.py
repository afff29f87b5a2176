"""What the embedded engine and the process that computes for it say to each other."""

from dataclasses import dataclass
from pathlib import Path

from service.domain import Image
from service.generalist.asked import Asked


class ComputationFailed(Exception):
    """A defect, and its place; what it says quotes no prompt."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What to load, and what the decoder may use."""

    folder: Path
    adapter: Path | None
    threads: int | None
    cache_bytes: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The reply to a start."""

    weights_sha256: str
    image_size: int


@dataclass(frozen=True, slots=True)
class Distributions:
    """Asks for a distribution, or PromptTooLong, of each."""

    asked: tuple[Asked, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """Asks for the first piece of a text; None when it has none."""

    number: int
    image: Image
    text: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Asks for the next piece of a text that was begun; None at its end."""

    number: int


Question = Distributions | Text | Piece


@dataclass(frozen=True, slots=True)
class Request:
    """One question, and the texts that nobody reads any more."""

    question: Question
    left: tuple[int, ...] = ()
