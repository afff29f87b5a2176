"""Several images asked for at once: frames of a file, or the instances of a series or study."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from uuid import uuid4

from fastapi import Request

from service.api import problems, reception
from service.api.admission import unless_abandoned
from service.api.dependencies import Serving
from service.api.reception import Arrival
from service.api.schemas import (
    DiagnosesResponse,
    ImageDiagnosisResponse,
    RefusedResponse,
    diagnosis_response,
)
from service.errors import InvalidInput, UnsupportedImage
from service.pacs.client import DicomwebClient, Found

MOST = 64
"""Images of one request."""

ALL = "all"
_RANGE = re.compile(r"([1-9][0-9]{0,5})(?:-([1-9][0-9]{0,5}))?")
NO_IMAGES = frozenset({"SR", "KO", "PR", "SEG", "DOC", "REG", "RTSTRUCT", "RTPLAN", "RTDOSE"})
"""Modalities of objects that are about images."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One image of several; `refusal` says why it cannot be had."""

    sop_instance_uid: str | None
    arrival: Arrival
    refusal: InvalidInput | None = None


async def frames_of(serving: Serving, arrival: Arrival, frames: str) -> AsyncIterator[Wanted]:
    """An arrival for each frame of one file that is asked for: `all`, or numbers as `1,4-6`."""
    first = await serving.parts.intake.decode(arrival.data)
    uid = first.instance.sop_instance_uid if first.instance else None
    count = first.attributes.number_of_frames if first.attributes else None
    for number in _numbers(frames, count):
        yield Wanted(uid, replace(arrival, frame=number))


async def instances_of(
    client: DicomwebClient, study: str, instances: tuple[Found, ...], arrival: Arrival
) -> AsyncIterator[Wanted]:
    """An arrival for each instance that a search found, fetched when its turn comes."""
    for one in instances:
        if one.modality in NO_IMAGES:
            refusal = UnsupportedImage(f"an object of modality {one.modality} holds no image")
            yield Wanted(one.sop_instance_uid, arrival, refusal)
            continue
        try:
            data = await client.read(study, one)
        except InvalidInput as refusal:  # such as one that is too large
            yield Wanted(one.sop_instance_uid, arrival, refusal)
            continue
        yield Wanted(one.sop_instance_uid, replace(arrival, data=data))


async def diagnose_all(
    request: Request, serving: Serving, wanted: AsyncIterator[Wanted]
) -> DiagnosesResponse:
    """Each image diagnosed, one after the other; those that cannot be are named with the reason.

    Where none can be, the first reason is raised. What else goes wrong ends the request: what was
    diagnosed until then is stored.
    """
    with serving.admission.enter():
        found = await unless_abandoned(request, _each(serving, wanted))
    made, refused = found
    if not made and refused:
        raise refused[0][1]
    return DiagnosesResponse(
        diagnoses=made, refused=[_refused(one, error) for one, error in refused]
    )


async def _each(
    serving: Serving, wanted: AsyncIterator[Wanted]
) -> tuple[list[ImageDiagnosisResponse], list[tuple[Wanted, InvalidInput]]]:
    made: list[ImageDiagnosisResponse] = []
    refused: list[tuple[Wanted, InvalidInput]] = []
    async for one in wanted:
        try:
            made.append(await _one(serving, one))
        except InvalidInput as error:
            refused.append((one, error))
    return made, refused


async def _one(serving: Serving, wanted: Wanted) -> ImageDiagnosisResponse:
    if wanted.refusal is not None:
        raise wanted.refusal
    taken = await reception.take_in(serving, wanted.arrival)
    diagnosis = await reception.diagnose(serving, taken, str(uuid4()))
    if taken.is_from_pacs:
        await reception.answer(serving, taken, diagnosis)
    attributes = taken.decoded.attributes
    return ImageDiagnosisResponse(
        sop_instance_uid=wanted.sop_instance_uid,
        frame_number=attributes.frame_number if attributes else wanted.arrival.frame,
        diagnosis=diagnosis_response(diagnosis, taken.task),
    )


def _refused(wanted: Wanted, error: InvalidInput) -> RefusedResponse:
    return RefusedResponse(
        sop_instance_uid=wanted.sop_instance_uid,
        frame_number=wanted.arrival.frame,
        type=problems.kind_of(error).type,
        detail=str(error),
    )


def _numbers(frames: str, count: int | None) -> tuple[int, ...]:
    if frames == ALL:
        if count is None:
            raise InvalidInput("frames: only a DICOM file says how many it has: name them")
        return _bounded(tuple(range(1, min(count, MOST + 1) + 1)))
    ranges = [_RANGE.fullmatch(part) for part in frames.split(",")]
    if not all(ranges):
        raise InvalidInput("frames: write 'all', or numbers and ranges as 1,4-6")
    numbers: dict[int, None] = {}
    for one in ranges:
        start, end = int(one[1]), int(one[2] or one[1])  # type: ignore[index]
        numbers.update(dict.fromkeys(range(start, min(end, start + MOST) + 1)))
    return _bounded(tuple(numbers))


def _bounded(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if len(numbers) > MOST:
        raise InvalidInput(f"frames: at most {MOST} at once")
    return numbers
