"""Why a server refuses, and which of its refusals may pass."""

from http import HTTPStatus

import httpx

from service.errors import GscoError, Overloaded, PromptTooLong
from service.generalist import protocol

LONGEST_PAUSE_SECONDS = 5.0  # a server that asks for more patience is answered for at once

_OF_LOST_IMAGES = frozenset(
    (
        HTTPStatus.BAD_REQUEST,  # vLLM: its cache has no such image any more
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.INTERNAL_SERVER_ERROR,  # vLLM: its engine lost what its front still had
    )
)


class Passing(Exception):
    """A failure that may pass; `error` is what it is called when it does not."""

    def __init__(self, error: GscoError, *, attempts: int, pause: float | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.attempts = attempts
        self.pause = pause  # seconds


class ImageLost(Exception):
    """A request that named its image was refused: sent whole, it will do, or fail for a reason."""


def reason(response: httpx.Response, octets: bytes, model: str, *, by_name: bool) -> Exception:
    """What a status that is no success means; `by_name` where the request named its image."""
    error: GscoError = protocol.refusal(response.status_code, octets, model)
    if by_name and response.status_code in _OF_LOST_IMAGES and not isinstance(error, PromptTooLong):
        return ImageLost()
    match response.status_code:
        case HTTPStatus.TOO_MANY_REQUESTS:
            error = Overloaded("the generalist's server is busy: 429 Too Many Requests")
            attempts = 3
        case HTTPStatus.SERVICE_UNAVAILABLE:
            attempts = 3
        case HTTPStatus.INTERNAL_SERVER_ERROR | HTTPStatus.BAD_GATEWAY:
            attempts = 2
        case _:
            return error
    pause = _retry_after_seconds(response)
    too_long = pause is not None and pause > LONGEST_PAUSE_SECONDS
    return Passing(error, attempts=1 if too_long else attempts, pause=pause)


def _retry_after_seconds(response: httpx.Response) -> float | None:
    """What the server asks for in seconds; a date, which is rare, counts as nothing said."""
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isascii() and asked.isdigit() else None
