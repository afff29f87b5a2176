"""Ordinary image files: what is used of them, and what is refused."""

import os
import struct
import zlib
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from service.errors import ImageTooLarge, InvalidInput, UnreadableImage, UnsupportedImage
from service.intake.decoder import decode
from service.intake.limits import Limits

DATA = Path(os.environ.get("GSCO_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def encoded(array: Any, form: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    image = array if isinstance(array, Pillow.Image) else Pillow.fromarray(np.asarray(array))
    stream = BytesIO()
    (image.convert(mode) if mode else image).save(stream, form, **options)
    return stream.getvalue()


def gradient(height: int = 32, width: int = 48) -> np.ndarray:
    return np.linspace(0, 255, height * width).reshape(height, width).astype(np.uint8)


def hand_made_png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG whose header says anything at all."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def refusal(data: bytes, limits: Limits | None = None) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        decode(data, limits or Limits())
    return caught.value


@pytest.mark.parametrize(
    ("form", "media_type"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("WEBP", "image/webp"),
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff"),
    ],
)
def test_format_is_told_by_content(form: str, media_type: str) -> None:
    data = encoded(gradient(), form)

    image = decode(data).image

    assert image.media_type == media_type
    assert image.pixels.shape == (32, 48, 3)
    assert image.pixels.dtype == np.uint8
    assert image.sha256 == sha256(data).hexdigest()
    assert image.notes == ()


def test_lossless_grey_keeps_every_value() -> None:
    pixels = decode(encoded(gradient())).image.pixels

    assert all(np.array_equal(pixels[..., channel], gradient()) for channel in range(3))


def test_declared_size_is_refused_before_anything_is_decoded() -> None:
    error = refusal(hand_made_png(20_000, 20_000, 8, 0, rows=bytes(100)))

    assert isinstance(error, ImageTooLarge)


def test_limit_of_pixels_is_a_setting() -> None:
    error = refusal(encoded(gradient(100, 100)), Limits(max_pixels=9_999))

    assert isinstance(error, ImageTooLarge)
    assert "100 × 100" in str(error)


def test_too_many_bytes_are_refused_unread() -> None:
    assert isinstance(refusal(b"\0" * 101, Limits(max_bytes=100)), ImageTooLarge)


@pytest.mark.parametrize("shape", [(1, 1), (15, 200), (200, 15)])
def test_image_too_small_to_show_anything_is_refused(shape: tuple[int, int]) -> None:
    error = refusal(encoded(np.zeros(shape, np.uint8)))

    assert isinstance(error, UnsupportedImage)
    assert "at least 16" in str(error)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9])
def test_truncated_file_is_refused_and_never_half_decoded(form: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encoded(noise, form)

    assert isinstance(refusal(data[: int(len(data) * kept)]), UnreadableImage)


def test_png_without_its_end_is_refused() -> None:
    assert isinstance(refusal(encoded(gradient())[:-12]), UnreadableImage)


def test_png_with_a_flipped_bit_is_refused() -> None:
    data = bytearray(encoded(gradient()))
    data[len(data) // 2] ^= 1

    assert isinstance(refusal(bytes(data)), UnreadableImage)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\0" * 4096, b"<svg></svg>", b"GIF89a" + b"\0" * 99]
)
def test_anything_else_is_refused_in_one_sentence(data: bytes) -> None:
    error = refusal(data)

    assert isinstance(error, UnreadableImage)
    assert "none of DICOM, PNG" in str(error)


@pytest.mark.parametrize("highest", [4095, 65_535])
def test_deep_grey_is_scaled_by_its_real_range_and_said(highest: int) -> None:
    deep = np.linspace(0, highest, 32 * 32).reshape(32, 32).astype(np.uint16)

    image = decode(encoded(deep)).image

    assert np.abs(image.pixels[..., 0] - deep * (255 / highest)).max() <= 0.5
    assert image.notes == (f"Grey values 0 to {highest} were scaled to 0 to 255.",)


def test_floating_point_grey_survives_what_is_no_number() -> None:
    deep = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32)
    deep[0, 0] = np.nan

    pixels = decode(encoded(deep, "TIFF")).image.pixels

    assert (pixels[0, 0, 0], pixels[-1, -1, 0]) == (0, 255)


def test_constant_deep_grey_is_black() -> None:
    assert decode(encoded(np.full((32, 32), 700, np.uint16))).image.pixels.max() == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_black_and_said(mode: str) -> None:
    white = Pillow.new(mode, (32, 32), (255,) * len(mode))
    white.putpixel((0, 0), (255,) * (len(mode) - 1) + (0,))

    image = decode(encoded(white)).image

    assert image.pixels[0, 0].tolist() == [0, 0, 0]
    assert image.pixels[1, 1].tolist() == [255, 255, 255]
    assert image.notes == ("Transparent parts were laid on black.",)


def test_opaque_alpha_is_not_worth_a_note() -> None:
    assert decode(encoded(gradient(), mode="RGBA")).image.notes == ()


def test_palette_and_cmyk_become_rgb() -> None:
    red = Pillow.new("RGB", (32, 32), (255, 0, 0))

    palette = decode(encoded(red, mode="P")).image.pixels
    cmyk = decode(encoded(red, "TIFF", mode="CMYK")).image.pixels

    assert palette[5, 5].tolist() == cmyk[5, 5].tolist() == [255, 0, 0]


def test_transparent_palette_is_laid_on_black() -> None:
    picture = Pillow.new("P", (32, 32), 1)
    picture.putpalette([255, 255, 255, 0, 255, 0])
    picture.putpixel((0, 0), 0)

    pixels = decode(encoded(picture, transparency=0)).image.pixels

    assert (pixels[0, 0].tolist(), pixels[1, 1].tolist()) == ([0, 0, 0], [0, 255, 0])


def test_exif_orientation_is_applied_and_said() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    lying = np.zeros((32, 48), np.uint8)
    lying[:, :24] = 255  # the left half, which is the top when upright

    image = decode(encoded(lying, "JPEG", exif=exif, quality=95)).image

    assert image.pixels.shape == (48, 32, 3)
    assert image.pixels[:20].min() > 200 > 55 > image.pixels[28:].max()
    assert image.notes == ("The image was turned upright as its EXIF data say.",)


@pytest.mark.parametrize(("frame", "value"), [(None, 10), (1, 10), (3, 30)])
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_of_several_frames_one_is_used_and_said(form: str, frame: int | None, value: int) -> None:
    first, *others = (Pillow.new("L", (32, 32), shade) for shade in (10, 20, 30))
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(first, form, save_all=True, append_images=others, **options)

    image = decode(data, frame=frame).image

    assert image.pixels[0, 0, 0] == value
    assert image.notes == (f"Frame {frame or 1} of 3 was used.",)


def test_frame_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnsupportedImage, match="frame 2 was asked for: the file has frames 1 to 1"):
        decode(encoded(gradient()), frame=2)


def test_deep_colour_loses_its_lower_bits_and_says_so() -> None:
    rows = (b"\0" + struct.pack(">HHH", 0x1234, 0x5678, 0x9ABC) * 16) * 16

    image = decode(hand_made_png(16, 16, 16, 2, rows)).image

    assert image.pixels[0, 0].tolist() == [0x12, 0x56, 0x9A]
    assert image.notes == ("Of 16 bits per colour the upper 8 were used.",)


def test_damaged_exif_is_no_reason_to_refuse_the_image() -> None:
    data = encoded(gradient(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)

    assert decode(data).image.pixels.shape == (32, 48, 3)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_beginning_alone_is_refused(form: str) -> None:
    assert isinstance(refusal(encoded(gradient(), form)[:7]), UnreadableImage)


def test_real_radiographs_decode() -> None:
    folder = DATA / "cxr_kermany" / "images" / "test"
    if not folder.is_dir():
        pytest.skip("no real images: set GSCO_TEST_DATA to the folder that holds cxr_kermany")

    for path in sorted(folder.glob("*/*.jpg"))[::60]:
        image = decode(path.read_bytes()).image
        assert image.pixels.shape == (224, 224, 3)
        assert image.pixels.std() > 10


def test_white_is_zero_is_inverted_at_sixteen_bits_too() -> None:
    ramp = np.linspace(0, 63_000, 32 * 32).astype(np.uint16).reshape(32, 32)
    octets = BytesIO()
    Pillow.fromarray(ramp).save(octets, "TIFF", tiffinfo={262: 0})

    pixels = decode(octets.getvalue()).image.pixels

    assert pixels[0, 0, 0] == 255
    assert pixels[-1, -1, 0] == 0
