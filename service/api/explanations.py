"""Explanations: where one specialist looked, as a picture or as numbers; nothing is stored."""

import asyncio
import io
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response, UploadFile
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo
from pydantic import BaseModel, ConfigDict, Field

from service.api import examples, negotiation, problems, replies
from service.api.access import needs
from service.api.admission import unless_abandoned
from service.api.dependencies import KnownOptions, Serving, ServingDep
from service.api.referenced import BY_REFERENCE, ImageRoute
from service.api.schemas import FRAME
from service.api.shapes import Sha256
from service.audit.event import Action
from service.domain import INTENDED_USE
from service.errors import InvalidInput
from service.identity.caller import Scope
from service.intake.result import IntakeResult
from specialists.overlay import enlarge, overlay, within
from specialists.prediction import Explanation, Pixels
from specialists.task import MAX_LABEL_LENGTH, Task

PNG, JSON = "image/png", "application/json"
LONGEST_SIDE = 2048
"""Pixels of an overlay; larger images are made smaller, since the map is coarser by far."""

_EITHER = f"An explanation is either {PNG} or {JSON}."

router = APIRouter(
    prefix="/v1/explanations",
    tags=["explanations"],
    dependencies=[KnownOptions],
    route_class=ImageRoute,
)


class ExplanationRequest(BaseModel):
    """One image, and the specialist that is asked where it looked."""

    model_config = ConfigDict(extra="forbid")

    file: UploadFile = Field(description="DICOM, PNG, JPEG, TIFF, WebP or BMP")
    task: str = Field(min_length=1, max_length=64, examples=["cxr-pneumonia"])
    specialist: str = Field(min_length=1, max_length=64, examples=["resnet18"])
    label: str | None = Field(
        None, max_length=MAX_LABEL_LENGTH, description="by default the specialist's most probable"
    )
    frame: int | None = FRAME


class ExplanationResponse(BaseModel):
    """A heat map as numbers: rows from top to bottom, each from left to right."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.EXPLANATION]})

    task: str
    specialist: str
    weights_sha256: Sha256
    label: str
    probability: float
    layer: str = Field(description="of the specialist, whose output the map is made of")
    image_height: int
    image_width: int
    heat: list[list[float]] = Field(
        description="0 to 1; the cells divide the image evenly. All 0 where nothing in the image "
        "speaks for the label"
    )
    notes: list[str] = Field(description="what intake had to choose, such as the frame")
    intended_use: str


@router.post(
    "",
    summary="Show where a specialist looked",
    response_model=ExplanationResponse,
    dependencies=[needs(Scope.SUBMIT), Depends(replies.multipart_only)],
    openapi_extra=dict(BY_REFERENCE),
    responses={
        200: {
            "description": "The image with the heat over it, or by `Accept` the map as numbers",
            "content": {PNG: {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems.responses(400, 406, 413, 415, 422, 500, 503),
    },
)
async def create_explanation(
    request: Request,
    form: Annotated[ExplanationRequest, Form(media_type="multipart/form-data")],
    serving: ServingDep,
) -> Response:
    """Grad-CAM of one label by one specialist: `Accept: image/png` (default) or `application/json`.

    It shows which places the label's score depends on, not that the label is right.
    """
    kind = negotiation.best(request.headers.get("accept", ""), (PNG, JSON), _EITHER)
    await replies.refuse_repeated_fields(request)
    task = await _labelled(serving, form.task)
    file = await form.file.read()

    async def work() -> tuple[IntakeResult, Explanation]:
        decoded = await serving.parts.intake.decode(file, frame=form.frame)
        pixels, panel = decoded.image.pixels, serving.parts.specialists
        return decoded, await panel.explain(pixels, task, form.specialist, form.label or None)

    with serving.admission.enter():
        decoded, made = await unless_abandoned(request, work())
        weights = {made.specialist: made.weights_sha256}
        await replies.record(
            request, serving, Action.EXPLAINED, "task", task.name, specialists=weights
        )
        headers = {"Vary": "Accept"}
        if kind == JSON:
            body = _document(task, decoded, made).model_dump_json()
            return Response(body, media_type=JSON, headers=headers)
        picture = await asyncio.to_thread(_picture, task, decoded.image.pixels, made)
    return Response(picture, media_type=PNG, headers=headers)


async def _labelled(serving: Serving, name: str) -> Task:
    task = await serving.tasks.find(name)
    if not task.is_labelled:
        raise InvalidInput(
            f"task {task.name!r} is a {task.kind} task without specialists of its own: "
            f"ask for {task.consults!r}"
        )
    return task


def _document(task: Task, decoded: IntakeResult, made: Explanation) -> ExplanationResponse:
    height, width = decoded.image.pixels.shape[:2]
    return ExplanationResponse(
        **_told(task, made),
        probability=made.probability,
        layer=made.layer,
        image_height=height,
        image_width=width,
        heat=[[round(value, 4) for value in row] for row in made.grid.tolist()],
        notes=list(decoded.image.notes),
    )


def _picture(task: Task, pixels: Pixels, made: Explanation) -> bytes:
    """A PNG that says in its text chunks what it shows."""
    shown, info, file = within(pixels, LONGEST_SIDE), PngInfo(), io.BytesIO()
    for name, value in _told(task, made).items():
        info.add_itxt(name, value)
    covered = overlay(shown, enlarge(made.grid, *shown.shape[:2]))
    Pillow.fromarray(covered).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def _told(task: Task, made: Explanation) -> dict[str, Any]:
    return {
        "task": task.name,
        "specialist": made.specialist,
        "weights_sha256": made.weights_sha256,
        "label": made.label,
        "intended_use": INTENDED_USE,
    }
