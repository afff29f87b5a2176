"""Bytes become a frame to look at: before the window that the models see it through."""

from dataclasses import replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from service.intake import dicom, geometry, greyscale
from service.intake.deidentify import code_string
from service.intake.dicom import StoredFrame
from service.intake.images import decode_image
from service.intake.limits import Limits, chosen_frame
from service.intake.viewable import Frame, Window
from specialists.prediction import Pixels

AS_IT_IS = Window(127.5, 255.0, "LINEAR_EXACT")
"""Eight bits become themselves."""


def view_dicom(data: bytes, limits: Limits, frame: int | None = None) -> Frame:
    """One frame of a DICOM file with its measured values; raises as `decode_dicom` does.

    What a lookup table or a palette renders is handed over as rendered. Oblong pixels stay so:
    who shows them stretches them.
    """
    stored = dicom.stored_frame(data, limits, frame)
    rendered, note = dicom.rgb(stored)
    attributes = stored.attributes
    return replace(
        _measured(stored) or Frame(_reduced(rendered), (AS_IT_IS,)),
        height_to_width=geometry.usable(geometry.height_to_width(stored.view, stored.spacing)),
        modality=attributes.modality,
        number=attributes.frame_number,
        count=attributes.number_of_frames,
        notes=dicom.notes(attributes, note),
        cautions=dicom.cautions(attributes, rendered),
    )


def view_image(data: bytes, limits: Limits, frame: int | None = None) -> Frame:
    """One frame of any other image; raises as `decode_image` does."""
    decoded = decode_image(data, limits, frame)
    count = getattr(Pillow.open(BytesIO(data)), "n_frames", 1)
    number = chosen_frame(frame, count, default=1)
    shown = Frame(_reduced(decoded.pixels), (AS_IT_IS,), number=number, count=count)
    return replace(shown, notes=decoded.notes, cautions=decoded.cautions)


def _measured(stored: StoredFrame) -> Frame | None:
    if not dicom.is_grey(stored):
        return None
    view, bits = stored.view, stored.attributes.bits_stored
    found = greyscale.measured(stored.values, view, bits=bits, big_endian=stored.is_big_endian)
    if found is None:
        return None
    return Frame(
        pixels=found.units,
        windows=found.windows,
        lowest=found.lowest,
        step=found.step,
        unit=_unit(stored),
        is_inverse=view.get("PhotometricInterpretation") == "MONOCHROME1",
    )


def _unit(stored: StoredFrame) -> str:
    """HU where the file says so, or is a CT that does not say (PS3.3 C.8.2.1)."""
    said = code_string(stored.held, "RescaleType")
    is_ct = stored.attributes.modality == "CT"
    return "HU" if said == "HU" or (is_ct and said is None) else ""


def _reduced(pixels: Pixels) -> NDArray[np.uint16] | NDArray[np.uint8]:
    """Grey that is spelt in three equal colours becomes one."""
    if (pixels == pixels[..., :1]).all():
        return pixels[..., 0].astype(np.uint16)
    return pixels
