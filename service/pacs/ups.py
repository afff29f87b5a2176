"""A worklist of others (UPS-RS, PS3.18 section 11): what is to be looked at, and what came of it.

A workitem is claimed with a transaction UID, which is its lock. Ours follows from the workitem and
our key: a service that was killed knows its own workitems again, and nobody else can make it.
Where the images are is not taken from a workitem, only which: they are fetched from a source of
the settings.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import httpx
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from service.errors import NotFound, SourceUnavailable
from service.intake.deidentify import is_uid
from service.pacs.basic_profile import replaced_uid
from service.pacs.client import MOST_INSTANCES, Reference, opened
from service.pacs.concepts import SCHEME
from service.pacs.source import discreet
from service.servers import UpsWorklist

MOST_WORKITEMS = 50
_JSON = "application/dicom+json"
_LONGEST_REPLY = 4 * 2**20
_CODES = {
    "station": ("GSCO", SCHEME, "GSCo"),
    "workitem": ("110004", "DCM", "Computer Aided Detection"),  # PS3.16 CID 9231
    "discontinued": ("110513", "DCM", "Discontinued for unspecified reason"),  # CID 9300
}


class StepState(StrEnum):
    """ProcedureStepState (PS3.4 section CC.1.1)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


@dataclass(frozen=True, slots=True)
class Output:
    """One object that came of a workitem, and the DICOMweb service that has it, if any."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    retrieve_url: str = ""


@dataclass(frozen=True, slots=True)
class Performed:
    """What is told of a workitem at its end; `reason` where it was not done."""

    started_at: datetime
    outputs: tuple[Output, ...] = ()
    reason: str = ""


class Worklist:
    """The worklist of the settings. `transport` is for tests that need no socket."""

    def __init__(
        self, settings: UpsWorklist, key: bytes, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.settings = settings
        self._key = key
        self._http = opened(settings, transport)

    async def close(self) -> None:
        await self._http.aclose()

    async def search(self, state: StepState) -> tuple[str, ...]:
        """UIDs of workitems in this state that are for us, at most 50. Raises SourceUnavailable."""
        query = {**self.settings.query, "ProcedureStepState": state, "limit": str(MOST_WORKITEMS)}
        status, said = await self._ask("GET", "workitems", query=query)
        found = await _documents(said) if status == httpx.codes.OK else []
        uids = [str(one.get("SOPInstanceUID", "")) for one in found]
        return tuple(uid for uid in uids if is_uid(uid))[:MOST_WORKITEMS]

    async def claim(self, uid: str) -> bool:
        """Whether the workitem is ours from now on: others may have been quicker."""
        return await self._change(uid, StepState.IN_PROGRESS)

    async def is_ours(self, uid: str) -> bool:
        """Whether a workitem in progress is one that we claimed, before we were stopped."""
        return await self._update(uid, _progress(0, "resumed"))

    async def inputs(self, uid: str) -> tuple[Reference, ...]:
        """What is to be looked at, at most 64 studies, series or instances.

        Raises NotFound, InvalidInput for what has no proper UIDs, SourceUnavailable.
        """
        _, said = await self._ask("GET", f"workitems/{uid}")
        return tuple(
            reference
            for document in (await _documents(said))[:1]
            for item in _items(document, "InputInformationSequence")
            for reference in _references(item)
        )[:MOST_INSTANCES]

    async def complete(self, uid: str, performed: Performed) -> bool:
        """Tells what came of it, then that it is done; False where it is not ours any more."""
        told = await self._update(uid, _told(performed, 100))
        return told and await self._change(uid, StepState.COMPLETED)

    async def cancel(self, uid: str, performed: Performed) -> bool:
        """Tells why it is not done, then that it will not be; False where it is not ours."""
        told = await self._update(uid, _told(performed, 0))
        return told and await self._change(uid, StepState.CANCELED)

    async def _change(self, uid: str, state: StepState) -> bool:
        document = Dataset()
        document.ProcedureStepState = state.value
        document.TransactionUID = self._transaction(uid)
        status, _ = await self._ask("PUT", f"workitems/{uid}/state", document)
        return status < httpx.codes.BAD_REQUEST

    async def _update(self, uid: str, document: Dataset) -> bool:
        """The transaction UID is in the address, as PS3.18 has it, and where dcm4chee looks."""
        transaction = self._transaction(uid)
        document.TransactionUID = transaction
        status, _ = await self._ask("POST", f"workitems/{uid}?{transaction}", document)
        return status < httpx.codes.BAD_REQUEST

    async def _ask(
        self,
        method: str,
        address: str,
        document: Dataset | None = None,
        query: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Status and body; a status of 400 or 409 says that the workitem is not ours."""
        headers = {"Accept": _JSON, "Accept-Encoding": "identity", "Content-Type": _JSON}
        body = json.dumps([document.to_json_dict()]) if document is not None else None
        try:
            async with (
                asyncio.timeout(self.settings.timeout_seconds),
                self._http.stream(
                    method, address, content=body, params=query, headers=headers
                ) as reply,
            ):
                said = await self._bounded(reply)
        except (httpx.HTTPError, TimeoutError) as error:  # httpx quotes the address
            raise self._unavailable(type(error).__name__) from None
        if reply.status_code == httpx.codes.NOT_FOUND:
            raise NotFound(f"worklist {self.settings.name!r} has no such workitem")
        if not (reply.is_success or reply.status_code in (400, 409, 410)):
            raise self._unavailable(f"status {reply.status_code}")
        return reply.status_code, said

    async def _bounded(self, reply: httpx.Response) -> bytes:
        found = bytearray()
        async for chunk in reply.aiter_raw():
            found += chunk
            if len(found) > _LONGEST_REPLY:
                raise self._unavailable("an answer without end")
        return bytes(found)

    def _unavailable(self, why: str) -> SourceUnavailable:
        return SourceUnavailable(f"worklist {self.settings.name!r} does not answer: {why}")

    def _transaction(self, uid: str) -> str:
        return replaced_uid(f"{self.settings.name}/{uid}", self._key)


async def _documents(said: bytes) -> list[Dataset]:
    """Datasets in the DICOM JSON model, which is slow to read; what is something else is none."""
    return await asyncio.to_thread(_read, said)


def _read(said: bytes) -> list[Dataset]:
    try:
        found = json.loads(said or b"[]")
        several = found if isinstance(found, list) else [found]
        with discreet():
            return [Dataset.from_json(one) for one in several]
    except Exception:  # noqa: BLE001 - a hostile document raises anything, and quotes itself
        return []


def _items(document: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where the document calls something else by its name."""
    value = document.get(keyword)
    return list(value) if isinstance(value, Items) else []


def _references(item: Dataset) -> Sequence[Reference]:
    """A series is fetched as a whole, unless instances of it are named."""
    study, series = str(item.get("StudyInstanceUID", "")), item.get("SeriesInstanceUID")
    named = [one.get("ReferencedSOPInstanceUID") for one in _items(item, "ReferencedSOPSequence")]
    where = str(series) if series else None
    return [Reference(study, where, str(uid)) for uid in named] or [Reference(study, where)]


def _told(performed: Performed, percent: int) -> Dataset:
    """The attributes that a final state requires (PS3.4 table CC.2.5-3)."""
    told = _progress(percent, performed.reason or "done")
    progress = told.ProcedureStepProgressInformationSequence[0]
    if performed.reason:
        progress.ProcedureStepCancellationDateTime = _now()
        progress.ReasonForCancellation = performed.reason
        progress.ProcedureStepDiscontinuationReasonCodeSequence = [_code("discontinued")]
    step = Dataset()
    step.PerformedStationNameCodeSequence = [_code("station")]
    step.PerformedProcedureStepStartDateTime = _moment(performed.started_at)
    step.PerformedProcedureStepEndDateTime = _now()
    step.PerformedWorkitemCodeSequence = [_code("workitem")]
    step.OutputInformationSequence = [_output(one) for one in performed.outputs]
    told.UnifiedProcedureStepPerformedProcedureSequence = [step]
    return told


def _progress(percent: int, description: str) -> Dataset:
    progress = Dataset()
    progress.ProcedureStepProgress = str(percent)
    progress.ProcedureStepProgressDescription = description[:1024]
    told = Dataset()
    told.ProcedureStepProgressInformationSequence = [progress]
    return told


def _output(one: Output) -> Dataset:
    reference, item = Dataset(), Dataset()
    reference.ReferencedSOPClassUID = one.sop_class_uid
    reference.ReferencedSOPInstanceUID = one.sop_instance_uid
    item.TypeOfInstances = "DICOM"
    item.StudyInstanceUID = one.study_instance_uid
    item.SeriesInstanceUID = one.series_instance_uid
    item.ReferencedSOPSequence = [reference]
    if one.retrieve_url:
        place = Dataset()
        place.RetrieveURL = one.retrieve_url
        item.WADORSRetrievalSequence = [place]
    return item


def _code(name: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = _CODES[name]
    return item


def _now() -> str:
    return _moment(datetime.now(UTC))


def _moment(at: datetime) -> str:
    """With its offset: without one it would be the time of whoever reads it (PS3.5 section 6.2)."""
    return at.strftime("%Y%m%d%H%M%S%z")
