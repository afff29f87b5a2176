"""Outlines: where the segmentation specialists of a task see its segment; nothing is stored."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from service.api import examples, problems, replies
from service.api.access import needs
from service.api.admission import unless_abandoned
from service.api.dependencies import KnownOptions, Serving, ServingDep
from service.api.referenced import BY_REFERENCE, ImageRoute
from service.api.schemas import FRAME
from service.api.shapes import SegmentationResponse, segmentation_shape
from service.domain import INTENDED_USE
from service.errors import InvalidInput
from service.identity.caller import Scope
from specialists.prediction import Consultation
from specialists.task import Task

router = APIRouter(
    prefix="/v1/segmentations",
    tags=["explanations"],
    dependencies=[KnownOptions],
    route_class=ImageRoute,
)


class SegmentationRequest(BaseModel):
    """One image, and the task whose segment is to be outlined."""

    model_config = ConfigDict(extra="forbid")

    file: UploadFile = Field(description="DICOM, PNG, JPEG, TIFF, WebP or BMP")
    task: str = Field(min_length=1, max_length=64, examples=["busi"])
    frame: int | None = FRAME


class OutlineResponse(SegmentationResponse):
    """What one specialist outlines, with its map: rows from top to bottom, each left to right."""

    map: list[list[float]] = Field(
        description="the probability of each place to belong to the segment, which is what is over "
        "0.5; the cells divide the image evenly"
    )


class SegmentationsResponse(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.SEGMENTATIONS]})

    task: str
    segmentations: list[OutlineResponse]
    intended_use: str


@router.post(
    "",
    summary="Outline a task's segment",
    dependencies=[needs(Scope.SUBMIT), Depends(replies.multipart_only)],
    openapi_extra=dict(BY_REFERENCE),
    responses=problems.responses(400, 413, 415, 422, 500, 503),
)
async def create_segmentations(
    request: Request,
    form: Annotated[SegmentationRequest, Form(media_type="multipart/form-data")],
    serving: ServingDep,
) -> SegmentationsResponse:
    """By each segmentation specialist that answers."""
    await replies.refuse_repeated_fields(request)
    task = await serving.tasks.find(form.task)
    if task.segment is None:
        raise InvalidInput(f"task {task.name!r} has no segment that could be outlined")
    file = await form.file.read()
    with serving.admission.enter():
        work = _consulted(serving, task, file, form.frame)
        consultation = await unless_abandoned(request, work)
    return SegmentationsResponse(
        task=task.name, segmentations=_outlines(consultation), intended_use=INTENDED_USE
    )


async def _consulted(serving: Serving, task: Task, file: bytes, frame: int | None) -> Consultation:
    decoded = await serving.parts.intake.decode(file, frame=frame)
    return await serving.parts.specialists.consult(decoded.image.pixels, task)


def _outlines(consultation: Consultation) -> list[OutlineResponse]:
    return [
        OutlineResponse(
            **segmentation_shape(one).model_dump(),
            map=[[round(value, 3) for value in row] for row in one.map.tolist()],
        )
        for one in consultation.segmentations
        if one.map is not None
    ]
