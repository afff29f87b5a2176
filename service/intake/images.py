"""PNG, JPEG, WebP, BMP and TIFF become RGB pixels, or one clear refusal.

What Pillow would do in silence is done openly here: 16-bit grey is scaled by its real range (a
plain convert clips it to white), transparency is laid on black, EXIF orientation is applied.
"""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from service.errors import ImageTooLarge, UnreadableImage
from service.intake.limits import Limits, chosen_frame
from service.intake.result import Decoded
from specialists.prediction import Pixels

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
}
_FORMATS = tuple(MEDIA_TYPES)
_MPO = "MPO"  # several JPEG files in one, as telephones write them: Pillow opens it as JPEG
_ORIENTATION = 0x0112  # EXIF 2.32, table 4
_UPRIGHT = 1
_PNG_BIT_DEPTH = 24  # offset of IHDR's bit depth, PNG specification 11.2.2
_DAMAGED = "the image is damaged or cut short"


def decode_image(data: bytes, limits: Limits, frame: int | None = None) -> Decoded:
    """The image in `data`, its format told by content.

    Of an animation or a file of several pages, `frame` (from 1) is used, by default the first.
    Raises UnreadableImage, ImageTooLarge or UnsupportedImage.
    """
    image = _opened(data)
    limits.check_size(*image.size)
    media_type = MEDIA_TYPES["JPEG" if image.format == _MPO else str(image.format)]
    frame_note = _seek(image, limits, frame)
    depth_note = _depth_note(data, image)
    _load(image)
    upright, orientation_note = _upright(image)
    pixels, colour_note = _rgb(upright)
    notes = (frame_note, depth_note, orientation_note, colour_note)
    return Decoded(pixels, media_type, tuple(note for note in notes if note))


def _opened(data: bytes) -> Pillow.Image:
    try:
        image = Pillow.open(BytesIO(data), formats=_FORMATS)
        if image.format == "PNG":  # decoding alone checks neither the checksums nor the end
            Pillow.open(BytesIO(data), formats=("PNG",)).verify()
    except Pillow.DecompressionBombError:
        problem: Exception = ImageTooLarge("the image declares more pixels than can be decoded")
    except UnidentifiedImageError:
        problem = UnreadableImage(
            "the file is none of DICOM, PNG, JPEG, WebP, BMP and TIFF, or its beginning is damaged"
        )
    except (OSError, SyntaxError, ValueError):
        problem = UnreadableImage(_DAMAGED)
    else:
        return image
    raise problem


def _seek(image: Pillow.Image, limits: Limits, frame: int | None) -> str:
    """Turn to the frame to be used; a note where there was a choice."""
    count = getattr(image, "n_frames", 1)
    limits.check_frames(count)
    number = chosen_frame(frame, count, default=1)
    image.seek(number - 1)
    limits.check_size(*image.size)  # the pages of a TIFF differ in size
    return f"Frame {number} of {count} was used." if count > 1 else ""


def _depth_note(data: bytes, image: Pillow.Image) -> str:
    """Pillow keeps 16 bits of a grey PNG only; of colour it takes the upper eight."""
    deep = image.format == "PNG" and data[_PNG_BIT_DEPTH] == 16 and not _is_deep(image)
    return "Of 16 bits per colour the upper 8 were used." if deep else ""


def _load(image: Pillow.Image) -> None:
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError):
        damaged = True
    else:
        damaged = False
    if damaged:
        raise UnreadableImage(_DAMAGED)


def _upright(image: Pillow.Image) -> tuple[Pillow.Image, str]:
    if image.getexif().get(_ORIENTATION, _UPRIGHT) in range(2, 9):
        return ImageOps.exif_transpose(image), "The image was turned upright as its EXIF data say."
    return image, ""


def _rgb(image: Pillow.Image) -> tuple[Pixels, str]:
    if _is_deep(image):
        return _from_deep_grey(_black_is_zero(np.asarray(image), image))
    if image.has_transparency_data:
        return _from_transparent(image.convert("RGBA"))
    return np.array(image.convert("RGB")), ""


def _black_is_zero(values: NDArray[np.generic], image: Pillow.Image) -> NDArray[np.generic]:
    """Pillow inverts WhiteIsZero at 8 bits and forgets to at 16 (TIFF 6.0, tag 262)."""
    is_white_zero = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0
    return np.asarray(values.max() - values) if is_white_zero else values


def _is_deep(image: Pillow.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _from_deep_grey(values: NDArray[np.generic]) -> tuple[Pixels, str]:
    grey = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(grey.min()), float(grey.max())
    scaled = (grey - low) * (255.0 / ((high - low) or 1.0))
    pixels = np.repeat(np.rint(scaled).astype(np.uint8)[..., None], 3, axis=2)
    return pixels, f"Grey values {low:g} to {high:g} were scaled to 0 to 255."


def _from_transparent(image: Pillow.Image) -> tuple[Pixels, str]:
    if image.getchannel("A").getextrema() == (255, 255):
        return np.array(image.convert("RGB")), ""
    black = Pillow.new("RGBA", image.size, (0, 0, 0, 255))
    flat = Pillow.alpha_composite(black, image).convert("RGB")
    return np.array(flat), "Transparent parts were laid on black."
