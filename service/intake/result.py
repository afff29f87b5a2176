"""What a decoder found, and what intake hands on."""

from dataclasses import dataclass, field
from hashlib import sha256

from service.domain import Image
from service.intake.deidentify import DicomAttributes, DicomReferences, pseudonym
from specialists.prediction import Pixels


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Pixels and what was learned on the way.

    `patient` is the identifier that the pseudonym is made of: it lives as long as one decode does.
    """

    pixels: Pixels  # (height, width, 3) RGB
    media_type: str
    notes: tuple[str, ...] = ()
    attributes: DicomAttributes | None = None
    references: DicomReferences | None = None
    patient: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class IntakeResult:
    """An image ready for a Case, and the little that may be known of where it comes from.

    `group` is a pseudonym of the patient, None without a key or when the file names nobody;
    `references` serve to answer the PACS and nothing else.
    """

    image: Image
    group: str | None = None
    attributes: DicomAttributes | None = None
    references: DicomReferences | None = None


def intake_result(data: bytes, decoded: Decoded, key: bytes) -> IntakeResult:
    """The decoded image under the sha256 of the bytes received, its patient under a pseudonym."""
    image = Image(decoded.pixels, sha256(data).hexdigest(), decoded.media_type, decoded.notes)
    group = pseudonym(key, decoded.patient)
    return IntakeResult(image, group, decoded.attributes, decoded.references)
