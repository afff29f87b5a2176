"""What goes through the pipes between the service and a decode worker.

A message is four bytes with the length of its header, the header as JSON, and raw bytes whose
number the header gives. Nothing is ever unpickled: a worker that decoded a hostile file may send
anything, so every reply is measured against the limits and its texts are cleaned.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, fields
from math import isfinite
from typing import IO, Any, TypeVar

import numpy as np

from service import errors
from service.errors import GscoError, UnreadableImage
from service.intake import header as headers
from service.intake.deidentify import DicomAttributes, DicomReferences
from service.intake.limits import Limits
from service.intake.result import Decoded
from service.intake.viewable import Frame, Window

READY = b"gsco-decode-worker-ready\n"
_HEADER_MAX = 2**18  # of JSON, where a letter may take six bytes
_TEXT_MAX = 300
_VALUES_MAX = 16
_LENGTH = struct.Struct(">I")
_REFUSALS = ("UnreadableImage", "ImageTooLarge", "UnsupportedImage", "OwnResult")

Kind = TypeVar("Kind", DicomAttributes, DicomReferences)


class BrokenReply(GscoError):
    """The worker ended, or sent what no worker in its right mind sends."""


def send(stream: IO[bytes], header: dict[str, Any], body: bytes | memoryview = b"") -> None:
    """Write one message."""
    encoded = json.dumps(header | {"body": len(body)}).encode()
    _write(stream, memoryview(_LENGTH.pack(len(encoded)) + encoded))
    _write(stream, memoryview(body))
    stream.flush()


def receive(stream: IO[bytes], max_body: int) -> tuple[dict[str, Any], bytearray]:
    """Read one message; EOFError at the end of the stream, BrokenReply for nonsense."""
    (length,) = _LENGTH.unpack(read(stream, _LENGTH.size))
    if length > _HEADER_MAX:
        raise BrokenReply("a header is too long")
    header = json.loads(read(stream, length))
    size = header.get("body") if isinstance(header, dict) else None
    if type(size) is not int or not 0 <= size <= max_body:
        raise BrokenReply("a body has an impossible length")
    return header, read(stream, size)


def decoded_header(decoded: Decoded) -> dict[str, Any]:
    """Everything of a decoded image but its pixels."""
    height, width = decoded.pixels.shape[:2]
    return {
        "size": [height, width],
        "media_type": decoded.media_type,
        "notes": decoded.notes,
        "cautions": decoded.cautions,
        "patient": decoded.patient,
        "attributes": decoded.attributes and asdict(decoded.attributes),
        "references": decoded.references and asdict(decoded.references),
        "header": decoded.header,
    }


def frame_header(frame: Frame) -> dict[str, Any]:
    """Everything of a frame but its pixels."""
    header = {field.name: getattr(frame, field.name) for field in fields(Frame)}
    del header["pixels"]
    header["windows"] = [astuple(window) for window in frame.windows]
    return header | {"size": frame.pixels.shape[:2], "is_grey": frame.is_grey}


def identified_header(references: DicomReferences | None) -> dict[str, Any]:
    """Which instance a file is, or that it cannot be told."""
    return {"references": references and asdict(references)}


def references_from(header: dict[str, Any]) -> DicomReferences | None:
    """The instance of a reply; BrokenReply for nonsense."""
    try:
        return _structured(DicomReferences, header["references"])
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenReply("a reply does not have the form of one") from error


def refusal_header(error: GscoError, *, spent: bool = False) -> dict[str, Any]:
    """A refusal: which error, its sentence, and whether the worker should be replaced."""
    return {"refused": type(error).__name__, "sentence": str(error), "spent": spent}


def decoded_from(header: dict[str, Any], body: bytearray, limits: Limits) -> Decoded:
    """The decoded image of a reply, or the refusal it carries raised; BrokenReply for nonsense."""
    if "refused" in header:
        raise _refusal(header)
    try:
        return _decoded(header, body, limits)
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenReply("a reply does not have the form of one") from error


def frame_from(header: dict[str, Any], body: bytearray, limits: Limits) -> Frame:
    """The frame of a reply, or the refusal it carries raised; BrokenReply for nonsense."""
    if "refused" in header:
        raise _refusal(header)
    try:
        return _frame(header, body, limits)
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenReply("a reply does not have the form of one") from error


def _frame(header: dict[str, Any], body: bytearray, limits: Limits) -> Frame:
    height, width = (_number(side) for side in header["size"])
    limits.check_size(width, height)
    kind, shape = (("<u2", (height, width)), ("u1", (height, width, 3)))[not header["is_grey"]]
    return Frame(
        pixels=np.frombuffer(body, dtype=kind).reshape(shape),
        windows=tuple(_window(*window) for window in header["windows"][:_VALUES_MAX]),
        lowest=_real(header["lowest"]),
        step=_real(header["step"]),
        unit=_text(header["unit"]),
        is_inverse=header["is_inverse"] is True,
        height_to_width=_real(header["height_to_width"]),
        modality=_optional(header["modality"]),
        number=_number(header["number"]),
        count=_number(header["count"]),
        notes=_texts(header["notes"]),
        cautions=_texts(header["cautions"]),
    )


def _window(centre: Any, width: Any, function: Any) -> Window:
    return Window(_real(centre), _real(width), _text(function))


def _refusal(header: dict[str, Any]) -> GscoError:
    name = header["refused"]
    kind = getattr(errors, name) if name in _REFUSALS else UnreadableImage
    error: GscoError = kind(_text(header.get("sentence", "")))
    return error


def _decoded(header: dict[str, Any], body: bytearray, limits: Limits) -> Decoded:
    height, width = (_number(side) for side in header["size"])
    limits.check_size(width, height)
    pixels = np.frombuffer(body, dtype=np.uint8).reshape(height, width, 3)
    return Decoded(
        pixels,
        _text(header["media_type"]),
        _texts(header["notes"]),
        _texts(header["cautions"]),
        _structured(DicomAttributes, header["attributes"]),
        _structured(DicomReferences, header["references"]),
        _optional(header["patient"]),
        None if header["header"] is None else headers.checked(header["header"]),
    )


def _structured(kind: Callable[..., Kind], raw: Any) -> Kind | None:
    if raw is None:
        return None
    own = fields(kind)  # type: ignore[arg-type]
    return kind(**{f.name: _READERS[f.type](raw[f.name]) for f in own})


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(_text(value) for value in values[:_VALUES_MAX])


def _millimetres(values: Any) -> tuple[float, float] | None:
    if values is None:
        return None
    rows, columns = (float(value) for value in values)
    if not (isfinite(rows) and isfinite(columns)):
        raise ValueError("two numbers were expected")
    return rows, columns


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    return "".join(letter for letter in value if letter.isprintable())[:_TEXT_MAX]


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("a number was expected")
    return value


def _real(value: Any) -> float:
    if type(value) not in (int, float) or not isfinite(value):
        raise TypeError("a finite number was expected")
    return float(value)


_READERS: Mapping[Any, Callable[[Any], Any]] = {
    str: _text,
    str | None: _optional,
    int: _number,
    tuple[str, ...]: _texts,
    tuple[float, float] | None: _millimetres,
}


def read(stream: IO[bytes], count: int) -> bytearray:
    """Exactly so many bytes, or EOFError; unbuffered pipes hand them over piece by piece."""
    buffer = bytearray(count)
    view, filled = memoryview(buffer), 0
    while filled < count:
        got = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError("the pipe was closed")
        filled += got
    return buffer


def _write(stream: IO[bytes], view: memoryview) -> None:
    while view:
        view = view[stream.write(view) :]
