"""Diagnoses: made from one image, and read again by their id."""

import asyncio
import re
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import StreamingResponse

from service.api import negotiation, problems, replies
from service.api.admission import AdmittedRoute
from service.api.dependencies import KnownOptions, ServingDep
from service.api.replies import STREAMED, Asking
from service.api.schemas import DiagnosisRequest, DiagnosisResponse, diagnosis_response
from service.domain import Diagnosis
from service.errors import NotFound
from service.progress import Tell
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


@router.post(
    "",
    status_code=201,
    summary="Diagnose an image",
    response_model=DiagnosisResponse,
    dependencies=[Depends(replies.multipart_only)],
    responses={**STREAMED, **problems.responses(400, 413, 415, 422, 500, 502, 503)},
)
async def create_diagnosis(
    request: Request,
    response: Response,
    form: Annotated[DiagnosisRequest, Form(media_type="multipart/form-data")],
    serving: ServingDep,
) -> DiagnosisResponse | StreamingResponse:
    """The generalist's answer with the evidence it weighed, stored before this replies.

    `degraded` names specialists or reference cases that were missing. Without the generalist
    there is no diagnosis: 503, and nothing is stored.
    """
    await replies.refuse_repeated_fields(request)
    task = await replies.task_asked_at(serving, router.prefix, form.task)
    file, id = await form.file.read(), str(uuid4())

    async def work(tell: Tell) -> Diagnosis:
        return await replies.observed(
            serving,
            file,
            form.frame,
            lambda decoded: serving.parts.pipeline.diagnose(
                replies.case_of(id, task, decoded, form.group), tell
            ),
        )

    return await replies.reply(
        Asking(request, serving, task),
        response,
        work,
        lambda diagnosis: diagnosis_response(diagnosis, task),
        "get_diagnosis",
    )


@router.get(
    "/{id}",
    summary="Read a diagnosis",
    response_model=DiagnosisResponse,
    responses={
        200: {
            "description": "The diagnosis as it was made, represented as `Accept` asks",
            "content": {
                DICOM: {"schema": {"type": "string", "format": "binary"}},
                FHIR: {"schema": {"type": "object"}},
            },
        },
        **problems.responses(404, 406, 422, 500),
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
    diagnosis = await serving.parts.store.get(Diagnosis, id)
    task = await replies.known(serving, diagnosis.task)
    body = await asyncio.to_thread(_represented, diagnosis, task, kind)
    return Response(body, media_type=kind, headers={"Vary": "Accept"})


def _represented(diagnosis: Diagnosis, task: Task | None, kind: str) -> bytes:
    from service.pacs import fhir, sr  # slow to import, and few ask for them
    from service.pacs.source import anonymous

    if kind == JSON:
        return diagnosis_response(diagnosis, task).model_dump_json().encode()
    write = sr.structured_report if kind == DICOM else fhir.bundle
    return write(diagnosis, anonymous(diagnosis.id), task)
