"""A DICOM file becomes RGB pixels of one frame, or one clear refusal.

Sizes are checked as declared, in the header and in the compressed frame, before anything is
decoded; of many frames only the one wanted is decoded.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import get_frame
from pydicom.pixels import apply_color_lut, get_decoder

from service.errors import UnreadableImage, UnsupportedImage
from service.intake import greyscale
from service.intake.codestream import declared_size
from service.intake.dataset import greyscale_of_frame, read, require_image, standard_name, whole
from service.intake.deidentify import DicomAttributes, code_string, patient_of, references_of
from service.intake.limits import Limits, chosen_frame
from service.intake.result import Decoded
from specialists.prediction import Pixels

MEDIA_TYPE = "application/dicom"
_COLOURS = (3, 4)


def decode_dicom(data: bytes, limits: Limits, frame: int | None = None) -> Decoded:
    """One frame of a DICOM file as it is meant to be seen.

    `frame` counts from 1, as DICOM's frame numbers do (PS3.3 C.7.6.16); by default the middle one.
    Raises UnreadableImage, ImageTooLarge or UnsupportedImage.
    """
    dataset = read(data, limits)
    require_image(dataset)
    attributes = _attributes(dataset, limits, frame)
    stored, photometric = _decoded_frame(dataset, attributes.frame_number - 1, limits)
    pixels, note = _rgb(stored, photometric, dataset, attributes)
    return Decoded(
        pixels,
        MEDIA_TYPE,
        _notes(attributes, note),
        attributes,
        references_of(dataset),
        patient_of(dataset),
    )


def _attributes(dataset: Any, limits: Limits, frame: int | None) -> DicomAttributes:
    """The attributes that are kept, after the sizes among them passed the limits."""
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    limits.check_size(columns, rows)
    frames = whole(dataset, "NumberOfFrames", 1) or 1
    limits.check_frames(frames)
    return DicomAttributes(
        sop_class=standard_name(dataset.get("SOPClassUID")),
        transfer_syntax=standard_name(dataset.file_meta.TransferSyntaxUID),
        modality=code_string(dataset, "Modality"),
        body_part_examined=code_string(dataset, "BodyPartExamined"),
        view_position=code_string(dataset, "ViewPosition"),
        laterality=code_string(dataset, "ImageLaterality") or code_string(dataset, "Laterality"),
        presentation_intent_type=code_string(dataset, "PresentationIntentType"),
        burned_in_annotation=code_string(dataset, "BurnedInAnnotation"),
        photometric_interpretation=code_string(dataset, "PhotometricInterpretation"),
        rows=rows,
        columns=columns,
        bits_stored=whole(dataset, "BitsStored") or whole(dataset, "BitsAllocated"),
        number_of_frames=frames,
        frame_number=chosen_frame(frame, frames, default=(frames + 1) // 2),
    )


def _decoded_frame(dataset: Any, index: int, limits: Limits) -> tuple[NDArray[Any], str]:
    """Stored values of one frame, and the photometric interpretation they are in after decoding."""
    syntax = dataset.file_meta.TransferSyntaxUID
    name = standard_name(syntax) or "a transfer syntax outside the standard"
    if not _is_decodable(syntax):
        raise UnsupportedImage(f"pixels encoded as {name} cannot be decoded here")
    _check_codestream(dataset, index, limits)
    try:
        stored, properties = get_decoder(syntax).as_array(dataset, index=index)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - every decoder has its own errors, and they quote the file
        damaged = True
    else:
        damaged = False
    if damaged:
        raise UnreadableImage(f"the pixels, encoded as {name}, are cut short, damaged or unusual")
    native = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("="))
    return native, str(properties["photometric_interpretation"])


def _is_decodable(syntax: Any) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _check_codestream(dataset: Any, index: int, limits: Limits) -> None:
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    frames = whole(dataset, "NumberOfFrames", 1) or 1
    size = declared_size(get_frame(dataset.PixelData, index, number_of_frames=frames))
    if size is not None:
        limits.check_size(*size)


def _rgb(
    stored: NDArray[Any], photometric: str, dataset: Any, attributes: DicomAttributes
) -> tuple[Pixels, str]:
    """Pixels for the screen by photometric interpretation (PS3.3 C.7.6.3.1.2), and a note."""
    if photometric in ("MONOCHROME1", "MONOCHROME2") and stored.ndim == 2:
        view = greyscale_of_frame(dataset, attributes.frame_number - 1)
        grey, note = greyscale.rendered(
            stored, view, bits=attributes.bits_stored, big_endian=_is_big_endian(dataset)
        )
        return np.repeat(grey[..., None], 3, axis=2), note
    if photometric == "PALETTE COLOR" and stored.ndim == 2:
        return _from_palette(stored, dataset), ""
    if photometric == "RGB" and stored.ndim == 3 and stored.shape[2] in _COLOURS:
        return _eight_bits(stored, attributes.bits_stored), ""
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


def _notes(attributes: DicomAttributes, rendering: str) -> tuple[str, ...]:
    """What intake chose, and what the reader of the image should know."""
    number, count = attributes.frame_number, attributes.number_of_frames
    notes = (
        f"Frame {number} of {count} was used." if count > 1 else "",
        rendering,
        "Text is burned into the image and may name the patient."
        if attributes.burned_in_annotation == "YES"
        else "",
        "The image was acquired for processing, not for presentation."
        if attributes.presentation_intent_type == "FOR PROCESSING"
        else "",
    )
    return tuple(note for note in notes if note)
