"""A DICOM file with a marker wherever a file can say something in words: nothing may repeat it."""

from io import BytesIO

import numpy as np
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

MARKER = "ZZMARKERZZ"
NUMBER = "31415926"  # stands in integer strings and UIDs, where letters are not allowed
DATE, TIME = "19470811", "031415.926535"
UID_ROOT = f"1.2.{NUMBER}"
"""The UIDs of a seeded file; a PACS must get them back, nobody else may see them."""

MARKERS = (MARKER, NUMBER, DATE, TIME)
_FIXED = {  # without these, a file is no image that could be decoded
    "PhotometricInterpretation",
    "SpecificCharacterSet",
    "VOILUTFunction",
    "PixelPresentation",
    "Modality",
    "Manufacturer",
}
_TEXTS = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), MARKER),
    "AS": "031Y",
    "DA": DATE,
    "DT": f"{DATE}{TIME}",
    "TM": TIME,
    "UR": f"http://{MARKER}.example",
}
_NUMBERS = {"IS": NUMBER}


def seeded_dataset(side: int = 64, *, numbers: bool = True, **more: object) -> Dataset:
    """An image with the marker in every attribute of text, in sequences and private ones too."""
    dataset = _marked(numbers)
    item = _marked(numbers)
    dataset.RequestAttributesSequence = [item]
    dataset.OtherPatientIDsSequence = [item]
    private = dataset.private_block(0x0009, MARKER, create=True)
    private.add_new(0x01, "LO", MARKER)
    private.add_new(0x02, "UN", MARKER.encode())
    _image(dataset, side)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{UID_ROOT}.1", f"{UID_ROOT}.2"
    dataset.SOPInstanceUID = f"{UID_ROOT}.3"
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    return dataset


def seeded_file(side: int = 64, **more: object) -> bytes:
    """The same as a file, the marker in its preamble and meta information too."""
    dataset = seeded_dataset(side, **more)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.SourceApplicationEntityTitle = MARKER
    meta.ImplementationVersionName = MARKER
    dataset.file_meta = meta
    dataset.preamble = MARKER.encode().ljust(128, b"\0")
    stream = BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def _marked(numbers: bool) -> Dataset:
    dataset = Dataset()
    values = _TEXTS | (_NUMBERS if numbers else {})
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        is_data = tag >> 16 not in (0x0000, 0x0002, 0x7FE0)
        if vr in values and is_data and keyword and not retired and keyword not in _FIXED:
            dataset.add_new(tag, vr, values[vr])
    return dataset


def _image(dataset: Dataset, side: int) -> None:
    """Attributes that say how to decode, in place of those that were marked."""
    for keyword in ("NumberOfFrames", "PixelAspectRatio", "RepresentativeFrameNumber"):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.SOPClassUID, dataset.Modality = ComputedRadiographyImageStorage, "CR"
    dataset.Rows = dataset.Columns = side
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    dataset.PixelData = np.arange(side * side).astype(np.uint8).tobytes()
    dataset["PixelData"].VR = "OW"
