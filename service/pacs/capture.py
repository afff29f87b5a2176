"""Where a specialist looked, as a Secondary Capture: what every viewer shows.

The picture is the image with the heat over it, and below, outside the image, what it is and that
it is not for clinical use.
"""

from typing import Any

import highdicom as hd
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from service.pacs import document
from service.pacs.concepts import NOT_FOR_CLINICAL_USE, line
from service.pacs.content import Written, content_of
from service.pacs.source import Source, SourceImage
from specialists.overlay import enlarge, overlay, within
from specialists.prediction import Explanation, Pixels

LONGEST_SIDE = 1024
"""Pixels of the picture without its caption; a heat map is coarser by far."""

SHORTEST_CAPTION = 320  # pixels: narrower images are put on a wider ground
_SOURCE_FOR_PROCESSING = ("121322", "DCM", "Source Image for Image Processing Operation")


def capture(
    result: Written, source: Source, pixels: Pixels, explanation: Explanation, number: int = 1
) -> bytes:
    """One heat map over its image as a DICOM file; `number` counts those of one result from 1.

    `pixels` are the image as the specialist saw it, (height, width, 3) uint8 RGB.
    """
    content = content_of(result, None)
    who = document.identity(content, source, "capture", number)
    made: Any = hd.sc.SCImage(
        pixel_array=picture(pixels, explanation),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # replaced below: the library insists on one
        study_instance_uid=source.study_instance_uid,
        **who,
    )
    made.PatientOrientation = list(source.image.patient_orientation) if source.image else None
    at = document.moment(content.created_at, source)
    made.DateOfSecondaryCapture, made.TimeOfSecondaryCapture = at.date(), at.time()
    made.DerivationDescription = line(_description(explanation), 1024)
    made.ImageComments = NOT_FOR_CLINICAL_USE
    if source.image is not None:
        _refer(made, source.image)
    if "ImageLaterality" not in made:
        made.Laterality = None  # type 2C: unknown rather than unsaid
    return document.to_bytes(document.finish(made, content, source))


def picture(pixels: Pixels, explanation: Explanation) -> Pixels:
    """(height, width, 3) uint8 RGB: the image under its heat, and a caption below it."""
    shown = within(pixels, LONGEST_SIDE)
    covered = overlay(shown, enlarge(explanation.grid, *shown.shape[:2]))
    return _captioned(covered, _caption(explanation))


def _caption(explanation: Explanation) -> tuple[str, ...]:
    label = line(explanation.label, 40)
    if not label.isascii():  # the font would draw boxes
        label = "a label that only the report can name"
    return (
        NOT_FOR_CLINICAL_USE.upper(),
        f"GSCo: where {line(explanation.specialist, 24)} looked for",
        f"{label} ({explanation.probability:.2f})",
    )


def _description(explanation: Explanation) -> str:
    return (
        f"{NOT_FOR_CLINICAL_USE}: places that speak for {explanation.label!r} by "
        f"{explanation.specialist} (Grad-CAM on {explanation.layer}, weights sha256 "
        f"{explanation.weights_sha256})"
    )


def _captioned(image: Pixels, lines: tuple[str, ...]) -> Pixels:
    """Text below the image, so that it hides nothing."""
    width = max(image.shape[1], SHORTEST_CAPTION)
    size = max(14, width // 40)
    font = ImageFont.load_default(size)
    height = image.shape[0] + (len(lines) + 1) * round(1.3 * size)
    ground = Image.new("RGB", (width, height))
    ground.paste(Image.fromarray(image), ((width - image.shape[1]) // 2, 0))
    draw = ImageDraw.Draw(ground)
    for place, text in enumerate(lines):
        top = image.shape[0] + round((place + 0.5) * 1.3 * size)
        draw.text((size // 2, top), text, fill="white", font=font)
    return np.asarray(ground, dtype=np.uint8)


def _refer(made: Any, image: SourceImage) -> None:
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.references.sop_class_uid
    reference.ReferencedSOPInstanceUID = image.references.sop_instance_uid
    reference.PurposeOfReferenceCodeSequence = [hd.sr.CodedConcept(*_SOURCE_FOR_PROCESSING)]
    if image.frame_number is not None:
        reference.ReferencedFrameNumber = image.frame_number
    made.SourceImageSequence = [reference]
    if image.laterality:
        made.ImageLaterality = image.laterality
    if image.is_lossy:
        made.LossyImageCompression = "01"
    if image.burned_in_annotation in {"YES", "NO"}:
        made.BurnedInAnnotation = image.burned_in_annotation
