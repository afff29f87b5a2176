"""What a compressed frame says of its own size.

A C decoder allocates what the codestream declares, whatever Rows and Columns said: so it is read,
from the few bytes that hold it, before the decoder sees it.
"""

import struct

_JPEG_START = b"\xff\xd8\xff"
_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # T.81 table B.1; T.87: SOF55
_JPEG_2000_START = b"\xff\x4f\xff\x51"  # T.800: SOC, then SIZ
_JP2_SEARCH = 4096


def declared_size(frame: bytes) -> tuple[int, int] | None:
    """(width, height) as JPEG, JPEG-LS or JPEG 2000 declares it; None where it cannot be told."""
    if frame.startswith(_JPEG_START):
        return _jpeg_size(frame)
    start = frame.find(_JPEG_2000_START, 0, _JP2_SEARCH)  # boxes may come before, T.800 annex I
    return _jpeg_2000_size(frame[start:]) if start >= 0 else None


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", frame[place + 5 : place + 9])
            return width, height
        padding = marker == 0xFF
        place += 1 if padding else 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return None


def _jpeg_2000_size(codestream: bytes) -> tuple[int, int] | None:
    if len(codestream) < 24:
        return None
    right, bottom, left, top = struct.unpack(">4I", codestream[8:24])
    return right - left, bottom - top
