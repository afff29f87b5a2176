"""Diagnoses: made from one image, and read again by their id."""

import re
import time
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Form, Request, Response
from fastapi.exceptions import RequestValidationError

from service.api import problems
from service.api.admission import unless_abandoned
from service.api.dependencies import KnownOptions, Serving, ServingDep
from service.api.schemas import DiagnosisRequest, DiagnosisResponse, diagnosis_response
from service.domain import Case, Diagnosis
from service.errors import NotFound
from specialists.errors import UnknownTask
from specialists.task import Task

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

router = APIRouter(prefix="/v1/diagnoses", tags=["diagnoses"], dependencies=[KnownOptions])


@router.post(
    "",
    status_code=201,
    summary="Diagnose an image",
    responses={
        201: {"headers": {"Location": {"schema": {"type": "string"}}}},
        **problems.responses(400, 413, 422, 500, 502, 503),
    },
)
async def create_diagnosis(
    request: Request,
    response: Response,
    form: Annotated[DiagnosisRequest, Form(media_type="multipart/form-data")],
    serving: ServingDep,
) -> DiagnosisResponse:
    """The generalist's answer with the evidence it weighed, stored before this replies.

    `degraded` names specialists or reference cases that were missing. Without the generalist
    there is no diagnosis: 503, and nothing is stored.
    """
    await _refuse_repeated_fields(request)
    task = await serving.tasks.find(form.task)
    with serving.admission.enter():
        diagnosis = await unless_abandoned(request, _diagnose(serving, task, form))
    response.headers["Location"] = request.url_for("get_diagnosis", id=diagnosis.id).path
    return diagnosis_response(diagnosis, task)


@router.get("/{id}", summary="Read a diagnosis", responses=problems.responses(404, 422, 500))
async def get_diagnosis(id: str, serving: ServingDep) -> DiagnosisResponse:
    """The diagnosis as it was made."""
    if not _ID.fullmatch(id):
        raise NotFound(f"no diagnosis {id[:64]!r}")
    diagnosis = await serving.parts.store.get(id)
    return diagnosis_response(diagnosis, await _task_of(serving, diagnosis))


async def _diagnose(serving: Serving, task: Task, form: DiagnosisRequest) -> Diagnosis:
    started = time.perf_counter()
    decoded = await serving.parts.intake.decode(await form.file.read(), frame=form.frame)
    intake_seconds = time.perf_counter() - started
    case = Case(str(uuid4()), task, decoded.image, form.group or decoded.group)
    diagnosis = await serving.parts.pipeline.diagnose(case)
    serving.metrics.observe_diagnosis(
        task.name,
        needs_review=diagnosis.needs_review,
        durations_seconds={"intake": intake_seconds, **diagnosis.durations_seconds},
        missing=tuple(missing.part for missing in diagnosis.degraded),
    )
    return diagnosis


async def _task_of(serving: Serving, diagnosis: Diagnosis) -> Task | None:
    try:
        return await serving.tasks.find(diagnosis.task)
    except UnknownTask:
        return None


async def _refuse_repeated_fields(request: Request) -> None:
    """Two files or two tasks: one of them would be silently ignored."""
    names = [name for name, _ in (await request.form()).multi_items()]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise RequestValidationError(
            [
                {"type": "repeated", "loc": ("body", name), "msg": "was sent more than once"}
                for name in repeated
            ]
        )
