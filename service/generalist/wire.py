"""What the embedded engine and the process that computes for it say to each other.

Replies are JSON: a process that has read what came from outside may send anything, so nothing it
says is unpickled.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service import errors
from service.domain import Image
from service.errors import GeneralistUnavailable, GscoError, PromptTooLong
from service.generalist.asked import Asked
from service.generalist.choice import Distribution

REPLY_BYTES = 16 << 20  # far more than the largest vocabulary's distributions


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


Reply = Ready | Sequence[Distribution | PromptTooLong] | str | Exception | None


def said(reply: Reply) -> bytes:
    """A reply as it is sent."""
    return json.dumps(_written(reply)).encode()


def heard(data: bytes) -> Reply:
    """The reply that was sent; raises GeneralistUnavailable for what is none."""
    try:
        reply: Reply = _read(json.loads(data))
    except (AttributeError, LookupError, TypeError, ValueError):
        raise GeneralistUnavailable("the generalist's process does not make sense") from None
    return reply


def _written(reply: Any) -> Any:
    if isinstance(reply, Ready):
        return {"ready": asdict(reply)}
    if isinstance(reply, Exception):
        return {"error": type(reply).__name__, "text": str(reply)}
    if isinstance(reply, list):
        return [_written(found) for found in reply]
    return {"found": reply}


def _read(document: Any) -> Any:
    if isinstance(document, list):
        return [_read(found) for found in document]
    if "ready" in document:
        return Ready(**document["ready"])
    if "error" in document:
        return _kind_of(document["error"])(document["text"])
    return document["found"]


def _kind_of(name: str) -> type[Exception]:
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, GscoError):
        return kind
    return ComputationFailed
