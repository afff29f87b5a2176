"""Frames to look at: decoded pixels with all their grey levels, and nothing else of the file."""

import asyncio
import io
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Form, Request, Response, UploadFile
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo
from pydantic import BaseModel, ConfigDict, Field

from service.api import problems, replies
from service.api.access import needs
from service.api.admission import unless_abandoned
from service.api.dependencies import KnownOptions, ServingDep
from service.api.referenced import BY_REFERENCE, ImageRoute
from service.api.schemas import FRAME
from service.identity.caller import Scope
from service.intake.viewable import Frame

PNG = "image/png"
DESCRIPTION = "gsco-frame"
"""The keyword of the PNG's text chunk (iTXt) that holds the FrameDescription."""
LONGEST_SIDE = 4096
"""Pixels; of larger images every second, third, … is shown."""
COMPRESSION = 1  # a viewer is waiting, mostly on the same machine

router = APIRouter(
    prefix="/v1/frames", tags=["frames"], dependencies=[KnownOptions], route_class=ImageRoute
)


class FrameRequest(BaseModel):
    """One image; the file's name is not kept."""

    model_config = ConfigDict(extra="forbid")

    file: UploadFile = Field(description="DICOM, PNG, JPEG, TIFF, WebP or BMP")
    frame: int | None = FRAME


class WindowDescription(BaseModel):
    centre: float
    width: float
    function: str = Field(description="LINEAR, LINEAR_EXACT or SIGMOID, as in DICOM PS3.3 C.11.2.1")


class FrameDescription(BaseModel):
    """How a viewer turns the pixels of a frame into a picture.

    A grey pixel stands for `lowest + step * pixel`; the pixel 65535 is padding.
    """

    windows: list[WindowDescription] = Field(description="the first shows what the models see")
    lowest: float
    step: float
    unit: str
    is_inverse: bool = Field(description="MONOCHROME1: low values are bright")
    height_to_width: float = Field(description="of a pixel: the picture is stretched by it")
    modality: str | None
    number: int
    count: int
    rows: int = Field(description="of the frame; the PNG has fewer where a side is over 4096")
    columns: int
    notes: list[str]
    cautions: list[str] = Field(description="why a person must look")


@router.post(
    "",
    summary="Decode a frame to look at",
    response_class=Response,
    dependencies=[needs(Scope.SUBMIT), Depends(replies.multipart_only)],
    openapi_extra=dict(BY_REFERENCE),
    responses={
        200: {
            "description": "A PNG of 16-bit grey or 8-bit colour. Its text chunk `gsco-frame` is "
            "JSON: windows, what a pixel stands for, frame number and count. Nothing is stored",
            "content": {PNG: {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems.responses(400, 413, 415, 422, 500, 503),
    },
)
async def create_frame(
    request: Request,
    form: Annotated[FrameRequest, Form(media_type="multipart/form-data")],
    serving: ServingDep,
) -> Response:
    """The pixels of one frame before any window, without a word of what the file says of a patient.

    What is burned into the pixels stays: `cautions` warn of it.
    """
    await replies.refuse_repeated_fields(request)
    file = await form.file.read()
    with serving.admission.enter():
        viewing = serving.parts.intake.view(file, frame=form.frame)
        frame = await unless_abandoned(request, viewing)
        picture = await asyncio.to_thread(_png, frame)
    return Response(picture, media_type=PNG)


def _png(frame: Frame) -> bytes:
    info, file = PngInfo(), io.BytesIO()
    info.add_itxt(DESCRIPTION, _described(frame).model_dump_json())
    image = Pillow.fromarray(_within(frame.pixels, LONGEST_SIDE))
    image.save(file, "PNG", pnginfo=info, compress_level=COMPRESSION)
    return file.getvalue()


def _described(frame: Frame) -> FrameDescription:
    return FrameDescription(
        windows=[
            WindowDescription(centre=one.centre, width=one.width, function=one.function)
            for one in frame.windows
        ],
        lowest=frame.lowest,
        step=frame.step,
        unit=frame.unit,
        is_inverse=frame.is_inverse,
        height_to_width=frame.height_to_width,
        modality=frame.modality,
        number=frame.number,
        count=frame.count,
        rows=frame.pixels.shape[0],
        columns=frame.pixels.shape[1],
        notes=list(frame.notes),
        cautions=list(frame.cautions),
    )


def _within(pixels: NDArray[Any], longest: int) -> NDArray[Any]:
    """A mean would mix padding with values: pixels are left out instead."""
    step = -(-max(pixels.shape[:2]) // longest)
    return np.ascontiguousarray(pixels[::step, ::step])
