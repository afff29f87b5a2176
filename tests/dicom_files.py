"""DICOM files for tests: of a patient with a name, as small as can be."""

from io import BytesIO
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

NAME = "Doe^Jane"
RAMP = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)


def dicom(
    pixels: np.ndarray | None = RAMP, syntax: str = ExplicitVRLittleEndian, **more: Any
) -> bytes:
    """A DICOM file of a patient with a name; keywords add to it, None takes away."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = "1.2.3.4.5", "1.2.3.4"
    dataset.StudyInstanceUID, dataset.Modality = "1.2.3", "CR"
    dataset.PatientName, dataset.PatientID = NAME, "4711"
    if pixels is not None:
        describe(dataset, pixels, bits=more.pop("bits", 8 * pixels.itemsize))
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    return written(dataset)


def describe(dataset: Dataset, pixels: np.ndarray, bits: int) -> None:
    colour = pixels.shape[-1] == 3
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * pixels.itemsize, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if colour:
        dataset.PlanarConfiguration = 0
    if pixels.ndim > 2 + colour:
        dataset.NumberOfFrames = len(pixels)
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"


def written(dataset: Dataset) -> bytes:
    stream = BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()
