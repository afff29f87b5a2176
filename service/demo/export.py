"""Phantoms as files: PNG, DICOM and the npz layout of MedMNIST."""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    VLPhotographicImageStorage,
    generate_uid,
)

from service.demo import lesions
from service.demo.chest import MM_PER_UNIT
from service.demo.drawing import Phantom, derived_seed, kind_named, refuse, series
from service.demo.scanner import HOSPITAL_A, Scanner

FilePath = str | PathLike[str]

_SPLITS = ("train", "val", "test")
_EPOCH = "20000101"  # no phantom was ever examined


def write_png(phantom: Phantom, path: FilePath) -> None:
    """The pixels as an 8-bit PNG, grey or RGB."""
    with _replacing(path) as fresh:
        Image.fromarray(phantom.pixels).save(fresh, format="PNG")


def write_npz(
    kind: str,
    path: FilePath,
    train: int,
    val: int,
    test: int,
    seed: int = 0,
    size: int = 64,
    scanner: Scanner = HOSPITAL_A,
    test_scanner: Scanner | None = None,
) -> None:
    """A data set in the layout of MedMNIST: {train,val,test}_{images,labels}, all uint8.

    Images are (N, size, size) or (N, size, size, 3). Labels are (N, 1) indices into the kind's
    labels, or for "findings" (N, 4) 0/1 columns in the order of FINDINGS_LABELS.
    `test_scanner` takes the test images elsewhere: the domain shift of a second hospital.
    """
    known = kind_named(kind)
    arrays: dict[str, NDArray[np.uint8]] = {}
    for place, (split, count) in enumerate(zip(_SPLITS, (train, val, test), strict=True)):
        device = test_scanner if split == "test" and test_scanner else scanner
        phantoms = series(kind, count, derived_seed(kind, seed, place), size, device)
        shape = (count, size, size, 3) if known.colour else (count, size, size)
        images, labels = np.zeros(shape, np.uint8), []
        for number, phantom in enumerate(phantoms):
            images[number] = phantom.pixels
            labels.append(_encoded(phantom, known.labels, known.multi_label))
        width = len(known.labels) if known.multi_label else 1
        arrays[f"{split}_images"] = images
        arrays[f"{split}_labels"] = np.array(labels, np.uint8).reshape(count, width)
    with _replacing(path) as fresh, fresh.open("wb") as file:  # a name without .npz stays as it is
        np.savez_compressed(file, allow_pickle=False, **arrays)


def write_reports(folder: FilePath, train: int, test: int, seed: int = 0, size: int = 64) -> None:
    """Chest phantoms with their reports: images/*.png and an index.csv that names them."""
    images = Path(folder) / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    for place, (split, count) in enumerate((("train", train), ("test", test))):
        for number, phantom in enumerate(
            series("findings", count, derived_seed("findings", seed, place), size)
        ):
            name = f"{split}-{number}.png"
            write_png(phantom, images / name)
            rows.append({"image": f"images/{name}", "split": split, "report": phantom.report})
    _write_index(Path(folder), rows)


def write_masks(
    kind: str, folder: FilePath, train: int, val: int, test: int, seed: int = 0, size: int = 64
) -> None:
    """Phantoms with masks of their findings: images/*.png and an index.csv that names them.

    Raises ValueError for dermoscopy, as `lesions.mask` does.
    """
    images = Path(folder) / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    for place, (split, count) in enumerate(zip(_SPLITS, (train, val, test), strict=True)):
        for number, phantom in enumerate(
            series(kind, count, derived_seed(kind, seed, place), size)
        ):
            name, mask = f"images/{split}-{number}.png", f"images/{split}-{number}-mask.png"
            found = Image.fromarray(lesions.mask(phantom))
            write_png(phantom, Path(folder) / name)
            with _replacing(Path(folder) / mask) as fresh:
                found.save(fresh, format="PNG")
            labels = "|".join(phantom.labels)
            rows.append({"split": split, "image": name, "mask": mask, "label": labels})
    _write_index(Path(folder), rows)


def _write_index(folder: Path, rows: list[dict[str, str]]) -> None:
    with (
        _replacing(folder / "index.csv") as fresh,
        fresh.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, tuple(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _encoded(phantom: Phantom, labels: Iterable[str], multi_label: bool) -> list[int]:
    present = [int(label in phantom.labels) for label in labels]
    return present if multi_label else [present.index(1)]


def write_dicom(phantom: Phantom, path: FilePath, photometric: str = "MONOCHROME2") -> None:
    """A DICOM file with fresh UIDs and an obviously synthetic patient.

    A chest is a digital radiograph for presentation (PS3.3 A.26), MONOCHROME2 or, on request,
    MONOCHROME1; a colour phantom is a photograph (PS3.3 A.32.4), always RGB.
    Raises ValueError for any other photometric interpretation.
    """
    grey = phantom.pixels.ndim == 2
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        refuse(f"photometric interpretation {photometric!r} is neither MONOCHROME1 nor MONOCHROME2")
    if photometric == "MONOCHROME1" and not grey:
        refuse(f"a phantom of kind {phantom.kind!r} is in colour and cannot be MONOCHROME1")
    dataset = _radiograph(phantom, photometric) if grey else _photograph(phantom)
    with _replacing(path) as fresh:
        dataset.save_as(fresh, enforce_file_format=True)


@contextmanager
def _replacing(path: FilePath) -> Iterator[Path]:
    """A name to write to, which becomes `path` only once all is written."""
    fresh = Path(path).with_name(f"{Path(path).name}.part")
    if not fresh.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _radiograph(phantom: Phantom, photometric: str) -> Dataset:
    dataset = _study(phantom, DigitalXRayImageStorageForPresentation, "DX")
    inverse = photometric == "MONOCHROME1"
    pixels = 255 - phantom.pixels if inverse else phantom.pixels
    dataset.set_pixel_data(pixels, photometric, bits_stored=8)
    spacing = round(2 * MM_PER_UNIT / phantom.pixels.shape[0], 4)
    dataset.ImagerPixelSpacing = [spacing, spacing]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = Sequence([_code("51185008", "SCT", "Thorax")])
    dataset.ViewCodeSequence = Sequence([_code("399348003", "SCT", "postero-anterior")])
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = Sequence()
    dataset.AcquisitionContextSequence = Sequence()
    dataset.DetectorType = None
    dataset.PositionerType = None
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1 if inverse else -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    dataset.WindowCenter, dataset.WindowWidth = "128", "256"
    return dataset


def _photograph(phantom: Phantom) -> Dataset:
    dataset = _study(phantom, VLPhotographicImageStorage, "XC")
    dataset.set_pixel_data(phantom.pixels, "RGB", bits_stored=8)
    dataset.PatientOrientation = None
    dataset.AcquisitionContextSequence = Sequence()
    dataset.BodyPartExamined = "EYE" if phantom.kind == "fundus" else "SKIN"
    return dataset


def _study(phantom: Phantom, sop_class: UID, modality: str) -> Dataset:
    """Patient, study, series and image attributes that both sorts of file share."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientName = "Phantom^Synthetic"
    dataset.PatientID = f"PHANTOM-{phantom.kind}-{phantom.seed}"
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = dataset.AcquisitionDate = _EPOCH
    dataset.StudyTime = dataset.ContentTime = dataset.AcquisitionTime = "000000"
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", "1", "1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "", ""
    dataset.Modality, dataset.Manufacturer = modality, "GSCo phantoms"
    dataset.StudyDescription = "Synthetic phantom, not a patient"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.DerivationDescription = "Drawn by a computer program"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    return dataset


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
