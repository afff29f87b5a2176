"""A DICOM file becomes RGB pixels of one frame, or one clear refusal.

Sizes are checked as declared, in the header and in the compressed frame, before anything is
decoded; of many frames only the one wanted is decoded.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import get_frame
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.uid import JPEGExtended12Bit

from service.errors import UnreadableImage, UnsupportedImage
from service.intake import geometry, greyscale
from service.intake.burned_in import has_text
from service.intake.codestream import declared_size
from service.intake.dataset import DicomFile, opened, require_image, standard_name, whole
from service.intake.deidentify import (
    DicomAttributes,
    anatomic_regions,
    code_string,
    defined_term,
    patient_of,
    procedure_codes,
    references_of,
)
from service.intake.frames import default_frame, frame_view
from service.intake.geometry import Spacing
from service.intake.header import header_of
from service.intake.limits import Limits, chosen_frame
from service.intake.result import Decoded
from specialists.prediction import Pixels

MEDIA_TYPE = "application/dicom"
_COLOURS = (3, 4)
_EIGHT_BITS = 8
_BURNED_IN = "Text is burned into the image and may name the patient."
_SEEMS_BURNED_IN = "Something like burned-in text is in the image: it may name the patient."


@dataclass(frozen=True, slots=True, eq=False)
class StoredFrame:
    """Stored values of one frame; `photometric` is what they are in after decoding.

    `held` is the dataset that holds its pixels, `view` what the file says of just this frame.
    """

    values: NDArray[Any]
    photometric: str
    dataset: Any
    held: Any
    view: Any
    spacing: Spacing | None
    attributes: DicomAttributes

    @property
    def is_big_endian(self) -> bool:
        return _is_big_endian(self.held)


def decode_dicom(data: bytes, limits: Limits, frame: int | None = None) -> Decoded:
    """One frame of a DICOM file as it is meant to be seen, with square pixels.

    `frame` counts from 1, as DICOM's frame numbers do (PS3.3 C.7.6.16); by default the
    representative one (`frames.default_frame`).
    Raises UnreadableImage, ImageTooLarge or UnsupportedImage.
    """
    stored = stored_frame(data, limits, frame)
    shown, grey_note = rgb(stored)
    ratio = geometry.height_to_width(stored.view, stored.spacing)
    pixels, shape_note = geometry.made_square(shown, ratio, limits)
    return Decoded(
        pixels,
        MEDIA_TYPE,
        notes(stored.attributes, grey_note, shape_note),
        cautions(stored.attributes, pixels),
        attributes=stored.attributes,
        references=references_of(stored.dataset),
        patient=patient_of(stored.dataset),
        header=header_of(stored.dataset),
    )


def stored_frame(data: bytes, limits: Limits, frame: int | None = None) -> StoredFrame:
    """One frame as the file stores it; raises as `decode_dicom` does."""
    file = opened(data, limits)
    require_image(file)
    number = _checked_frame(file.dataset, limits, frame)
    held, place = file.with_frame(number - 1, limits)
    view = frame_view(file.dataset, number - 1, floating="PixelData" not in held)
    spacing = geometry.spacing_of(view)
    attributes = _attributes(file, number, spacing)
    values, photometric = _decoded_frame(held, place, limits)
    return StoredFrame(values, photometric, file.dataset, held, view, spacing, attributes)


def is_grey(stored: StoredFrame) -> bool:
    """Whether its values are grey levels, before or after a window."""
    monochrome = stored.photometric in ("MONOCHROME1", "MONOCHROME2")
    return monochrome and stored.values.ndim == 2


def _checked_frame(dataset: Any, limits: Limits, frame: int | None) -> int:
    """The number of the frame to decode, after the sizes that the header declares were checked."""
    limits.check_size(whole(dataset, "Columns"), whole(dataset, "Rows"))
    count = _frames(dataset)
    limits.check_frames(count)
    return chosen_frame(frame, count, default=default_frame(dataset, count))


def _frames(dataset: Any) -> int:
    return whole(dataset, "NumberOfFrames", 1) or 1


def _attributes(file: DicomFile, number: int, spacing: Spacing | None) -> DicomAttributes:
    """The attributes that are kept."""
    dataset = file.dataset
    return DicomAttributes(
        sop_class=standard_name(dataset.get("SOPClassUID")),
        transfer_syntax=standard_name(dataset.file_meta.TransferSyntaxUID),
        modality=defined_term(dataset, "Modality"),
        body_part_examined=code_string(dataset, "BodyPartExamined"),
        anatomic_regions=anatomic_regions(dataset),
        procedure_codes=procedure_codes(dataset),
        presentation_intent_type=defined_term(dataset, "PresentationIntentType"),
        burned_in_annotation=defined_term(dataset, "BurnedInAnnotation"),
        photometric_interpretation=defined_term(dataset, "PhotometricInterpretation"),
        rows=whole(dataset, "Rows"),
        columns=whole(dataset, "Columns"),
        bits_stored=whole(dataset, "BitsStored") or whole(dataset, "BitsAllocated"),
        number_of_frames=_frames(dataset),
        frame_number=number,
        pixel_spacing_mm=(spacing.rows_mm, spacing.columns_mm) if spacing else None,
        pixel_spacing_from=spacing.keyword if spacing else None,
    )


def _decoded_frame(dataset: Any, index: int, limits: Limits) -> tuple[NDArray[Any], str]:
    """Stored values of one frame, and the photometric interpretation they are in after decoding."""
    syntax = dataset.file_meta.TransferSyntaxUID
    name = standard_name(syntax) or "a transfer syntax outside the standard"
    _require_decodable(dataset, syntax, name)
    _check_codestream(dataset, index, limits)
    try:
        stored, properties = get_decoder(syntax).as_array(dataset, index=index)
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - every decoder has its own; a panic of Rust is no Exception
        damaged = True
    else:
        damaged = False
    if damaged:
        raise UnreadableImage(f"the pixels, encoded as {name}, are cut short, damaged or unusual")
    native = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("="))
    return native, str(properties["photometric_interpretation"])


def _require_decodable(dataset: Any, syntax: Any, name: str) -> None:
    """Refuse what no decoder here can read, before any of them makes something else of it."""
    if not is_decodable(syntax):
        raise UnsupportedImage(f"pixels encoded as {name} cannot be decoded here")
    bits = whole(dataset, "BitsStored")
    if syntax == JPEGExtended12Bit and bits > _EIGHT_BITS and not _has_libjpeg(syntax):
        raise UnsupportedImage(
            f"pixels of {bits} bits encoded as {name} need the package pylibjpeg-libjpeg (GPL-3)"
        )
    high = whole(dataset, "HighBit", bits - 1)
    if bits and high != bits - 1:  # PS3.5 section 8.1.1; decoders would take the wrong bits
        raise UnsupportedImage(f"the file stores {bits} bits below bit {high + 1} of each pixel")


def _has_libjpeg(syntax: Any) -> bool:
    return "pylibjpeg" in get_decoder(syntax).available_plugins


def is_decodable(syntax: Any) -> bool:
    """Whether a decoder for these pixels is installed."""
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _check_codestream(dataset: Any, index: int, limits: Limits) -> None:
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    frames = _frames(dataset)
    size = declared_size(get_frame(dataset.PixelData, index, number_of_frames=frames))
    if size is not None:
        limits.check_size(*size)


def rgb(stored: StoredFrame) -> tuple[Pixels, str]:
    """Pixels for the screen by photometric interpretation (PS3.3 C.7.6.3.1.2), and a note."""
    values, bits = stored.values, stored.attributes.bits_stored
    if is_grey(stored):
        big_endian = stored.is_big_endian
        grey, note = greyscale.rendered(values, stored.view, bits=bits, big_endian=big_endian)
        return np.repeat(grey[..., None], 3, axis=2), note
    if stored.photometric == "PALETTE COLOR" and values.ndim == 2:
        return _from_palette(values, stored.held), ""
    if stored.photometric == "RGB" and values.ndim == 3 and values.shape[2] in _COLOURS:
        return _eight_bits(values, bits), ""
    raise UnsupportedImage("the photometric interpretation of the DICOM file is not supported")


def _from_palette(stored: NDArray[Any], dataset: Any) -> Pixels:
    """Colours of a palette (PS3.3 C.7.6.3.1.5); some 16-bit palettes hold only 8-bit values."""
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        colours = apply_color_lut(stored, dataset)
        return _eight_bits(colours, 16 if colours.max() > 255 else 8)
    channels = [
        greyscale.lookup(
            dataset[f"{colour}PaletteColorLookupTableDescriptor"].value,
            dataset[f"{colour}PaletteColorLookupTableData"].value,
            stored,
            big_endian=_is_big_endian(dataset),
        )
        for colour in ("Red", "Green", "Blue")
    ]
    colours = np.stack(channels, axis=-1)
    if _holds_eight_bits(dataset):
        colours = colours * (65535.0 / 255.0)
    pixels: Pixels = np.rint(colours * 255.0).clip(0, 255).astype(np.uint8)
    return pixels


def _holds_eight_bits(dataset: Any) -> bool:
    """Whether a palette of 16 bits an entry has no entry above 255."""
    if dataset["RedPaletteColorLookupTableDescriptor"].value[2] != 16:
        return False
    tables = [dataset[f"{c}PaletteColorLookupTableData"].value for c in ("Red", "Green", "Blue")]
    return all(isinstance(one, bytes) and not any(_high_octets(one, dataset)) for one in tables)


def _high_octets(table: bytes, dataset: Any) -> bytes:
    return table[0 if _is_big_endian(dataset) else 1 :: 2]


def _eight_bits(colours: NDArray[Any], bits: int) -> Pixels:
    upper: Pixels = (colours[..., :3] >> max(bits - 8, 0)).astype(np.uint8)
    return np.ascontiguousarray(upper)


def _is_big_endian(dataset: Any) -> bool:
    return not dataset.file_meta.TransferSyntaxUID.is_little_endian


def notes(attributes: DicomAttributes, *made: str) -> tuple[str, ...]:
    """What intake chose, and what the reader of the image should know."""
    number, count = attributes.frame_number, attributes.number_of_frames
    said = (
        f"Frame {number} of {count} was used." if count > 1 else "",
        *made,
        "The image was acquired for processing, not for presentation."
        if attributes.presentation_intent_type == "FOR PROCESSING"
        else "",
    )
    return tuple(note for note in said if note)


def cautions(attributes: DicomAttributes, pixels: Pixels) -> tuple[str, ...]:
    """Why a person must look; what the file says of burned-in text counts more than what it seems.

    PS3.3 C.7.6.1: BurnedInAnnotation says whether identifying text is in the pixels.
    """
    if attributes.burned_in_annotation == "YES":
        return (_BURNED_IN,)
    if attributes.burned_in_annotation != "NO" and has_text(pixels):
        return (_SEEMS_BURNED_IN,)
    return ()
