"""What results repeat of the object they are about: an allow-list of its attributes, cleaned.

A Source names the patient. It is made at the moment of writing, from the object itself, and is
kept nowhere; results written without it name nobody.
"""

import logging
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset

from service.errors import UnsupportedImage
from service.intake.dataset import first, looks_like_dicom, read
from service.intake.deidentify import DicomReferences, code_string, is_uid, references_of
from service.intake.header import Header
from service.intake.limits import Limits
from service.pacs.concepts import line
from service.pacs.uids import uid_of

WITHOUT_PATIENT = "GSCo: written without the patient's data"
LONGEST_IDENTIFIER = 256
"""Longer than DICOM allows: an identifier that is cut or tidied is another patient's."""

_DATE = re.compile(r"[0-9]{8}")  # strptime would guess at seven
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_OFFSET = re.compile(r"[+-](0\d|1[0-4])[0-5]\d")
_SEXES = ("M", "F", "O")
_ONE_AT_A_TIME = threading.Lock()  # what is silenced belongs to the whole process

_IDENTIFIERS: Mapping[str, str] = {
    "patient_id": "PatientID",
    "issuer_of_patient_id": "IssuerOfPatientID",
    "study_id": "StudyID",
    "accession_number": "AccessionNumber",
}
_NAMES: Mapping[str, str] = {
    "patient_name": "PatientName",
    "referring_physician_name": "ReferringPhysicianName",
}


@dataclass(frozen=True, slots=True)
class Plane:
    """Where an image lies in the patient (PS3.3 section C.7.6.2), in mm."""

    frame_of_reference_uid: str
    position: tuple[float, float, float]
    orientation: tuple[float, ...]  # six direction cosines
    pixel_spacing: tuple[float, float]
    slice_thickness: float


@dataclass(frozen=True, slots=True, repr=False)
class SourceImage:
    """The image that was looked at. `frame_number` is None where the object has but one frame.

    `plane` is None where the object does not say all of it, or says it of several frames.
    """

    references: DicomReferences
    modality: str | None = None
    rows: int = 0
    columns: int = 0
    frame_number: int | None = None
    is_lossy: bool = False
    burned_in_annotation: str | None = None
    laterality: str | None = None  # R, L, U or B
    patient_orientation: tuple[str, ...] = ()
    plane: Plane | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Source:
    """Patient and study that results belong to, and the image they are about, where there is one.

    Dates and times are DICOM's (PS3.5 section 6.2), or empty. With a `deidentification_method`,
    the patient's identity has been removed; `is_outside` where we did so, for who is elsewhere. It
    has no representation to log.
    """

    study_instance_uid: str
    image: SourceImage | None = None
    is_anonymous: bool = False
    is_outside: bool = False
    patient_name: str = ""
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    study_date: str = ""
    study_time: str = ""
    study_id: str = ""
    study_description: str = ""
    accession_number: str = ""
    referring_physician_name: str = ""
    timezone_offset_from_utc: str = ""
    deidentification_method: str = ""


def anonymous(result_id: str, image: SourceImage | None = None) -> Source:
    """For results that are written without their source: a study of its own, of nobody.

    The image's identifiers are referenced where they are known; the results are never put into
    its study, whose patient they would contradict.
    """
    return Source(
        study_instance_uid=uid_of(result_id, "anonymous", "study"),
        image=image,
        is_anonymous=True,
        patient_id=line(result_id),
        deidentification_method=WITHOUT_PATIENT,
    )


def read_source(data: bytes, limits: Limits, frame_number: int = 1) -> Source | None:
    """The source in the bytes of a DICOM file that intake has decoded; None for other files.

    Also None where nothing could refer to it.
    """
    if not looks_like_dicom(data):
        return None
    try:
        with discreet():
            dataset = read(data, limits)
        return source_of(dataset, frame_number)
    except UnsupportedImage:
        return None


@contextmanager
def discreet() -> Iterator[None]:
    """Keeps what the library says of values out of warnings and logs: it quotes the patient."""
    logger = logging.getLogger("pydicom")
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, logger.propagate = logger.propagate, False
        try:
            yield
        finally:
            logger.propagate = before


def source_of_header(header: Header, frame_number: int = 1) -> Source | None:
    """The source in what intake kept of a DICOM object for the answer; None as `read_source`."""
    try:
        with discreet():
            dataset = Dataset.from_json(header)
        return source_of(dataset, frame_number)
    except UnsupportedImage:
        return None


def source_of(dataset: Any, frame_number: int = 1) -> Source:
    """What a DICOM object says of its patient, study and image; what is unusable counts as unsaid.

    `frame_number` is the frame that was looked at. Raises UnsupportedImage for an object whose
    own identifiers are missing or malformed: nothing could refer to it.
    """
    with discreet():
        references = references_of(dataset)
        if references is None:
            raise UnsupportedImage("the DICOM file lacks identifiers that results could refer to")
        return Source(
            study_instance_uid=references.study_instance_uid,
            image=_image(dataset, references, frame_number),
            patient_birth_date=_date(dataset, "PatientBirthDate"),
            patient_sex=_one_of(_SEXES, _text(dataset, "PatientSex")),
            study_date=_date(dataset, "StudyDate"),
            study_time=_matching(_TIME, _text(dataset, "StudyTime")),
            timezone_offset_from_utc=_matching(_OFFSET, _text(dataset, "TimezoneOffsetFromUTC")),
            study_description=_text(dataset, "StudyDescription"),
            deidentification_method=_deidentification(dataset),
            **_identities(dataset),
        )


def _identities(dataset: Any) -> dict[str, Any]:
    """Names and identifiers exactly as they are said, by the field that holds them."""
    identifiers = {name: _exact(dataset, keyword) for name, keyword in _IDENTIFIERS.items()}
    names = {name: _name(_exact(dataset, keyword)) for name, keyword in _NAMES.items()}
    return {**identifiers, **names}


def _exact(dataset: Any, keyword: str) -> str:
    text = str(first(_value(dataset, keyword)) or "")
    return "".join(filter(str.isprintable, text)).strip()[:LONGEST_IDENTIFIER]


def _name(text: str) -> str:
    """Three component groups of 64 characters (PS3.5 section 6.2.1.1)."""
    return "=".join(group[:64] for group in text.split("=")[:3])


def _deidentification(dataset: Any) -> str:
    """How the patient's identity was removed from the source, where it was."""
    if code_string(dataset, "PatientIdentityRemoved") != "YES":
        return ""
    return _text(dataset, "DeidentificationMethod") or "as in the source"


def _image(dataset: Any, references: DicomReferences, frame_number: int) -> SourceImage:
    frames = _whole(dataset, "NumberOfFrames")
    orientation = _values(dataset, "PatientOrientation")
    return SourceImage(
        references=references,
        modality=code_string(dataset, "Modality"),
        rows=_whole(dataset, "Rows"),
        columns=_whole(dataset, "Columns"),
        frame_number=frame_number if frames > 1 else None,
        is_lossy=_text(dataset, "LossyImageCompression") == "01",
        burned_in_annotation=code_string(dataset, "BurnedInAnnotation"),
        laterality=_one_of(("R", "L", "U", "B"), _laterality(dataset)) or None,
        patient_orientation=orientation if _is_orientation(orientation) else (),
        plane=_plane(dataset) if frames <= 1 else None,
    )


def _laterality(dataset: Any) -> str:
    return _text(dataset, "ImageLaterality") or _text(dataset, "Laterality")


def _plane(dataset: Any) -> Plane | None:
    frame_of_reference = _exact(dataset, "FrameOfReferenceUID")
    position = _numbers(dataset, "ImagePositionPatient", 3)
    orientation = _numbers(dataset, "ImageOrientationPatient", 6)
    spacing = _numbers(dataset, "PixelSpacing", 2)
    thickness = _numbers(dataset, "SliceThickness", 1)
    if not (is_uid(frame_of_reference) and position and orientation and spacing and thickness):
        return None
    x, y, z = position
    return Plane(frame_of_reference, (x, y, z), orientation, (spacing[0], spacing[1]), thickness[0])


def _text(dataset: Any, keyword: str) -> str:
    return line(str(first(_value(dataset, keyword)) or ""))


def _values(dataset: Any, keyword: str) -> tuple[str, ...]:
    value = _value(dataset, keyword)
    several = value if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]
    return tuple(str(one) for one in several if one not in (None, ""))


def _numbers(dataset: Any, keyword: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(one) for one in _values(dataset, keyword))
    except ValueError:
        return ()
    finite = all(abs(number) < 1e9 for number in numbers)
    return numbers if len(numbers) == count and finite else ()


def _whole(dataset: Any, keyword: str) -> int:
    numbers = _numbers(dataset, keyword, 1)
    return int(numbers[0]) if numbers else 0


def _value(dataset: Any, keyword: str) -> Any:
    try:
        return dataset.get(keyword)
    except Exception:  # noqa: BLE001 - a hostile value raises anything, and quotes itself
        return None


def _date(dataset: Any, keyword: str) -> str:
    text = _matching(_DATE, _text(dataset, keyword))
    try:
        datetime.strptime(text, "%Y%m%d")  # noqa: DTZ007 - a date
    except ValueError:
        return ""
    return text


def _matching(pattern: re.Pattern[str], text: str) -> str:
    return text if pattern.fullmatch(text) else ""


def _one_of(known: tuple[str, ...], text: str) -> str:
    return text if text in known else ""


def _is_orientation(values: tuple[str, ...]) -> bool:
    return len(values) == 2 and all(re.fullmatch(r"[ALPRHF]{1,3}", value) for value in values)
