"""What survives of a DICOM file's attributes: an allow-list, and a pseudonym instead of a patient.

Dropping what is known to identify (PS3.15 Annex E) misses whatever a vendor put elsewhere, so
intake keeps only what is listed here, and of that only values from a closed list: text that a
file invents goes nowhere. Two kinds of values are open, codes and body parts; they choose the
task and are not told to anybody.
"""

import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

_MODALITIES = """
    ANN AR AS ASMT AU BDUS BI BMD CD CF CFM CP CR CS CT CTPROTOCOL DD DF DG DM DMS DOC DS DX EC ECG
    EEG EMG EOG EPS ES FA FID FS GM HC HD IO IOL IVOCT IVUS KER KO LEN LP LS M3D MA MG MR MS NM OAM
    OCT OP OPM OPR OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE
    RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SC SEG SM SMR SR SRF ST STAIN TEXTUREMAP
    TG US VA VF XA XAPROTOCOL XC
"""  # PS3.3 C.7.3.1.1.1, retired terms included
_PHOTOMETRIC = """
    MONOCHROME1 MONOCHROME2 RGB YBR_FULL YBR_FULL_422 YBR_PARTIAL_422 YBR_PARTIAL_420 YBR_ICT
    YBR_RCT XYB
"""  # PS3.3 C.7.6.3.1.2, with PALETTE COLOR
_TERMS = {
    "Modality": frozenset(_MODALITIES.split()),
    "PresentationIntentType": frozenset({"FOR PRESENTATION", "FOR PROCESSING"}),
    "BurnedInAnnotation": frozenset({"YES", "NO"}),
    "PhotometricInterpretation": frozenset({"PALETTE COLOR", *_PHOTOMETRIC.split()}),
}
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")  # PS3.5 table 6.2-1, CS
_CODE = re.compile(r"[A-Za-z0-9._^-]{1,16}")  # of a coding scheme, or one of its values
_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")  # PS3.5 section 9.1
_UID_MAX = 64
_LONG_STRING = 64  # PS3.5 table 6.2-1, LO: what PatientID may be long
_CODES_MAX = 16
_OF_REQUEST = ("RequestedProcedureCodeSequence", "ScheduledProtocolCodeSequence")
_OF_PROCEDURE = ("ProcedureCodeSequence", "PerformedProtocolCodeSequence", *_OF_REQUEST[:1])


@dataclass(frozen=True, slots=True)
class DicomAttributes:
    """What a DICOM file says of its image and may be kept; None where it says nothing usable.

    Names are the standard's keywords; `sop_class` and `transfer_syntax` are standard names. Codes
    read `scheme:value`. `pixel_spacing_from` is the attribute that `pixel_spacing_mm` (between
    rows, between columns) comes from: PixelSpacing holds in the patient, ImagerPixelSpacing at
    the detector.
    """

    sop_class: str | None
    transfer_syntax: str | None
    modality: str | None
    body_part_examined: str | None = field(repr=False)
    anatomic_regions: tuple[str, ...] = field(repr=False)
    procedure_codes: tuple[str, ...] = field(repr=False)
    presentation_intent_type: str | None
    burned_in_annotation: str | None
    photometric_interpretation: str | None
    rows: int
    columns: int
    bits_stored: int
    number_of_frames: int
    frame_number: int
    pixel_spacing_mm: tuple[float, float] | None
    pixel_spacing_from: str | None


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


def defined_term(dataset: Any, keyword: str) -> str | None:
    """A term that the standard lists for this attribute; None for anything else."""
    term = _text(dataset, keyword).upper()
    return term if term in _TERMS[keyword] else None


def code_string(dataset: Any, keyword: str) -> str | None:
    """A coded value (VR CS) in capitals; None where free text, or several values, stand instead."""
    value = _text(dataset, keyword).upper()
    return value if _CODE_STRING.fullmatch(value) else None


def anatomic_regions(dataset: Any) -> tuple[str, ...]:
    """The codes of AnatomicRegionSequence."""
    return tuple(_codes(dataset, "AnatomicRegionSequence"))[:_CODES_MAX]


def procedure_codes(dataset: Any) -> tuple[str, ...]:
    """The codes of the procedure and its protocol, as performed and as requested."""
    found = [code for keyword in _OF_PROCEDURE for code in _codes(dataset, keyword)]
    for request in (dataset.get("RequestAttributesSequence") or [])[:_CODES_MAX]:
        found += [code for keyword in _OF_REQUEST for code in _codes(request, keyword)]
    return tuple(dict.fromkeys(found))[:_CODES_MAX]


def _codes(dataset: Any, keyword: str) -> Iterator[str]:
    for item in (dataset.get(keyword) or [])[:_CODES_MAX]:
        scheme, value = _text(item, "CodingSchemeDesignator"), _text(item, "CodeValue")
        if _CODE.fullmatch(scheme) and _CODE.fullmatch(value):
            yield f"{scheme}:{value}"


def _text(dataset: Any, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip()


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
