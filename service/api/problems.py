"""Every error as a problem document (RFC 9457): the only place that knows HTTP codes.

The `type` of a problem is stable and meant for programs; `detail` is for people. Errors of this
project explain themselves; any other error is answered without its text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from retrieval.errors import RetrievalError
from service.api import examples
from service.api.admission import CallerLeft
from service.errors import (
    ComputationLost,
    Conflict,
    Forbidden,
    GeneralistUnavailable,
    GscoError,
    ImageTooLarge,
    InvalidInput,
    IssuerUnavailable,
    JobEnded,
    KeyInUse,
    KeyReused,
    NotFound,
    Overloaded,
    PromptTooLong,
    RateExceeded,
    SourceUnavailable,
    Unauthenticated,
    UnparsableAnswer,
    UnreadableImage,
    UnsupportedImage,
)
from service.persistence.database import UNAVAILABLE
from specialists.errors import (
    PoolOverloaded,
    SpecialistsError,
    SpecialistUnavailable,
    UnknownBackbone,
    UnknownLabel,
    UnknownTask,
)

log = structlog.stdlib.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 20  # of one request are told: whoever sends more has sent something else
URN = "urn:gsco:problem:"


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of problem: what programs, people and HTTP call it."""

    status: int
    slug: str
    title: str

    @property
    def type(self) -> str:
        return URN + self.slug

    @property
    def is_temporary(self) -> bool:
        return self.status == 503


class ProblemResponse(BaseModel):
    """A problem (RFC 9457). `type` is stable; some types have further members."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.PROBLEM]})

    type: str
    title: str
    status: int
    detail: str
    instance: str = Field(description="the request's id, as in X-Request-ID and in the log")


INVALID_REQUEST = Kind(422, "invalid-request", "The request is not as described")
BODY_TOO_LARGE = Kind(413, "body-too-large", "The request body is too large")
NOT_READY = Kind(503, "not-ready", "The service cannot diagnose now")
BUSY = Kind(503, "overloaded", "The service is busy")
NO_DATABASE = Kind(503, "database-unavailable", "The database does not answer")
INTERNAL = Kind(500, "internal-error", "The service failed")
GENERALIST_AWAY = Kind(503, "generalist-unavailable", "The generalist cannot answer now")

_OF_ERROR: Mapping[type[Exception], Kind] = {
    InvalidInput: Kind(422, "invalid-input", "The input cannot be used"),
    UnreadableImage: Kind(422, "unreadable-image", "The file is not a readable image"),
    ImageTooLarge: Kind(413, "image-too-large", "The image is too large"),
    UnsupportedImage: Kind(422, "unsupported-image", "The image cannot be diagnosed"),
    NotFound: Kind(404, "not-found", "There is no such thing"),
    Conflict: Kind(409, "conflict", "The request does not go with what is there"),
    JobEnded: Kind(409, "job-ended", "The job has ended"),
    KeyInUse: Kind(409, "request-in-progress", "The same request is still being answered"),
    KeyReused: Kind(422, "idempotency-key-reused", "The idempotency key is another request's"),
    Unauthenticated: Kind(401, "unauthenticated", "The caller is not known"),
    Forbidden: Kind(403, "forbidden", "The caller may not do this"),
    RateExceeded: Kind(429, "rate-exceeded", "The caller asks more than allowed"),
    IssuerUnavailable: Kind(503, "issuer-unavailable", "Tokens cannot be checked now"),
    UnknownTask: Kind(422, "unknown-task", "There is no such task"),
    UnknownBackbone: Kind(422, "unknown-specialist", "There is no such specialist"),
    UnknownLabel: Kind(422, "unknown-label", "There is no such label"),
    SpecialistUnavailable: Kind(503, "specialist-unavailable", "The specialist cannot answer now"),
    GeneralistUnavailable: GENERALIST_AWAY,
    ComputationLost: GENERALIST_AWAY,
    PromptTooLong: Kind(422, "prompt-too-long", "The generalist's context cannot hold the case"),
    SourceUnavailable: Kind(502, "source-unavailable", "The DICOMweb source does not answer"),
    UnparsableAnswer: Kind(502, "unparsable-answer", "The generalist's answer is unusable"),
    CallerLeft: Kind(499, "caller-left", "The caller left before the answer was there"),
    Overloaded: BUSY,
    PoolOverloaded: BUSY,
}
_NOTHING_STORED = "Nothing was stored; try again later."
ANSWERED = (GscoError, HTTPException, *UNAVAILABLE)
"""What `answer` answers, where the application itself is not reached."""

_OF_STATUS: Mapping[int, Kind] = {
    400: Kind(400, "malformed-request", "The request cannot be read"),
    404: Kind(404, "no-such-address", "There is nothing at this address"),
    405: Kind(405, "method-not-allowed", "The method is not allowed here"),
    406: Kind(406, "not-acceptable", "There is no such representation"),
    408: Kind(408, "too-slow", "The request did not come in time"),
    413: BODY_TOO_LARGE,
    415: Kind(415, "unsupported-media-type", "The body is of another kind than asked for"),
    503: BUSY,
}
_DETAILS: Mapping[int, str] = {
    404: "No resource has this address; /openapi.json lists those there are.",
    405: "The Allow header lists the methods of this address.",
    500: "An unexpected error; the log explains it under the id given as instance.",
}


def install(app: FastAPI) -> None:
    """Answers every error of the application with a problem document."""
    for error in (*ANSWERED, SpecialistsError, RetrievalError, CallerLeft):
        app.add_exception_handler(error, _answer)
    app.add_exception_handler(RequestValidationError, _answer_invalid)


def respond(
    request: Request,
    kind: Kind,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> JSONResponse:
    """One problem document; `members` are further fields of it."""
    body = document(request, kind, detail, **members)
    all_headers = {**_retry(request, kind), **_challenge(request, kind), **(headers or {})}
    return JSONResponse(body, kind.status, headers=all_headers, media_type=MEDIA_TYPE)


def document(request: Request, kind: Kind, detail: str, **members: Any) -> dict[str, Any]:
    """The fields of a problem; the request is marked with it for the log."""
    request.state.problem = kind.slug
    return {
        "type": kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "instance": request.state.request_id,
        **members,
    }


def told_in_stream(request: Request, error: Exception) -> dict[str, Any]:
    """The document of an error in an answer that has begun; logged as others are."""
    kind = kind_of(error)
    if isinstance(error, UNAVAILABLE):
        _log_database(error)
        return document(request, NO_DATABASE, _NOTHING_STORED)
    if kind is INTERNAL:
        log.error("a streamed case failed", exc_info=error)
        return document(request, INTERNAL, _DETAILS[500])
    _log_ours(kind, error)
    return document(request, kind, str(error) or kind.title)


def answer(request: Request, error: Exception) -> JSONResponse:
    """The answer to an error; one of no kind is raised."""
    if isinstance(error, HTTPException):
        return _of_http(request, error)
    if isinstance(error, UNAVAILABLE):
        return _of_database(request, error)
    return _of_ours(request, error)


def no_such_address() -> HTTPException:
    """Raised where no route has the address."""
    return HTTPException(404)


def respond_unexpected(request: Request) -> JSONResponse:
    """What the caller learns of an error that nobody foresaw: nothing but its id."""
    return respond(request, INTERNAL, _DETAILS[500])


def respond_body_too_large(request: Request, limit_bytes: int) -> JSONResponse:
    """The answer to a body over the limit."""
    error = body_too_large(limit_bytes)
    return respond(request, BODY_TOO_LARGE, str(error.detail), headers=error.headers)


def body_too_large(limit_bytes: int) -> HTTPException:
    """Raised while a body is read. What is left of it stays unread, so the connection closes."""
    detail = f"The body is larger than {limit_bytes} bytes."
    return HTTPException(413, detail, headers={"Connection": "close"})


def too_many_bodies() -> HTTPException:
    """Raised where the bodies of all requests together leave no room for more of one."""
    detail = "Too many images are being received: try again later."
    return HTTPException(503, detail, headers={"Connection": "close"})


def too_slow(seconds: float) -> HTTPException:
    """Raised where a body has stopped coming."""
    detail = f"Nothing came for {seconds:g} seconds."
    return HTTPException(408, detail, headers={"Connection": "close"})


def kind_of(error: Exception) -> Kind:
    """The kind of an error by its nearest class; those of no kind are internal."""
    kinds = (_OF_ERROR[parent] for parent in type(error).__mro__ if parent in _OF_ERROR)
    return next(kinds, INTERNAL)


def kind_named(error: str) -> Kind:
    """The kind of an error by the name of its class; those of no kind are internal."""
    return next((kind for one, kind in _OF_ERROR.items() if one.__name__ == error), INTERNAL)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems of a route for the OpenAPI document."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemResponse"}}}
    titles: dict[int, list[str]] = {}
    for kind in (*_OF_STATUS.values(), INVALID_REQUEST, INTERNAL, NOT_READY, *_OF_ERROR.values()):
        titles.setdefault(kind.status, []).append(kind.title)
    return {
        status: {"description": "; ".join(dict.fromkeys(titles[status])), "content": content}
        for status in statuses
    }


async def _answer(request: Request, error: Exception) -> JSONResponse:
    return answer(request, error)


def _of_ours(request: Request, error: Exception) -> JSONResponse:
    kind = kind_of(error)
    if kind is INTERNAL:
        raise error
    _log_ours(kind, error)
    return respond(request, kind, str(error) or kind.title)


def _of_database(request: Request, error: Exception) -> JSONResponse:
    _log_database(error)
    return respond(request, NO_DATABASE, _NOTHING_STORED)


def _log_ours(kind: Kind, error: Exception) -> None:
    """An unparsable answer quotes what was asked and answered: that is for the caller alone."""
    if kind.status >= 500:
        log.warning(kind.title, reason=None if isinstance(error, UnparsableAnswer) else str(error))


def _log_database(error: Exception) -> None:
    """The driver's text may hold what was being stored: it is not shown."""
    log.error("the database does not answer", exc_info=error)


def _of_http(request: Request, error: HTTPException) -> JSONResponse:
    unnamed = Kind(error.status_code, f"http-{error.status_code}", "The request failed")
    kind = _OF_STATUS.get(error.status_code, unnamed)
    detail = _DETAILS.get(error.status_code, str(error.detail))
    return respond(request, kind, detail, headers=error.headers)


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    found = cast(RequestValidationError, error).errors()[:MOST_ERRORS]
    errors = [_explained(problem) for problem in found]
    detail = "; ".join(f"{entry['field']}: {entry['message']}" for entry in errors)
    return respond(request, INVALID_REQUEST, detail, errors=errors)


def _explained(problem: Mapping[str, Any]) -> dict[str, str]:
    """Where and why, never the value that was sent."""
    place, *path = (str(step)[:100] for step in problem["loc"])
    return {"in": place, "field": ".".join(path) or place, "message": _message(problem)}


def _message(problem: Mapping[str, Any]) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return "is not known here"
    return "must be a file" if text.startswith("Expected UploadFile") else text


def _challenge(request: Request, kind: Kind) -> dict[str, str]:
    """What the caller should come with (RFC 6750 section 3)."""
    reason = {401: "invalid_token", 403: "insufficient_scope"}.get(kind.status)
    if reason is not None and "authorization" in request.headers:
        return {"WWW-Authenticate": f'Bearer realm="gsco", error="{reason}"'}
    return {"WWW-Authenticate": 'Bearer realm="gsco"'} if kind.status == 401 else {}


def _retry(request: Request, kind: Kind) -> dict[str, str]:
    if not kind.is_temporary:
        return {}
    return {"Retry-After": str(request.app.state.settings.retry_after_seconds)}
