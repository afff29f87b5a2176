"""A DICOM file (PS3.10) becomes a dataset, without trusting what it says of its own size."""

import struct
from collections.abc import MutableSequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.filereader import read_dataset
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RTDoseStorage,
    SegmentationStorage,
)

from service.errors import OwnResult, UnreadableImage, UnsupportedImage
from service.intake.deflated import ITEM, Inflating
from service.intake.limits import Limits

_PREAMBLE = 128
_MAGIC = b"DICM"
_BIG_ENDIAN_ITEM = b"\xff\xfe\xe0\x00"
_FIRST_GROUPS = (0x0002, 0x0008)
_PIXEL_TAGS = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
# These have pixels, but mark or dose another image: a diagnosis of them would mean nothing.
_LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
_NOT_AN_IMAGE = (SegmentationStorage, RTDoseStorage, _LABEL_MAP_SEGMENTATION)
MANUFACTURER, MODEL = "GSCo", "gsco"
"""By these the objects that this project writes are known again."""

_LONG_VALUES = (b"OB", b"OW", b"OF", b"OD")


@dataclass(frozen=True, slots=True)
class DicomFile:
    """A dataset; of a deflated file without its pixels, which are still to be inflated."""

    dataset: Any
    deflated_pixels: Inflating | None = None

    @property
    def has_pixels(self) -> bool:
        held = any(keyword in self.dataset for keyword in _PIXEL_TAGS.values())
        return held or self.deflated_pixels is not None

    def with_frame(self, index: int, limits: Limits) -> tuple[Any, int]:
        """A dataset that holds at least this frame, and the frame's index in it."""
        if self.deflated_pixels is None:
            return self.dataset, index
        return _inflated_frame(self.dataset, index, self.deflated_pixels, limits)


def looks_like_dicom(data: bytes) -> bool:
    """Whether bytes are a DICOM file, or plausibly one that lost its preamble."""
    if data[_PREAMBLE : _PREAMBLE + 4] == _MAGIC:
        return True
    if len(data) < 8:
        return False
    return any(_begins_with_element(data, order) for order in "<>")


def _begins_with_element(data: bytes, order: str) -> bool:
    group, _, vr, length = struct.unpack(f"{order}HH2s2x", data[:8]) + struct.unpack(
        f"{order}4xI", data[:8]
    )
    explicit = vr in (b"UL", b"CS", b"UI", b"OB", b"SH", b"DA")
    return group in _FIRST_GROUPS and (explicit or length <= len(data))


def read(data: bytes, limits: Limits) -> Any:
    """The dataset of a file; of a deflated one without its pixels. Raises as `opened` does."""
    return opened(data, limits).dataset


def opened(data: bytes, limits: Limits) -> DicomFile:
    """The file's dataset, pixels still encoded, with a transfer syntax in its meta information.

    Raises ImageTooLarge when the header of a deflated file inflates beyond the limit: pydicom alone
    would take hundreds of megabytes for a few kilobytes, even when told to stop before the pixels.
    """
    offset = _PREAMBLE + 4 if data[_PREAMBLE : _PREAMBLE + 4] == _MAGIC else 0
    stream = BytesIO(data)
    stream.seek(offset)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return _deflated(Inflating(memoryview(data)[stream.tell() :], limits), meta)
    limits.check_items(max(data.count(ITEM), data.count(_BIG_ENDIAN_ITEM)))
    dataset = dcmread(BytesIO(data), force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = _guessed_syntax(dataset)
    return DicomFile(dataset)


def _deflated(stream: Inflating, meta: Any) -> DicomFile:
    """What comes before the pixels, and the way to them."""
    header = read_dataset(
        stream, False, True, stop_when=lambda tag, _vr, _length: tag >= min(_PIXEL_TAGS)
    )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(BytesIO(), header, file_meta=meta, is_implicit_VR=False)
    return DicomFile(dataset, stream if stream.has_more() else None)


def _inflated_frame(dataset: Any, index: int, stream: Inflating, limits: Limits) -> tuple[Any, int]:
    """A copy with the pixels of one frame; with those before it, where frames may share a byte."""
    group, element, vr = struct.unpack("<HH2s6x", stream.read(12))
    tag = group << 16 | element
    if tag not in _PIXEL_TAGS or vr not in _LONG_VALUES:
        raise UnreadableImage("the deflated DICOM file holds something else where its pixels start")
    shares_bytes = whole(dataset, "BitsAllocated") < 8
    held = FileDataset(BytesIO(), {}, file_meta=dataset.file_meta, is_implicit_VR=False)
    held.update(dataset)
    # Not `held.NumberOfFrames =`: that would change the element, which both datasets have.
    held.add_new("NumberOfFrames", "IS", index + 1 if shares_bytes else 1)
    length = get_expected_length(held)
    limits.check_frame_bytes(length)
    pixels = stream.take(0 if shares_bytes else index * length, length)
    held.add_new(tag, vr.decode(), pixels)
    return held, held.NumberOfFrames - 1


def _guessed_syntax(dataset: Any) -> Any:
    """The native transfer syntax that a file without file meta information was readable as."""
    is_implicit, is_little_endian = dataset.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian


def require_image(file: DicomFile) -> None:
    """Refuse what holds no image to diagnose, and name it as the standard does."""
    dataset = file.dataset
    name = standard_name(dataset.get("SOPClassUID"))
    thing = f"a DICOM '{name}'" if name else "the DICOM file"
    if dataset.get("SOPClassUID") in _NOT_AN_IMAGE:
        raise UnsupportedImage(f"{thing} is not an image that can be diagnosed")
    if is_ours(dataset):
        raise OwnResult("the DICOM file was written by this project: it is no new image")
    if not file.has_pixels:
        cut = ", or ends before them" if "Rows" in dataset else ""
        raise UnsupportedImage(f"{thing} holds no pixels{cut}")
    if not whole(dataset, "Rows") or not whole(dataset, "Columns"):
        raise UnreadableImage(f"{thing} does not say how many rows and columns it has")


def is_ours(dataset: Any) -> bool:
    """Whether this project wrote an object: diagnosing it again would never end."""
    maker = (str(dataset.get("Manufacturer")), str(dataset.get("ManufacturerModelName")))
    return maker == (MANUFACTURER, MODEL)


def standard_name(uid: Any) -> str | None:
    """The name of a UID in PS3.6 annex A; None for any other, which a file is free to invent."""
    known = UID(str(uid or ""))
    return str(known.name) if known.name != str(known) else None


def whole(dataset: Any, keyword: str, default: int = 0) -> int:
    """A number, or the default where it is absent or empty; the first of several."""
    value = first(dataset.get(keyword))
    return default if value is None else int(value)


def first(value: Any) -> Any:
    """The first of a multi-valued attribute, the value of a single one, None of an empty one."""
    return next(iter(several(value)), None)


def several(value: Any) -> list[Any]:
    """The values of an attribute: none of an absent or empty one."""
    if isinstance(value, MutableSequence):
        return list(value)
    return [] if value is None or value == "" else [value]
