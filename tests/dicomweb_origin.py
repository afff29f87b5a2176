"""A small DICOMweb origin server: QIDO-RS and WADO-RS over instances held in memory."""

from dataclasses import dataclass, field
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

_SHOWN = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality")


@dataclass
class Origin:
    """`files` are what it holds; `asked` remembers paths, `authorizations` how it was asked.

    With `answer`, everything is answered by that. One that is `careless` searches for the study
    alone, whatever else it was asked for.
    """

    files: list[bytes] = field(default_factory=list)
    answer: Response | None = None
    careless: bool = False
    asked: list[str] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)

    @property
    def app(self) -> Starlette:
        study, series = "/dicom-web/studies/{study}", "/series/{series}"
        return Starlette(
            routes=[
                Route(f"{study}/instances", self._search),
                Route(f"{study}{series}/instances", self._search),
                Route(f"{study}{series}/instances/{{instance}}", self._read),
            ]
        )

    async def _search(self, request: Request) -> Response:
        self._remember(request)
        wanted = {**request.path_params, "instance": request.query_params.get("SOPInstanceUID")}
        if self.careless:
            wanted = {"study": wanted["study"]}
        found = [_shown(dataset) for dataset in self._datasets() if _is_wanted(dataset, wanted)]
        limit = int(request.query_params["limit"])
        return self.answer or JSONResponse(found[:limit], media_type="application/dicom+json")

    async def _read(self, request: Request) -> Response:
        self._remember(request)
        if self.answer:
            return self.answer
        for file, dataset in zip(self.files, self._datasets(), strict=True):
            if _is_wanted(dataset, request.path_params):
                head = b"--edge\r\nContent-Type: application/dicom\r\n\r\n"
                kind = 'multipart/related; type="application/dicom"; boundary=edge'
                return Response(head + file + b"\r\n--edge--", media_type=kind)
        return Response(status_code=404)

    def _remember(self, request: Request) -> None:
        self.asked.append(request.url.path)
        self.authorizations.append(request.headers.get("authorization", ""))

    def _datasets(self) -> list[Dataset]:
        return [dcmread(BytesIO(file), stop_before_pixels=True) for file in self.files]


def elsewhere(url: str) -> Response:
    return RedirectResponse(url)


def _is_wanted(dataset: Dataset, wanted: dict[str, str | None]) -> bool:
    uids = {
        "study": dataset.StudyInstanceUID,
        "series": dataset.SeriesInstanceUID,
        "instance": dataset.SOPInstanceUID,
    }
    return all(uids[name] == uid for name, uid in wanted.items() if uid)


def _shown(dataset: Dataset) -> dict[str, object]:
    shown = Dataset()
    for keyword in _SHOWN:
        setattr(shown, keyword, dataset.get(keyword))
    found: dict[str, object] = shown.to_json_dict()
    return found
