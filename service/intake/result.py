"""What a decoder found, and what intake hands on."""

from dataclasses import dataclass, field
from hashlib import sha256

from service.domain import Image, Instance
from service.intake.deidentify import DicomAttributes, DicomReferences, pseudonym
from service.intake.header import Header
from specialists.prediction import Pixels


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Pixels and what was learned on the way.

    `patient` is the identifier that the pseudonym is made of: it lives as long as one decode does.
    """

    pixels: Pixels  # (height, width, 3) RGB
    media_type: str
    notes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    attributes: DicomAttributes | None = None
    references: DicomReferences | None = None
    patient: str | None = field(default=None, repr=False)
    header: Header | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class IntakeResult:
    """An image ready for a Case, and the little that may be known of where it comes from.

    `group` is a pseudonym of the patient, None without a key or when the file names nobody.
    `instance` and `header` serve to answer the PACS and nothing else; None unless the file is a
    DICOM instance with all its UIDs.
    """

    image: Image
    group: str | None = None
    attributes: DicomAttributes | None = None
    instance: Instance | None = None
    header: Header | None = field(default=None, repr=False)


def intake_result(data: bytes, decoded: Decoded, key: bytes) -> IntakeResult:
    """The decoded image under the sha256 of the bytes received, its patient under a pseudonym."""
    return IntakeResult(
        Image(
            decoded.pixels,
            sha256(data).hexdigest(),
            decoded.media_type,
            decoded.notes,
            decoded.cautions,
        ),
        pseudonym(key, decoded.patient),
        decoded.attributes,
        _instance(decoded),
        decoded.header if decoded.references else None,
    )


def _instance(decoded: Decoded) -> Instance | None:
    uids, attributes = decoded.references, decoded.attributes
    if uids is None or attributes is None:
        return None
    return Instance(
        study_instance_uid=uids.study_instance_uid,
        series_instance_uid=uids.series_instance_uid,
        sop_instance_uid=uids.sop_instance_uid,
        sop_class_uid=uids.sop_class_uid,
        rows=attributes.rows,
        columns=attributes.columns,
        frame_number=attributes.frame_number,
        number_of_frames=attributes.number_of_frames,
        pixel_spacing_mm=attributes.pixel_spacing_mm,
        pixel_spacing_from=attributes.pixel_spacing_from,
    )
