"""What a result must repeat of its source to land in the same study: kept in memory only.

These attributes name the patient. They go back to the PACS that sent them and nowhere else: no
log, prompt, database or reply holds them, and `repr` of what carries them does not show them.
"""

import json
from typing import Any

from pydicom.datadict import tag_for_keyword

Header = dict[str, Any]
"""Elements by tag, in the DICOM JSON model (PS3.18 annex F)."""

_KEYWORDS = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
    *("ReferringPhysicianName", "StudyDescription"),
    *("SeriesInstanceUID", "SeriesNumber", "Modality", "Laterality", "BodyPartExamined"),
    *("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "ImageLaterality", "PatientOrientation"),
    *("Rows", "Columns", "NumberOfFrames", "PixelSpacing", "ImagerPixelSpacing"),
    *("LossyImageCompression", "BurnedInAnnotation", "DeidentificationMethod"),
    *("TimezoneOffsetFromUTC", "FrameOfReferenceUID", "PositionReferenceIndicator"),
    *("SliceThickness", "ImagePositionPatient", "ImageOrientationPatient"),
)
_TAGS = frozenset(f"{tag_for_keyword(keyword):08X}" for keyword in _KEYWORDS)
_ELEMENT_MAX = 1024  # characters of one element; a name has at most 192 (PS3.5 section 6.2.1)


def header_of(dataset: Any) -> Header:
    """The attributes that a result repeats, those that can be read."""
    found = ((keyword, _element(dataset, keyword)) for keyword in _KEYWORDS)
    return {f"{tag_for_keyword(keyword):08X}": element for keyword, element in found if element}


def checked(header: Any) -> Header:
    """A header from a decode worker, which a hostile file may have taken over.

    Only listed tags of bounded size are let through; raises TypeError for anything else.
    """
    if not isinstance(header, dict) or not _TAGS.issuperset(header):
        raise TypeError("a header was expected")
    if not all(isinstance(one, dict) and _is_short(one) for one in header.values()):
        raise TypeError("an element of a header is not one, or too long")
    return header


def _element(dataset: Any, keyword: str) -> dict[str, Any] | None:
    try:
        element = dataset[keyword].to_json_dict(None, 0) if keyword in dataset else None
    except Exception:  # noqa: BLE001 - a value that cannot be read is one that cannot be repeated
        return None
    return element if element and _is_short(element) else None


def _is_short(element: dict[str, Any]) -> bool:
    return len(json.dumps(element, ensure_ascii=False)) <= _ELEMENT_MAX
