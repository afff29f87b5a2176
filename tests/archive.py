"""A PACS that is stored to: STOW-RS over a dictionary, with failures on demand."""

from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from pydicom import dcmread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@dataclass
class Archive:
    """`stored` are the files by their SOP instance UIDs, as they first came.

    `answers` are given in turn before anything is stored: a status, or the reason of a failure.
    `asked` counts requests; `heard` is what was said with them. An Archive that is `deaf` stores
    what it is sent and then says that it is busy, as a reply that is lost.
    """

    stored: dict[str, bytes] = field(default_factory=dict)
    answers: list[int] = field(default_factory=list)
    asked: int = 0
    heard: list[dict[str, str]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    deaf: int = 0

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/dicom-web/studies", self._store, methods=["POST"])])

    def datasets(self) -> list[Any]:
        return [dcmread(BytesIO(one)) for one in self.stored.values()]

    def of_modality(self, modality: str) -> list[Any]:
        return [one for one in self.datasets() if one.Modality == modality]

    async def _store(self, request: Request) -> Response:
        self.asked += 1
        self.heard.append(dict(request.headers))
        body = await request.body()
        if self.answers:
            return _answer(self.answers.pop(0))
        for file in _parts(body, request.headers["content-type"]):
            uid = str(dcmread(BytesIO(file)).SOPInstanceUID)
            if self.stored.setdefault(uid, file) != file:
                self.changed.append(uid)
        if self.deaf:
            self.deaf -= 1
            return Response(status_code=503)
        return JSONResponse({"00081198": {"vr": "SQ"}}, media_type="application/dicom+json")


def _answer(scripted: int) -> Response:
    if 100 <= scripted < 600:
        return Response(status_code=scripted)
    failed = {"00081197": {"vr": "US", "Value": [scripted]}}
    return JSONResponse({"00081198": {"vr": "SQ", "Value": [failed]}}, 409)


def _parts(body: bytes, content_type: str) -> list[bytes]:
    boundary = b"--" + content_type.split("boundary=")[1].strip('"').encode()
    pieces = body.split(boundary)[1:-1]
    return [piece.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for piece in pieces]
