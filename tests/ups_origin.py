"""A small UPS-RS origin server: workitems in memory, with the state machine of PS3.4 annex CC."""

from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

SCHEDULED, IN_PROGRESS = "SCHEDULED", "IN PROGRESS"
ENDS = ("COMPLETED", "CANCELED")


@dataclass
class Workitem:
    """What is told of it, where it stands, and the transaction that holds it."""

    told: Dataset
    state: str = SCHEDULED
    transaction: str = ""
    history: list[str] = field(default_factory=list)


@dataclass
class UpsOrigin:
    """`workitems` by UID; `searched` are the queries that were asked.

    One that `takes_no_end` has `refused` so many.
    """

    workitems: dict[str, Workitem] = field(default_factory=dict)
    searched: list[dict[str, str]] = field(default_factory=list)
    takes_no_end: bool = False
    refused: int = 0

    @property
    def app(self) -> Starlette:
        one = "/workitems/{uid}"
        return Starlette(
            routes=[
                Route("/workitems", self._search),
                Route(one, self._read),
                Route(one, self._update, methods=["POST"]),
                Route(f"{one}/state", self._change, methods=["PUT"]),
            ]
        )

    def schedule(self, uid: str, study: str, *instances: str, series: str | None = None) -> None:
        references = []
        for instance in instances:
            reference = Dataset()
            reference.ReferencedSOPInstanceUID = instance
            references.append(reference)
        item, told = Dataset(), Dataset()
        item.StudyInstanceUID, item.ReferencedSOPSequence = study, references
        if series:
            item.SeriesInstanceUID = series
        told.SOPInstanceUID, told.InputInformationSequence = uid, [item]
        told.PatientName = "Doe^Jane"
        self.workitems[uid] = Workitem(told)

    async def _search(self, request: Request) -> Response:
        self.searched.append(dict(request.query_params))
        wanted = request.query_params["ProcedureStepState"]
        found = [one.told.to_json_dict() for one in self._in_state(wanted)]
        return JSONResponse(found, media_type="application/dicom+json")

    def _in_state(self, state: str) -> list[Workitem]:
        return [one for one in self.workitems.values() if one.state == state]

    async def _read(self, request: Request) -> Response:
        found = self.workitems.get(request.path_params["uid"])
        if found is None:
            return Response(status_code=404)
        return JSONResponse([found.told.to_json_dict()], media_type="application/dicom+json")

    async def _update(self, request: Request) -> Response:
        one, said = self.workitems[request.path_params["uid"]], await _dataset(request)
        transaction = str(request.query_params).rstrip("=")
        if one.state != IN_PROGRESS or {transaction, said.TransactionUID} != {one.transaction}:
            return Response(status_code=409)
        del said.TransactionUID
        one.told.update(said)
        return Response()

    async def _change(self, request: Request) -> Response:
        one, said = self.workitems[request.path_params["uid"]], await _dataset(request)
        state, transaction = said.ProcedureStepState, said.TransactionUID
        claims = one.state == SCHEDULED and state == IN_PROGRESS
        ends = one.state == IN_PROGRESS and state in ENDS and transaction == one.transaction
        if ends and self.takes_no_end:
            self.refused += 1
            return Response(status_code=409)
        if not (claims or (ends and _is_told(one.told))):
            return Response(status_code=409)
        one.state, one.transaction = state, transaction
        one.history.append(state)
        return Response()


def _is_told(told: Any) -> bool:
    """Whether what a final state requires has been said."""
    steps = told.get("UnifiedProcedureStepPerformedProcedureSequence") or [Dataset()]
    required = ("PerformedStationNameCodeSequence", "PerformedProcedureStepStartDateTime")
    return all(keyword in steps[0] for keyword in required)


async def _dataset(request: Request) -> Any:
    document = await request.json()
    return Dataset.from_json(document[0] if isinstance(document, list) else document)
