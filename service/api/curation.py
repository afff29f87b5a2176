"""Reference cases come and go while the service runs; who did it is in the audit."""

import asyncio
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, UploadFile
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.orm import Session

from retrieval.errors import InvalidReferenceCase, RetrievalError
from retrieval.neighbour import ReferenceCase
from retrieval.records import Then
from service.api import problems, replies
from service.api.access import caller_of, needs
from service.api.admission import unless_abandoned
from service.api.cases import LONGEST_ID, ReferenceCaseResponse, case_response
from service.api.dependencies import KnownOptions, Serving, ServingDep
from service.api.referenced import BY_REFERENCE, ImageRoute
from service.api.schemas import FRAME, GROUP
from service.audit.event import Action, Event
from service.errors import Conflict, InvalidInput, NotFound
from service.gathering import queries_of
from service.identity.caller import Scope
from service.intake.result import IntakeResult
from service.persistence import trail
from service.review import refuse_impossible
from specialists.errors import SpecialistUnavailable
from specialists.prediction import Consultation
from specialists.task import MAX_LABEL_LENGTH, MAX_LABELS, Task

KIND = "reference-case"
"""What a reference case is called in the audit."""

LONGEST_REPORT = 20_000

router = APIRouter(
    prefix="/v1/cases",
    tags=["reference cases"],
    dependencies=[KnownOptions],
    route_class=ImageRoute,
)

LabelName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_LABEL_LENGTH)]


class ReferenceCaseRequest(BaseModel):
    """One image, and what is known to hold of it."""

    model_config = ConfigDict(extra="forbid")

    file: UploadFile = Field(description="DICOM, PNG, JPEG, TIFF, WebP or BMP")
    task: str = Field(min_length=1, max_length=64, examples=["cxr-pneumonia"])
    labels: list[LabelName] = Field([], max_length=MAX_LABELS)
    report: str = Field(
        "", max_length=LONGEST_REPORT, description="nothing that identifies a patient"
    )
    source: str = Field("", max_length=500, description="where it comes from, such as a hospital")
    licence: str = Field("not stated", max_length=200)
    group: str | None = GROUP
    frame: int | None = FRAME


@router.post(
    "",
    status_code=201,
    summary="Add a reference case",
    dependencies=[needs(Scope.CURATE), Depends(replies.multipart_only)],
    openapi_extra=dict(BY_REFERENCE),
    responses=problems.responses(400, 409, 413, 415, 422, 500, 502, 503),
)
async def create_case(
    request: Request,
    form: Annotated[ReferenceCaseRequest, Form(media_type="multipart/form-data")],
    serving: ServingDep,
) -> ReferenceCaseResponse:
    """Embedded by every specialist that answers, stored, and found by the next search.

    An image that the task knows already keeps its id and takes on what is said of it now. A small
    picture is kept, the image is not.
    """
    await replies.refuse_repeated_fields(request, except_for="labels")
    task = await _labelled(serving, form)
    file = await form.file.read()
    with serving.admission.enter():
        work = _consulted(serving, task, file, form.frame)
        decoded, consultation = await unless_abandoned(request, work)
        case, picture = await asyncio.to_thread(_drawn_up, task, form, decoded)
        # From here on the caller may leave: what is begun is ended.
        adding = _put(serving, case, consultation, picture, _recorded(request, case))
        stored = await asyncio.shield(adding)
    return case_response(replace(case, id=stored))


@router.delete(
    "/{id:path}",
    status_code=204,
    summary="Remove a reference case",
    dependencies=[needs(Scope.CURATE)],
    responses=problems.responses(404, 409, 422, 500, 503),
)
async def delete_case(id: str, request: Request, serving: ServingDep) -> None:
    """With its vectors and its picture: from then on no search finds it."""

    def then(session: Session, ids: tuple[str, ...]) -> None:
        for one in ids:
            trail.append(session, _event(request, Action.ERASED, one))

    is_an_id = len(id) <= LONGEST_ID and id.isprintable()
    if not is_an_id or not await asyncio.shield(_removed(serving, id, then)):
        raise NotFound(f"no reference case {id[:LONGEST_ID]!r}")


async def _labelled(serving: Serving, form: ReferenceCaseRequest) -> Task:
    """The task, after its labels were compared with those of the case."""
    task = await serving.tasks.find(form.task)
    if not task.is_labelled:
        raise InvalidInput(f"task {task.name!r} has no labels, and so no reference cases")
    if unknown := [label for label in form.labels if label not in task.label_names]:
        raise InvalidInput(f"no label {unknown[0]!r}; known: {', '.join(task.label_names)}")
    refuse_impossible(task, tuple(form.labels))
    return task


async def _consulted(
    serving: Serving, task: Task, file: bytes, frame: int | None
) -> tuple[IntakeResult, Consultation]:
    decoded = await serving.parts.intake.decode(file, frame=frame)
    consultation = await serving.parts.specialists.consult(decoded.image.pixels, task)
    if not consultation.embeddings:
        raise SpecialistUnavailable(f"no specialist of task {task.name!r} answers: none embeds it")
    return decoded, consultation


def _drawn_up(
    task: Task, form: ReferenceCaseRequest, decoded: IntakeResult
) -> tuple[ReferenceCase, bytes]:
    """The case, and the small picture that is kept of it."""
    from service import reference_cases  # torch is slow to import

    pixels, origin = decoded.image.pixels, reference_cases.Origin(form.source, form.licence)
    labels = tuple(name for name in task.label_names if name in form.labels)
    group = form.group or decoded.group
    case = reference_cases.reference_case(task, pixels, labels, origin, group)
    return replace(case, report=form.report.strip()), reference_cases.thumbnail(pixels)


async def _put(
    serving: Serving, case: ReferenceCase, consultation: Consultation, picture: bytes, then: Then
) -> str:
    try:
        return await serving.parts.retriever.put(case, queries_of(consultation), picture, then)
    except InvalidReferenceCase as error:
        raise InvalidInput(str(error)) from error
    except RetrievalError as error:
        raise Conflict(f"the case is stored, but not in every index: {error}") from error


async def _removed(serving: Serving, id: str, then: Then) -> bool:
    try:
        return await serving.parts.retriever.remove(id, then)
    except RetrievalError as error:
        raise Conflict(f"the case is gone, but not from every index: {error}") from error


def _recorded(request: Request, case: ReferenceCase) -> Then:
    """That the case was stored, in the transaction that stores it."""

    def then(session: Session, ids: tuple[str, ...]) -> None:
        for one in ids:
            details = {"task": case.task, "labels": list(case.labels), "image": case.image_sha256}
            trail.append(session, _event(request, Action.CREATED, one, **details))

    return then


def _event(request: Request, action: Action, id: str, **details: object) -> Event:
    who, request_id = caller_of(request).name, request.state.request_id
    return Event(action, who, KIND, id, request_id=request_id, details=details)
