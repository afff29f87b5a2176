"""A DICOM file (PS3.10) becomes a dataset, without trusting what it says of its own size."""

import struct
import zlib
from collections.abc import MutableSequence
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RTDoseStorage,
    SegmentationStorage,
)

from service.errors import ImageTooLarge, UnreadableImage, UnsupportedImage
from service.intake.limits import Limits

_PREAMBLE = 128
_MAGIC = b"DICM"
_FIRST_GROUPS = (0x0002, 0x0008)
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# These have pixels, but mark or dose another image: a diagnosis of them would mean nothing.
_LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
_NOT_AN_IMAGE = (SegmentationStorage, RTDoseStorage, _LABEL_MAP_SEGMENTATION)
_GREYSCALE = (
    "PhotometricInterpretation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
)
_FUNCTIONAL_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


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
    """The dataset, pixels still encoded, with a transfer syntax in its file meta information.

    Raises ImageTooLarge when a deflated file inflates beyond the limit: pydicom alone would take
    hundreds of megabytes for a few kilobytes, even when told to stop before the pixels.
    """
    offset = _PREAMBLE + 4 if data[_PREAMBLE : _PREAMBLE + 4] == _MAGIC else 0
    stream = BytesIO(data)
    stream.seek(offset)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        dataset = _inflated(data, stream.tell(), meta, limits)
    else:
        dataset = dcmread(BytesIO(data), force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = _guessed_syntax(dataset)
    return dataset


def _inflated(data: bytes, start: int, meta: Any, limits: Limits) -> Any:
    """The dataset of a deflated file (PS3.5 A.5), inflated no further than the limit."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    body = inflater.decompress(memoryview(data)[start:], limits.max_inflated_bytes + 1)
    if len(body) > limits.max_inflated_bytes:
        raise ImageTooLarge(
            f"the deflated DICOM file inflates to more than {limits.max_inflated_bytes} bytes"
        )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = read_dataset(BytesIO(body), False, True)
    return FileDataset(BytesIO(), dataset, file_meta=meta, is_implicit_VR=False)


def _guessed_syntax(dataset: Any) -> Any:
    """The native transfer syntax that a file without file meta information was readable as."""
    is_implicit, is_little_endian = dataset.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian


def require_image(dataset: Any) -> None:
    """Refuse what holds no image to diagnose, and name it as the standard does."""
    name = standard_name(dataset.get("SOPClassUID"))
    thing = f"a DICOM '{name}'" if name else "the DICOM file"
    if dataset.get("SOPClassUID") in _NOT_AN_IMAGE:
        raise UnsupportedImage(f"{thing} is not an image that can be diagnosed")
    if not any(keyword in dataset for keyword in _PIXELS):
        cut = ", or ends before them" if "Rows" in dataset else ""
        raise UnsupportedImage(f"{thing} holds no pixels{cut}")
    if not whole(dataset, "Rows") or not whole(dataset, "Columns"):
        raise UnreadableImage(f"{thing} does not say how many rows and columns it has")


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
    if isinstance(value, MutableSequence):
        return value[0] if value else None
    return None if value == "" else value


def greyscale_of_frame(dataset: Any, index: int) -> Any:
    """What turns one frame's stored values into grey, wherever the file keeps it.

    Enhanced objects keep it in functional groups, shared or per frame (PS3.3 C.7.6.16); the
    frame's own wins.
    """
    view = Dataset()
    _copy(dataset, view)
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    own = (dataset.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    for groups in (*shared, *own):
        for name in _FUNCTIONAL_GROUPS:
            for item in (groups.get(name) or [])[:1]:
                _copy(item, view)
    if "PixelData" not in dataset and view.get("VOILUTFunction", "LINEAR") == "LINEAR":
        # LINEAR counts in whole steps: on floating point pixels it would make a threshold.
        view.VOILUTFunction = "LINEAR_EXACT"
    return view


def _copy(source: Any, view: Any) -> None:
    for keyword in _GREYSCALE:
        if keyword in source:
            view.add(source[keyword])
