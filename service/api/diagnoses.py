"""Diagnoses: made from one image, and read again by their id."""

import re
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import StreamingResponse

from service.api import problems, replies
from service.api.admission import AdmittedRoute
from service.api.dependencies import KnownOptions, ServingDep
from service.api.replies import STREAMED, Asking
from service.api.schemas import DiagnosisRequest, DiagnosisResponse, diagnosis_response
from service.domain import Diagnosis
from service.errors import NotFound
from service.progress import Tell

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


@router.get("/{id}", summary="Read a diagnosis", responses=problems.responses(404, 422, 500))
async def get_diagnosis(id: str, serving: ServingDep) -> DiagnosisResponse:
    """The diagnosis as it was made."""
    if not ID.fullmatch(id):
        raise NotFound(f"no diagnosis {id[:64]!r}")
    diagnosis = await serving.parts.store.get(Diagnosis, id)
    return diagnosis_response(diagnosis, await replies.known(serving, diagnosis.task))
