"""What all DICOM objects written here share: whose they are, who made them, when, their bytes."""

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone, tzinfo
from io import BytesIO
from typing import Any

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import SecondaryCaptureImageStorage

from service.intake.dataset import MANUFACTURER, MODEL
from service.intake.deidentify import DicomReferences
from service.pacs.concepts import NOT_FOR_CLINICAL_USE, SCHEME, line
from service.pacs.content import Content
from service.pacs.source import Source, discreet
from service.pacs.uids import uid_of

UTF8 = "ISO_IR 192"
FIRST_SERIES_NUMBER = 9901
KINDS = ("sr", "capture", "segmentation", "key-object")
"""Sorts of objects, each in a series of its own."""

_EVIDENCE = ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")


def instance_uid(result_id: str, source: Source, kind: str, number: int = 1) -> str:
    """The SOP instance UID of one object of a result; the same on every retry.

    What is written without the patient's data is another object than what is written with them.
    """
    return uid_of(result_id, _whose(source), kind, str(number))


def series_uid(result_id: str, source: Source, kind: str) -> str:
    """The series that holds all objects of one sort of a result."""
    return uid_of(result_id, _whose(source), kind, "series")


def identity(content: Content, source: Source, kind: str, number: int = 1) -> dict[str, Any]:
    """What every constructor of highdicom is told: series, instance, equipment and time."""
    at = moment(content.created_at, source)
    return {
        "series_instance_uid": series_uid(content.id, source, kind),
        "series_number": FIRST_SERIES_NUMBER + KINDS.index(kind),
        "sop_instance_uid": instance_uid(content.id, source, kind, number),
        "instance_number": number,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL,
        "software_versions": content.code_version,
        "device_serial_number": "1",  # enhanced equipment must have one; software has none
        "series_description": line(f"{NOT_FOR_CLINICAL_USE.capitalize()}: GSCo {content.task}"),
        "specific_character_set": UTF8,
        "content_date": at.date(),
        "content_time": at.time().replace(microsecond=0),
    }


def header(references: DicomReferences | None) -> Dataset:
    """An image as highdicom wants it, which knows few SOP classes and warns of names in clear text.

    It is therefore nameless and of a common class; `evidence` says what the image really is.
    """
    about = Dataset()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex",
                    "AccessionNumber", "StudyID"):  # fmt: skip
        setattr(about, keyword, "")
    about.StudyDate = about.StudyTime = None
    about.SOPClassUID = SecondaryCaptureImageStorage
    about.StudyInstanceUID = references.study_instance_uid if references else "2.25.0"
    about.SeriesInstanceUID = references.series_instance_uid if references else "2.25.0"
    about.SOPInstanceUID = references.sop_instance_uid if references else "2.25.0"
    return about


def evidence(document: Any, source: Source, images: Iterable[DicomReferences]) -> None:
    """Lists the images that a document refers to (PS3.3 sections C.17.2 and C.17.6.2).

    Those of another study than its own are pertinent, not current.
    """
    for keyword in _EVIDENCE:
        if keyword in document:
            delattr(document, keyword)
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for one in images:
        series = studies.setdefault(one.study_instance_uid, {})
        series.setdefault(one.series_instance_uid, []).append(_instance(one))
    for study, series in studies.items():
        keyword = _EVIDENCE[study != source.study_instance_uid]
        setattr(document, keyword, [_study(study, series)])


def finish(document: Any, content: Content, source: Source) -> Any:
    """The document as part of the source's study, as old as the result, coded as it says."""
    with discreet():
        _belong(document, source)
    at = moment(content.created_at, source)
    document.InstanceCreationDate = at.strftime("%Y%m%d")
    document.InstanceCreationTime = at.strftime("%H%M%S")
    if source.timezone_offset_from_utc:
        document.TimezoneOffsetFromUTC = source.timezone_offset_from_utc
    document.CodingSchemeIdentificationSequence = [
        CodingSchemeIdentificationItem(
            SCHEME, name="GSCo", responsible_organization="GSCo", version="1"
        )
    ]
    for maker in document.get("ContributingEquipmentSequence") or ():  # highdicom names itself
        maker.ContributionDateTime = at.strftime("%Y%m%d%H%M%S")
    return document


def to_bytes(document: Any) -> bytes:
    """A DICOM file (PS3.10); the same document is the same bytes."""
    stream = BytesIO()
    dcmwrite(stream, document, enforce_file_format=True)
    return stream.getvalue()


def moment(created_at: datetime, source: Source) -> datetime:
    """The time as the source tells time: with its offset from UTC, else in this machine's zone."""
    return created_at.astimezone(_zone(source.timezone_offset_from_utc))


def _instance(one: DicomReferences) -> Dataset:
    instance = Dataset()
    instance.ReferencedSOPClassUID = one.sop_class_uid
    instance.ReferencedSOPInstanceUID = one.sop_instance_uid
    return instance


def _study(uid: str, series: dict[str, list[Dataset]]) -> Dataset:
    study = Dataset()
    study.StudyInstanceUID = uid
    study.ReferencedSeriesSequence = [_series(*one) for one in series.items()]
    return study


def _series(uid: str, instances: list[Dataset]) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = uid
    series.ReferencedSOPSequence = instances
    return series


def _zone(offset: str) -> tzinfo | None:
    if not offset:
        return None
    sign = -1 if offset[0] == "-" else 1
    return timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5])))


def _whose(source: Source) -> str:
    if source.is_outside:
        return "outside"
    return "anonymous" if source.is_anonymous else "patient"


def _belong(document: Any, source: Source) -> None:
    """Patient and study are the source's own, or the PACS would make a second of each."""
    document.StudyInstanceUID = source.study_instance_uid
    document.PatientName = source.patient_name
    document.PatientID = source.patient_id
    document.PatientBirthDate = source.patient_birth_date
    document.PatientSex = source.patient_sex
    document.StudyDate = source.study_date
    document.StudyTime = source.study_time
    document.StudyID = source.study_id
    document.AccessionNumber = source.accession_number
    document.ReferringPhysicianName = source.referring_physician_name
    if source.issuer_of_patient_id:
        document.IssuerOfPatientID = source.issuer_of_patient_id
    if source.study_description:
        document.StudyDescription = source.study_description
    if source.deidentification_method:
        document.PatientIdentityRemoved = "YES"
        document.DeidentificationMethod = source.deidentification_method
