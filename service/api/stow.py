"""STOW-RS: images that a PACS posts, diagnosed as they arrive (PS3.18 section 10.5)."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service.api import problems, reception, replies
from service.api.access import caller_of, needs
from service.api.admission import AdmittedRoute, CallerLeft
from service.api.dependencies import KnownOptions, Serving, ServingDep
from service.api.reception import Arrival
from service.errors import ImageTooLarge, InvalidInput, Overloaded
from service.identity.caller import Scope
from service.intake.deidentify import DicomReferences, is_uid
from service.pacs import multipart
from service.pacs.status import SUCCESS, Status, status_of
from service.pacs.stow import Stored, response_document

PREFIX = "/dicom-web"
JSON = "application/dicom+json"
MOST_INSTANCES = 5000
_SENTENCES = 3


async def _acceptable(request: Request) -> None:
    """The answer exists in JSON only."""
    ranges = [one.split(";")[0].strip() for one in request.headers.get("accept", "").split(",")]
    known = {"", "*/*", "application/*", JSON, "application/json"}
    if known.isdisjoint(ranges):
        raise HTTPException(406, f"The answer is {JSON}.")


router = APIRouter(
    prefix=PREFIX,
    tags=["DICOMweb"],
    dependencies=[needs(Scope.SUBMIT), KnownOptions, Depends(_acceptable)],
    route_class=AdmittedRoute,
)
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Every instance was diagnosed", "content": {JSON: {}}},
    202: {"description": "Some instances were not; each is named with its reason"},
    409: {"description": "No instance was diagnosed; each is named with its reason"},
    **problems.responses(400, 406, 413, 415, 422, 500, 503),
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {multipart.RELATED: {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    "/studies", summary="Send images for diagnosis", responses=_RESPONSES, openapi_extra=_BODY
)
@router.post("/studies/{study}", responses=_RESPONSES, openapi_extra=_BODY)
async def store(request: Request, serving: ServingDep, study: str | None = None) -> Response:
    """STOW-RS. The task of each image is chosen by the tasks' rules."""
    return await _store(request, serving, None, study)


@router.post("/{task}/studies", responses=_RESPONSES, openapi_extra=_BODY)
@router.post("/{task}/studies/{study}", responses=_RESPONSES, openapi_extra=_BODY)
async def store_for_task(
    request: Request, serving: ServingDep, task: str, study: str | None = None
) -> Response:
    """STOW-RS for one task, whatever the images say they are."""
    await replies.task_asked_at(serving, reception.ADDRESS, task)
    return await _store(request, serving, task, study)


async def _store(
    request: Request, serving: Serving, task: str | None, study: str | None
) -> Response:
    if study is not None and not is_uid(study):
        raise InvalidInput("the study in the address is not a DICOM unique identifier")
    about = Arrival(b"", task=task, study=study, requested_by=caller_of(request).name)
    with serving.receiving.enter():
        stored = await _all(serving, about, _parts(request, serving))
    if not stored:
        raise HTTPException(400, "The body holds no instance.")
    return _answer(request, stored)


async def _all(serving: Serving, about: Arrival, parts: AsyncIterator[bytes]) -> list[Stored]:
    stored: list[Stored] = []
    async for part in parts:
        if len(stored) == MOST_INSTANCES:
            raise HTTPException(413, f"At most {MOST_INSTANCES} instances are taken at once.")
        stored.append(await _received(serving, about, part))
    return stored


async def _parts(request: Request, serving: Serving) -> AsyncIterator[bytes]:
    """The instances of the body as they come; what is wrong with the body has its HTTP status."""
    content_type = request.headers.get("content-type", "")
    try:
        multipart.boundary_of(content_type)
    except InvalidInput as error:
        raise HTTPException(415, f"{str(error).capitalize()}.") from None
    most = serving.settings.max_upload_bytes
    try:
        async for part in multipart.parts(request.stream(), content_type, most):
            yield part
    except ClientDisconnect:
        raise CallerLeft from None
    except ImageTooLarge:
        raise
    except InvalidInput as error:
        raise HTTPException(400, f"{str(error).capitalize()}.") from None


async def _received(serving: Serving, about: Arrival, data: bytes) -> Stored:
    try:
        received = await reception.receive(serving, replace(about, data=data))
    except Exception as error:  # noqa: BLE001 - one instance must not fail the others
        reception.log_failure(error)
        return Stored(await _identified(serving, data), status_of(error))
    return Stored(received.instance, Status(SUCCESS))


async def _identified(serving: Serving, data: bytes) -> DicomReferences | None:
    try:
        return await serving.parts.intake.identify(data)
    except Overloaded:  # then it is among the other failures
        return None


def _answer(request: Request, stored: list[Stored]) -> Response:
    failed = [one.status for one in stored if one.status.is_failure]
    if len(failed) == len(stored) and all(status.is_temporary for status in failed):
        return problems.respond(request, problems.BUSY, failed[0].comment)
    status = 200 if not failed else 409 if len(failed) == len(stored) else 202
    headers = {"Warning": f'299 gsco "{_sentences(failed)}"'} if failed else None
    return JSONResponse(response_document(stored), status, headers, media_type=JSON)


def _sentences(failed: list[Status]) -> str:
    """The first reasons, as people read them; a header holds ASCII."""
    reasons = list(dict.fromkeys(status.comment for status in failed))[:_SENTENCES]
    return "; ".join(reasons).encode("ascii", "replace").decode().replace('"', "'")
