"""What survives of a DICOM file's attributes: an allow-list, and a pseudonym instead of a patient.

Dropping what is known to identify (PS3.15 Annex E) misses whatever a vendor put elsewhere, so
intake keeps only what is listed here, and of that only values that look as the standard says.
"""

import hmac
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")  # PS3.5 table 6.2-1, CS
_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")  # PS3.5 section 9.1
_UID_MAX = 64
_LONG_STRING = 64  # PS3.5 table 6.2-1, LO: what PatientID may be long


@dataclass(frozen=True, slots=True)
class DicomAttributes:
    """What a DICOM file says of its image and may be kept; None where it says nothing usable.

    Names are the standard's keywords; `sop_class` and `transfer_syntax` are standard names.
    """

    sop_class: str | None
    transfer_syntax: str | None
    modality: str | None
    body_part_examined: str | None
    view_position: str | None
    laterality: str | None
    presentation_intent_type: str | None
    burned_in_annotation: str | None
    photometric_interpretation: str | None
    rows: int
    columns: int
    bits_stored: int
    number_of_frames: int
    frame_number: int


@dataclass(frozen=True, slots=True)
class DicomReferences:
    """Which instance was read: kept apart, only to answer the PACS that sent it."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str


def pseudonym(key: bytes, patient: str | None) -> str | None:
    """The keyed hash (HMAC-SHA256, hexadecimal) that stands for a patient.

    None without a key: a plain hash of a short number is undone by trying all numbers.
    """
    if not key or not patient:
        return None
    return hmac.new(key, patient.encode(), sha256).hexdigest()


def patient_of(dataset: Any) -> str | None:
    """The identifier to make a pseudonym of: PatientID, else the study, as nobody has two of it."""
    text = str(dataset.get("PatientID") or "")[:_LONG_STRING]
    patient = "".join(letter for letter in text if letter.isprintable()).strip()
    return patient or _uid(dataset, "StudyInstanceUID")


def code_string(dataset: Any, keyword: str) -> str | None:
    """A coded value (VR CS) in capitals; None where free text, or several values, stand instead."""
    value = str(dataset.get(keyword) or "").strip().upper()
    return value if _CODE_STRING.fullmatch(value) else None


def references_of(dataset: Any) -> DicomReferences | None:
    """The instance's UIDs; None unless all of them are there and well-formed."""
    keywords = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
    uids = [_uid(dataset, keyword) for keyword in keywords]
    present = [uid for uid in uids if uid is not None]
    return DicomReferences(*present) if len(present) == len(keywords) else None


def is_uid(value: str) -> bool:
    """Whether a text is a well-formed unique identifier."""
    return len(value) <= _UID_MAX and _UID.fullmatch(value) is not None


def _uid(dataset: Any, keyword: str) -> str | None:
    value = str(dataset.get(keyword) or "").strip()
    return value if is_uid(value) else None
