"""A result as an HL7 v2.5.1 ORU^R01 message, for systems that know nothing newer."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from service.errors import UnsupportedImage
from service.pacs import concepts
from service.pacs.concepts import NOT_FOR_CLINICAL_USE
from service.pacs.content import Content, Group, Written, content_of
from service.pacs.document import moment
from service.pacs.source import Source
from service.pacs.uids import uuid_of
from specialists.task import Concept, Task

MEDIA_TYPE = "x-application/hl7-v2+er7"

Components = tuple[str, ...]
Field = str | Components
_ESCAPED = {"\\": "E", "|": "F", "^": "S", "&": "T", "~": "R"}
_ESCAPES = str.maketrans({mark: f"\\{name}\\" for mark, name in _ESCAPED.items()})


@dataclass(frozen=True, slots=True)
class Row:
    """What one OBX segment says."""

    kind: str  # table 0125: CWE, NM, ST or TX
    what: Concept
    value: Field
    unit: Field = ""
    group: str = ""
    algorithm: str = ""


class Processing(StrEnum):
    """MSH-11, table 0103: what the message is for."""

    PRODUCTION = "P"
    TRAINING = "T"


def oru(
    result: Written,
    source: Source,
    task: Task | None,
    processing: Processing = Processing.TRAINING,
) -> bytes:
    """The whole result with its evidence as one message, UTF-8, its segments ended by CR.

    Marked for training unless told otherwise: a receiver that files it as a real result has been
    told to. Raises UnsupportedImage without a patient, to whom alone a receiver could file it.
    """
    if not is_possible(source):
        raise UnsupportedImage("an HL7 message needs the patient's identifier, which is not known")
    content = content_of(result, task)
    at = _time(moment(content.created_at, source))
    segments = [
        _header(content, source, at, processing),
        _patient(source),
        _request(content, source, at),
        *_observations(content, source),
    ]
    return "".join(f"{segment}\r" for segment in segments).encode()


def is_possible(source: Source) -> bool:
    """Whether there is a patient to whom a receiver could file a message."""
    return not source.is_anonymous and bool(source.patient_id)


def escaped(text: str) -> str:
    """Text as it may stand in a component (HL7 v2.5.1 section 2.7); its lines are repetitions."""
    return text.translate(_ESCAPES).replace("\n", "~")


def _header(content: Content, source: Source, at: str, processing: Processing) -> str:
    control = uuid_of(content.id, source.study_instance_uid, "hl7").hex[:20]
    kind = ("ORU", "R01", "ORU_R01")
    fields: list[Field] = ["GSCO", "", "", "", at, "", kind, control, processing, "2.5.1"]
    rest = _joined([*fields, "", "", "", "", "", "UNICODE UTF-8"])
    return f"MSH|^~\\&|{rest}"


def _patient(source: Source) -> str:
    identifier = (source.patient_id, "", "", source.issuer_of_patient_id)
    return _segment(
        "PID", "1", "", identifier, "", _name(source.patient_name), "",
        source.patient_birth_date, source.patient_sex,
    )  # fmt: skip


def _request(content: Content, source: Source, at: str) -> str:
    fields: list[Field] = [""] * 25
    fields[0] = "1"
    fields[2] = (content.id, "GSCO")
    fields[3] = _code(concepts.IMAGING_STUDY)
    fields[6] = source.study_date or at  # when the image was taken
    fields[17] = source.accession_number
    fields[21] = at
    fields[23] = "IMG"  # table 0074: diagnostic imaging
    fields[24] = "P"  # table 0123: preliminary
    return _segment("OBR", *fields)


def _observations(content: Content, source: Source) -> Iterator[str]:
    """OBX segments, numbered; those of one group share a sub-identifier."""
    rows = [
        *_references(source),
        *(row for n, group in enumerate(content.groups, 1) for row in _group(group, str(n))),
        *(Row("CWE", one.what, _code(one.value)) for one in content.codes),
        *(Row("TX", one.what, one.text) for one in content.remarks),
    ]
    for place, row in enumerate(rows, 1):
        fields: list[Field] = [""] * 18
        fields[:6] = [str(place), row.kind, _code(row.what), row.group, row.value, row.unit]
        fields[10] = "P"  # table 0085: preliminary
        fields[17] = (row.algorithm, "GSCO") if row.algorithm else ""
        yield _segment("OBX", *fields)
    yield _segment("NTE", "1", "L", NOT_FOR_CLINICAL_USE.capitalize())


def _references(source: Source) -> Iterator[Row]:
    if source.image is None:
        return
    references = source.image.references
    yield Row("ST", concepts.STUDY_INSTANCE_UID, references.study_instance_uid)
    yield Row("ST", concepts.SOP_INSTANCE_UID, references.sop_instance_uid)


def _group(group: Group, n: str) -> Iterator[Row]:
    """A finding with its number; of anything else the numbers of labels are told as text.

    As coded numbers they would look like findings to a receiver that does not know our groups.
    """
    made_by = group.algorithm.name
    if group.is_finding:
        yield Row("CWE", concepts.FINDING, _code(group.about), group=n, algorithm=made_by)
    else:
        yield Row("TX", group.about, _told(group), group=n, algorithm=made_by)
    for number in group.numbers:
        if group.is_finding or not number.is_probability:
            value = f"{number.value:.6f}"
            yield Row("NM", number.what, value, ("1", "", "UCUM"), group=n, algorithm=made_by)


def _told(group: Group) -> str:
    chances = [f"{one.what.meaning} {one.value:.2f}" for one in group.numbers if one.is_probability]
    codes = [f"{one.what.meaning}: {one.value.meaning}" for one in group.codes]
    return "\n".join((group.identifier, ", ".join(chances), *codes)).replace("\n\n", "\n")


def _code(concept: Concept) -> Components:
    return (concept.code, concept.meaning, concept.scheme)


def _name(name: str) -> Components:
    """DICOM's family, given, middle, prefix, suffix as HL7's, where the suffix comes first."""
    alphabetic = next((group for group in name.split("=") if group), "")
    family, given, middle, prefix, suffix = (*alphabetic.split("^"), *[""] * 5)[:5]
    return (family, given, middle, suffix, prefix)


def _time(at: datetime) -> str:
    return at.strftime("%Y%m%d%H%M%S%z")


def _segment(name: str, *fields: Field) -> str:
    return f"{name}|{_joined(list(fields))}"


def _joined(fields: list[Field]) -> str:
    return "|".join(map(_field, fields)).rstrip("|")


def _field(field: Field) -> str:
    components = (field,) if isinstance(field, str) else field
    return "^".join(map(escaped, components)).rstrip("^")
