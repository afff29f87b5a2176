"""A deflated DICOM file (PS3.5 A.5), inflated only as far as somebody reads.

A few kilobytes inflate to hundreds of megabytes. So the header is inflated up to the pixels and
no further, and of the pixels only the frame that is wanted is kept: what lies before it passes
through a small buffer, what lies after it is never inflated.
"""

import zlib
from typing import Any

from service.errors import ImageTooLarge, UnreadableImage
from service.intake.limits import Limits

ITEM = b"\xfe\xff\x00\xe0"  # PS3.5 section 7.5, little endian
_PIECE = 2**16  # bytes of the file handed to zlib at a time
_CHUNK = 2**20  # bytes inflated at a time


class Inflating:
    """Reads what `data` inflates to; pydicom takes it for a file.

    Everything read is kept, to seek back in: never more than `limits.max_header_bytes`. `skip`
    and `take` go on from there and keep nothing.
    """

    def __init__(self, data: memoryview, limits: Limits) -> None:
        self._data = data
        self._limits = limits
        self._consumed = 0
        self._inflated = 0
        self._items = 0
        self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
        self._kept = bytearray()
        self._place = 0

    def read(self, count: int = -1) -> bytes:
        """So many bytes, or what is left; raises ImageTooLarge when the header does not end."""
        most = self._limits.max_header_bytes
        end = self._place + (count if count >= 0 else most + 1)
        while len(self._kept) < min(end, most + 1) and (more := self._next()):
            self._kept += more
            self._items += more.count(ITEM)
            self._limits.check_items(self._items)
        if len(self._kept) > most and end > most:
            raise ImageTooLarge(f"the header of the deflated file is larger than {most} bytes")
        found = bytes(self._kept[self._place : end])
        self._place += len(found)
        return found

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = 0) -> int:
        """Back to what was read, or forward; only from the beginning or from here."""
        self._place = place if whence == 0 else self._place + place
        return self._place

    def has_more(self) -> bool:
        """Whether anything comes after what was read."""
        more = self.read(1)
        self._place -= len(more)
        return bool(more)

    def take(self, skipped: int, count: int) -> bytes:
        """`count` bytes after `skipped` ones; for the end, as nothing before can be read again.

        Raises UnreadableImage where the file ends before, ImageTooLarge beyond the limit.
        """
        piece = bytes(self._kept[self._place :])
        self._kept.clear()
        found = bytearray()
        while True:
            passed = min(skipped, len(piece))
            skipped -= passed
            found += piece[passed : passed + count - len(found)]
            if len(found) == count:
                return bytes(found)
            piece = self._next()
            if not piece:
                raise UnreadableImage("the deflated DICOM file ends before its pixels do")

    def _next(self) -> bytes:
        """The next bytes, at most a chunk of them; none at the end."""
        while not self._zlib.eof:
            given = self._zlib.unconsumed_tail or self._piece()
            found = self._zlib.decompress(given, _CHUNK)
            self._inflated += len(found)
            if self._inflated > self._limits.max_inflated_bytes:
                raise ImageTooLarge(
                    "the deflated DICOM file inflates to more than "
                    f"{self._limits.max_inflated_bytes} bytes"
                )
            if found or not given:
                return found
        return b""

    def _piece(self) -> Any:
        piece = self._data[self._consumed : self._consumed + _PIECE]
        self._consumed += len(piece)
        return piece
