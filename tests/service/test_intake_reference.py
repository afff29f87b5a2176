"""DICOM files of pydicom's own collection: our pixels are those of the reference decoder.

The files that come with pydicom are always there; with GSCO_TEST_DATA, the folder that holds
`dicom`, so are all the others.
"""

import json
import logging
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi_lut,
    apply_windowing,
    pixel_array,
)

from service.errors import InvalidInput
from service.intake.dataset import read
from service.intake.decoder import decode
from service.intake.frames import frame_view
from service.intake.limits import Limits
from service.intake.result import IntakeResult

DATA = Path(os.environ.get("GSCO_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
SHIPPED = Path(str(get_testdata_file("CT_small.dcm", download=False))).parent
REFUSALS = {"UnreadableImage", "ImageTooLarge", "UnsupportedImage"}
SOUND = (
    *("CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_jp2klossless.dcm", "MR_small_RLE.dcm"),
    *("MR_small_jpeg_ls_lossless.dcm", "JPEG2000.dcm", "693_J2KI.dcm", "image_dfl.dcm"),
    *("examples_palette.dcm", "examples_ybr_color.dcm", "SC_ybr_full_422_uncompressed.dcm"),
    *("SC_rgb_rle_16bit_2frame.dcm", "SC_rgb_jpeg_dcmtk.dcm", "MR_small_implicit.dcm"),
    *("examples_overlay.dcm", "J2K_pixelrep_mismatch.dcm", "SC_rgb_gdcm_KY.dcm"),
)


@pytest.mark.parametrize("name", SOUND)
def test_pixels_are_those_of_the_reference_decoder(name: str) -> None:
    data = (SHIPPED / name).read_bytes()

    assert difference(data, decode(data)) <= 1


def test_every_shipped_file_gives_the_reference_pixels_or_a_named_refusal() -> None:
    outcomes = Counter(outcome(path) for path in sorted(SHIPPED.rglob("*.dcm")))

    assert set(outcomes) <= REFUSALS | {"the reference's pixels"}
    assert outcomes["the reference's pixels"] >= 44


def test_every_file_of_the_collection_gives_the_reference_pixels_or_a_named_refusal() -> None:
    folder = DATA / "dicom"
    if not (folder / "index.json").is_file():
        pytest.skip("no DICOM collection: set GSCO_TEST_DATA to the folder that holds dicom")
    names = [entry["file"] for entry in json.loads((folder / "index.json").read_text())]

    outcomes = Counter(outcome(folder / name) for name in names)

    assert set(outcomes) <= REFUSALS | {"the reference's pixels"}
    assert outcomes["the reference's pixels"] >= 124


def outcome(path: Path) -> str:
    data = path.read_bytes()
    try:
        result = decode(data)
    except InvalidInput as error:
        return type(error).__name__ if "\n" not in str(error) else "several lines"
    apart = difference(data, result)
    return "the reference's pixels" if apart <= 1 else f"{path.name} differs by {apart}"


def difference(data: bytes, result: IntakeResult) -> float:
    """By how many grey levels of 255 the two differ at most; 255 where their shapes differ."""
    assert result.attributes is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("pydicom").setLevel(logging.ERROR)
        expected = reference(data, result.attributes.frame_number - 1, result)
    shown = result.image.pixels
    expected = resized(expected, shown.shape)
    if expected.shape != shown.shape:
        return 255.0
    return float(np.abs(expected - shown).max())


def reference(data: bytes, index: int, result: IntakeResult) -> np.ndarray:
    """(rows, columns, 3) as pydicom's own functions make them, 0 to 255."""
    dataset = read(data, Limits())
    if dataset.get("PixelData") is None and result.attributes is not None:  # deflated
        dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(data))
    stored = pixel_array(dataset, index=index)
    if stored.ndim == 3:
        return (stored >> max(dataset.BitsStored - 8, 0)).astype(float)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(stored, dataset)
        return (colours >> 8 if colours.max() > 255 else colours).astype(float)
    grey = reference_grey(stored, dataset, index, result)
    return np.repeat(grey[..., None], 3, axis=2)


def reference_grey(
    stored: np.ndarray, dataset: Any, index: int, result: IntakeResult
) -> np.ndarray:
    view = frame_view(dataset, index, floating="PixelData" not in dataset)
    view.BitsStored = bits = dataset.get("BitsStored", dataset.BitsAllocated)
    view.PixelRepresentation = dataset.get("PixelRepresentation", 0)
    values = apply_modality_lut(stored, view).astype(float)
    spread = [note for note in result.image.notes if note.startswith("Without a usable window")]
    if spread:  # our own rule, there is no reference: values LOW to HIGH become 0 to 255
        words = spread[0].split()
        low, high = float(words[5]), float(words[7])
        shown = np.clip((values - low) / (high - low), 0, 1) * 255
    elif "VOILUTSequence" in view:
        shown = apply_voi_lut(values, view) / (2 ** view.VOILUTSequence[0].LUTDescriptor[2] - 1)
        shown = shown * 255
    elif "WindowCenter" in view:
        extremes = np.array([-1e9, 1e9])
        low, high = apply_windowing(extremes, view)
        shown = (apply_windowing(values, view) - low) / (high - low) * 255
    else:
        shown = values * 255 / (2**bits - 1)
    return 255 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


def resized(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Oblong pixels made square, as the reference decoder leaves to its caller."""
    from PIL import Image

    if pixels.shape == shape:
        return pixels
    image = Image.fromarray(pixels.astype(np.uint8))
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR), float)
