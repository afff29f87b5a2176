"""Diagnoses: made from one image, and read again by their id."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import Scope as AsgiScope

from service.api import idempotency, negotiation, problems, reception, replies, several
from service.api.access import caller_of, needs
from service.api.admission import AdmittedRoute, prefers_async
from service.api.asking import REPLIES, Asking, Preferences, reply
from service.api.dependencies import KnownOptions, Serving, ServingDep
from service.api.reception import Arrival
from service.api.referenced import is_json, source_of
from service.api.schemas import (
    DiagnosesResponse,
    DiagnosisReference,
    DiagnosisRequest,
    DiagnosisResponse,
    diagnosis_response,
)
from service.api.schemas_jobs import JobRequest
from service.api.several import Wanted
from service.domain import Diagnosis
from service.errors import InvalidInput, NotFound
from service.identity.caller import Scope
from service.pacs.client import Reference
from specialists.task import Task

JSON, DICOM, FHIR = "application/json", "application/dicom", "application/fhir+json"
_EITHER = f"A diagnosis is either {JSON}, {DICOM} or {FHIR}."

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

router = APIRouter(
    prefix="/v1/diagnoses",
    tags=["diagnoses"],
    dependencies=[KnownOptions],
    route_class=AdmittedRoute,
)


class _JsonRoute(AdmittedRoute):
    """The same address for bodies in JSON; others are left to the route after it."""

    def matches(self, scope: AsgiScope) -> tuple[Match, AsgiScope]:
        if "headers" not in scope or not is_json(Headers(scope=scope)):
            return Match.NONE, {}
        return super().matches(scope)


async def diagnose_referenced(
    request: Request, response: Response, reference: DiagnosisReference, serving: ServingDep
) -> DiagnosisResponse | DiagnosesResponse | Response:
    """Images that a DICOMweb source of the settings holds."""
    client = source_of(serving, reference.source)
    sent = Sent(request, response, serving, reference)
    asked = reference.task, reference.frame, reference.group, client.name
    about = Arrival(b"", *asked, requested_by=caller_of(request).name)
    _refuse_both(reference.frame, reference.frames)
    study, instance = reference.study_instance_uid, reference.sop_instance_uid
    found = await client.instances(Reference(study, reference.series_instance_uid, instance))
    if instance is None:
        if reference.frame or reference.frames:
            raise InvalidInput("frames are those of one instance: name its sop_instance_uid")
        wanted = several.instances_of(client, study, found, about)
        return await _several(sent, wanted)
    with serving.receiving.enter():  # what is fetched is held in memory
        arrival = replace(about, data=await client.read(study, found[0]))
    return await _one_or_frames(sent, arrival, reference.frames)


router.routes.append(
    _JsonRoute(
        router.prefix,
        diagnose_referenced,
        methods=["POST"],
        status_code=201,
        response_model=DiagnosisResponse | DiagnosesResponse,
        include_in_schema=False,  # described with the next one: an address has one description
        dependencies=[needs(Scope.SUBMIT), KnownOptions],
    )
)


@router.post(
    "",
    status_code=201,
    summary="Diagnose an image",
    response_model=DiagnosisResponse | DiagnosesResponse,
    dependencies=[needs(Scope.SUBMIT), Depends(replies.multipart_only), Preferences],
    responses={**REPLIES, **problems.responses(404)},
    openapi_extra={
        "requestBody": {
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/DiagnosisReference"}}}
        }
    },
)
async def create_diagnosis(
    request: Request,
    response: Response,
    form: Annotated[DiagnosisRequest, Form(media_type="multipart/form-data")],
    serving: ServingDep,
) -> DiagnosisResponse | DiagnosesResponse | Response:
    """The generalist's answer with the evidence it weighed, stored before this replies.

    The image is uploaded, or named (as JSON) on a DICOMweb source of the settings. Without a task,
    the tasks' rules choose one for a DICOM file. `degraded` names specialists or reference cases
    that were missing. Without the generalist there is no diagnosis: 503, and nothing is stored; a
    job waits for it.
    """
    await replies.refuse_repeated_fields(request)
    _refuse_both(form.frame, form.frames)
    sent = Sent(request, response, serving, form, await form.file.read())
    asked = form.task, form.frame, form.group
    arrival = Arrival(sent.file, *asked, requested_by=caller_of(request).name)
    return await _one_or_frames(sent, arrival, form.frames)


@dataclass(frozen=True, slots=True)
class Sent:
    """A request for diagnoses: the image that it holds, if any, and what it says of it."""

    request: Request
    response: Response
    serving: Serving
    form: JobRequest
    file: bytes = b""


def _refuse_both(frame: int | None, frames: str | None) -> None:
    if frame is not None and frames is not None:
        raise InvalidInput("ask for one frame or for several frames, not for both")


async def _one_or_frames(
    sent: Sent, arrival: Arrival, frames: str | None
) -> DiagnosisResponse | DiagnosesResponse | Response:
    if frames is None:
        return await _one(sent, arrival)
    wanted = several.frames_of(sent.serving, arrival, frames)
    return await _several(sent, wanted)


async def _one(sent: Sent, arrival: Arrival) -> DiagnosisResponse | Response:
    """The reply to one image; what is wrong with the image is said before a stream begins."""
    taken = await reception.take_in(sent.serving, arrival)
    return await reply(
        Asking(
            request=sent.request,
            response=sent.response,
            serving=sent.serving,
            kind="diagnosis",
            form=sent.form,
            file=sent.file,
            evidence_task=taken.task,
            intake_seconds=taken.seconds,
            case=lambda id: reception.case_of(id, taken),
            shape=lambda diagnosis: diagnosis_response(diagnosis, taken.task),
            from_pacs=taken.decoded if taken.is_from_pacs else None,
        )
    )


async def _several(sent: Sent, wanted: AsyncIterator[Wanted]) -> DiagnosesResponse:
    """Several images are answered now, and without a key: one stands for one result."""
    is_job = prefers_async(sent.request) or sent.form.webhook or sent.form.priority
    if is_job or idempotency.HEADER in sent.request.headers:
        raise InvalidInput("a job or an Idempotency-Key is for one image: name one frame")
    return await several.diagnose_all(sent.request, sent.serving, wanted)


@router.get(
    "/{id}",
    summary="Read a diagnosis",
    response_model=DiagnosisResponse,
    dependencies=[needs(Scope.READ)],
    responses={
        200: {
            "description": "The diagnosis as it was made, represented as `Accept` asks",
            "content": {
                DICOM: {"schema": {"type": "string", "format": "binary"}},
                FHIR: {"schema": {"type": "object"}},
            },
        },
        **problems.responses(404, 406, 422, 500, 503),
    },
)
async def get_diagnosis(id: str, request: Request, serving: ServingDep) -> Response:
    """`application/json` (default), a DICOM structured report or a FHIR R4B bundle.

    The latter two are about nobody: the patient's data are not kept, so the report is in a study
    of its own. What names the patient is written beside the image, when it is diagnosed.
    """
    kind = negotiation.best(request.headers.get("accept", ""), (JSON, DICOM, FHIR), _EITHER)
    if not ID.fullmatch(id):
        raise NotFound(f"no diagnosis {id[:64]!r}")
    diagnosis = await replies.read(request, serving, Diagnosis, id)
    task = await replies.known(serving, diagnosis.task)
    body = await asyncio.to_thread(_represented, diagnosis, task, kind)
    return Response(body, media_type=kind, headers={"Vary": "Accept"})


async def read_diagnosis(request: Request, serving: Serving, id: str) -> DiagnosisResponse:
    """A stored diagnosis on the wire; raises NotFound."""
    diagnosis = await replies.read(request, serving, Diagnosis, id)
    return diagnosis_response(diagnosis, await replies.known(serving, diagnosis.task))


def _represented(diagnosis: Diagnosis, task: Task | None, kind: str) -> bytes:
    from service.pacs import fhir, sr  # slow to import, and few ask for them
    from service.pacs.source import anonymous

    if kind == JSON:
        return diagnosis_response(diagnosis, task).model_dump_json().encode()
    write = sr.structured_report if kind == DICOM else fhir.bundle
    return write(diagnosis, anonymous(diagnosis.id), task)
