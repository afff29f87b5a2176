"""Frames to look at: every grey level is there, and the first window shows what the models see."""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from builders import a_picture, png_bytes
from PIL import Image as Pillow
from pydicom.dataset import FileDataset

from service.errors import GscoError, UnreadableImage, UnsupportedImage
from service.intake import greyscale
from service.intake.decoder import decode, viewed
from service.intake.limits import Limits
from service.intake.sandbox import Sandbox
from service.intake.viewable import PADDING, Frame

FILES = sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm"))


def view(data: bytes, frame: int | None = None) -> Frame:
    return viewed(data, Limits(min_side=1), frame)


def seen(frame: Frame) -> np.ndarray:
    """What the first window makes of a frame."""
    first, values = frame.windows[0], frame.lowest + frame.step * frame.pixels.astype(float)
    grey = np.rint(greyscale.window(values, first.centre, first.width, first.function))
    grey = 255 - grey if frame.is_inverse else grey
    return np.where(frame.pixels == PADDING, 0, grey) if frame.is_grey else grey


def a_ct(**changes: object) -> bytes:
    """pydicom's CT of 128 × 128, with other attributes."""
    (path,) = (path for path in FILES if path.name == "CT_small.dcm")
    dataset, file = pydicom.dcmread(path), BytesIO()
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(file)
    return file.getvalue()


def stored(data: bytes) -> FileDataset:
    return pydicom.dcmread(BytesIO(data))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_first_window_shows_what_the_models_see(path: Path) -> None:
    data, limits = path.read_bytes(), Limits(min_side=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = decode(data, limits).image.pixels
        except GscoError as refusal:
            with pytest.raises(type(refusal)):
                view(data)
            return
        frame = view(data)

    if frame.height_to_width != 1:  # made square for the models
        assert expected.shape[:2] != frame.pixels.shape[:2]
        return
    shown = seen(frame)
    expected = expected[..., 0] if frame.is_grey else expected
    assert np.abs(shown - expected).max() <= 1  # quantised where 16 bits do not suffice


def test_values_are_those_of_the_file() -> None:
    data = a_ct(RescaleSlope="2", RescaleIntercept="-1000", WindowCenter="40", WindowWidth="400")
    frame = view(data)

    values = frame.lowest + frame.step * frame.pixels
    assert np.array_equal(values, stored(data).pixel_array * 2.0 - 1000)
    assert frame.unit == "HU"
    assert (frame.windows[0].centre, frame.windows[0].width) == (40, 400)


def test_all_windows_of_the_file_are_offered() -> None:
    frame = view(a_ct(WindowCenter=["40", "-600"], WindowWidth=["400", "1500"]))

    assert [(one.centre, one.width) for one in frame.windows] == [(40, 400), (-600, 1500)]


def test_padding_stays_black_when_low_values_are_bright() -> None:
    data = a_ct()
    least = int(stored(data).pixel_array.min())
    frame = view(a_ct(PixelPaddingValue=least, PhotometricInterpretation="MONOCHROME1"))

    assert frame.is_inverse
    assert (frame.pixels == PADDING).any()
    assert seen(frame)[frame.pixels == PADDING].max() == 0


def test_oblong_pixels_are_left_to_who_shows_them() -> None:
    frame = view(a_ct(PixelSpacing=["2", "1"]))

    assert frame.pixels.shape == (128, 128)
    assert frame.height_to_width == 2
    assert decode(a_ct(PixelSpacing=["2", "1"])).image.pixels.shape[:2] == (256, 128)


async def test_text_in_the_image_is_refused_where_the_operator_wants_it_so() -> None:
    sandbox = Sandbox(Limits(), refuse_text=True)
    await sandbox.start()
    try:
        with pytest.raises(UnsupportedImage, match="burned into"):
            await sandbox.view(a_ct(BurnedInAnnotation="YES"))
    finally:
        await sandbox.close()


def test_a_colour_picture_is_handed_over_as_it_is() -> None:
    pixels = a_picture()
    frame = view(png_bytes(pixels))

    assert np.array_equal(frame.pixels, pixels)
    assert (frame.number, frame.count, frame.unit) == (1, 1, "")


def test_grey_spelt_in_colours_becomes_grey() -> None:
    grey = a_picture()[..., :1].repeat(3, axis=2)
    assert view(png_bytes(grey)).is_grey


def test_pages_are_counted() -> None:
    pages, file = [Pillow.fromarray(a_picture(seed=seed)) for seed in range(3)], BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])

    frame = view(file.getvalue(), 2)

    assert (frame.number, frame.count) == (2, 3)
    assert np.array_equal(frame.pixels, a_picture(seed=1))
    with pytest.raises(UnsupportedImage, match="frames 1 to 3"):
        view(file.getvalue(), 4)


async def test_a_frame_survives_the_way_through_the_sandbox() -> None:
    sandbox = Sandbox(Limits())
    await sandbox.start()
    try:
        frames = [await sandbox.view(data) for data in (a_ct(), png_bytes())]
        with pytest.raises(UnreadableImage):
            await sandbox.view(b"nothing")
    finally:
        await sandbox.close()

    for frame, plain in zip(frames, (view(a_ct()), view(png_bytes())), strict=True):
        assert np.array_equal(frame.pixels, plain.pixels)
        assert (frame.windows, frame.lowest, frame.step) == (
            plain.windows,
            plain.lowest,
            plain.step,
        )
