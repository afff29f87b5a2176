"""multipart/related (RFC 2387), as DICOMweb sends many objects in one body: read part by part.

A part is handed on as soon as it is complete, and none is larger than allowed: the body as a
whole is never held.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from email.message import Message

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from service.errors import ImageTooLarge, InvalidInput

DICOM = "application/dicom"
RELATED = "multipart/related"
_WHITE = b" \t\r\n"


async def parts(
    body: AsyncIterator[bytes], content_type: str, max_part_bytes: int
) -> AsyncGenerator[bytes, None]:
    """The content of every part; each must be application/dicom.

    Raises ImageTooLarge for a part that is, InvalidInput for a body that is not what its content
    type says, or ends before its last boundary.
    """
    reader = _Reader(boundary_of(content_type), max_part_bytes)
    async for chunk in body:
        for part in reader.feed(chunk):
            yield part
    reader.finish()


def boundary_of(content_type: str) -> str:
    """The boundary of a multipart/related body of DICOM objects; InvalidInput without one."""
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_boundary()
    if message.get_content_type() != RELATED or not boundary:
        raise InvalidInput(f"the content type must be {RELATED} with a boundary")
    kind = str(message.get_param("type", DICOM)).split(";")[0].strip().lower()
    if kind != DICOM:
        raise InvalidInput(f'the content type must say type="{DICOM}"')
    return boundary


def body_of(parts: Iterable[bytes], boundary: str) -> bytes:
    """A multipart/related body of DICOM objects; the boundary must not be in any of them."""
    head = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
    return b"".join(head + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()


class _Reader:
    """Parts as they become complete."""

    def __init__(self, boundary: str, max_part_bytes: int) -> None:
        self._max = max_part_bytes
        self._complete: list[bytes] = []
        self._part = bytearray()
        self._field, self._value = bytearray(), bytearray()
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary.encode("latin-1"),
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._add_field,
                    "on_header_value": self._add_value,
                    "on_header_end": self._end_header,
                    "on_part_data": self._add_data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except (FormParserError, UnicodeEncodeError):
            raise InvalidInput("the boundary of the body is not usable") from None

    def feed(self, chunk: bytes) -> list[bytes]:
        """The parts that end in this piece of the body."""
        if self._ended:  # RFC 2046: what comes after the last boundary is to be ignored
            return []
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise InvalidInput("the body is not the multipart message it says it is") from None
        complete, self._complete = self._complete, []
        return complete

    def finish(self) -> None:
        """Raises InvalidInput for a body that was cut off."""
        if not self._ended:
            raise InvalidInput("the body ends before its last boundary")

    def _begin(self) -> None:
        self._part = bytearray()

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        name, value = bytes(self._field).lower(), bytes(self._value).split(b";")[0]
        self._field, self._value = bytearray(), bytearray()
        if name == b"content-type" and value.strip(_WHITE).lower() != DICOM.encode():
            raise InvalidInput(f"every part must be {DICOM}")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._part += data[start:end]
        if len(self._part) > self._max:
            raise ImageTooLarge(f"an instance is larger than {self._max} bytes")

    def _end_part(self) -> None:
        self._complete.append(bytes(self._part))
        self._part = bytearray()

    def _end(self) -> None:
        self._ended = True
