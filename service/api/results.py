"""The standard objects of a diagnosis, written beside the image it was made of."""

import asyncio
import io
from hashlib import sha256
from typing import Annotated
from zipfile import ZipFile

from fastapi import APIRouter, Depends, Form, Request, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from service.api import problems, replies
from service.api.access import needs
from service.api.admission import unless_abandoned
from service.api.dependencies import KnownOptions, Parts, Serving, ServingDep
from service.api.diagnoses import ID
from service.api.referenced import BY_REFERENCE, ImageRoute
from service.api.schemas import FRAME
from service.domain import Diagnosis
from service.errors import InvalidInput, NotFound
from service.identity.caller import Scope
from service.intake.limits import Limits
from service.intake.result import IntakeResult
from specialists.errors import SpecialistUnavailable
from specialists.prediction import Explanation
from specialists.task import Task

ZIP = "application/zip"

router = APIRouter(
    prefix="/v1/diagnoses",
    tags=["diagnoses"],
    dependencies=[KnownOptions],
    route_class=ImageRoute,
)


class ResultsRequest(BaseModel):
    """The very file that was diagnosed, since it is not kept."""

    model_config = ConfigDict(extra="forbid")

    file: UploadFile = Field(description="with the sha256 that the diagnosis names")
    frame: int | None = FRAME


@router.post(
    "/{id}/results",
    summary="Write a diagnosis as DICOM, FHIR and HL7 v2",
    response_class=Response,
    dependencies=[needs(Scope.SUBMIT), Depends(replies.multipart_only)],
    openapi_extra=dict(BY_REFERENCE),
    responses={
        200: {
            "description": "A zip file: structured report, captures of heat maps, key objects, "
            "FHIR bundle, HL7 v2 message",
            "content": {ZIP: {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems.responses(400, 404, 413, 415, 422, 500, 503),
    },
)
async def create_results(
    id: str,
    request: Request,
    form: Annotated[ResultsRequest, Form(media_type="multipart/form-data")],
    serving: ServingDep,
) -> Response:
    """In the patient's study, as the file names it; of a file that is not DICOM, about nobody.

    Nothing is kept: what names the patient goes back to who sent it.
    """
    await replies.refuse_repeated_fields(request)
    if not ID.fullmatch(id):
        raise NotFound(f"no diagnosis {id[:64]!r}")
    diagnosis = await replies.read(request, serving, Diagnosis, id)
    file = await form.file.read()
    if sha256(file).hexdigest() != diagnosis.provenance.input_sha256:
        raise InvalidInput("this is not the file that the diagnosis was made of")
    with serving.admission.enter():
        work = _written(serving, diagnosis, file, form.frame)
        packed = await unless_abandoned(request, work)
    return Response(packed, media_type=ZIP)


async def _written(serving: Serving, diagnosis: Diagnosis, file: bytes, frame: int | None) -> bytes:
    task = await replies.known(serving, diagnosis.task)
    decoded = await serving.parts.intake.decode(file, frame=frame)
    explanations = await _explanations(serving.parts, diagnosis, task, decoded)
    return await asyncio.to_thread(_packed, diagnosis, task, file, decoded, explanations)


async def _explanations(
    parts: Parts, diagnosis: Diagnosis, task: Task | None, decoded: IntakeResult
) -> list[Explanation]:
    """Those that can be had: results are worth writing without them."""
    from service.pacs import results  # slow to import, and few ask for it

    made: list[Explanation] = []
    if task is None or task.label_names != diagnosis.label_names:
        return made
    for specialist, label in results.witnesses(diagnosis, task):
        try:
            found = await parts.specialists.explain(decoded.image.pixels, task, specialist, label)
        except SpecialistUnavailable:
            continue
        made.append(found)
    return made


def _packed(
    diagnosis: Diagnosis,
    task: Task | None,
    file: bytes,
    decoded: IntakeResult,
    explanations: list[Explanation],
) -> bytes:
    from service.pacs import results
    from service.pacs.source import anonymous, read_source

    number = decoded.attributes.frame_number if decoded.attributes else 1
    source = read_source(file, Limits(max_bytes=len(file)), number) or anonymous(diagnosis.id)
    stream = io.BytesIO()
    with ZipFile(stream, "w") as archive:
        for one in results.files(diagnosis, source, task, decoded.image.pixels, explanations):
            archive.writestr(one.name, one.data)
    return stream.getvalue()
