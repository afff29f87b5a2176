"""The objects that answer a PACS for one diagnosis, by the sorts that a target wants."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage

from service.domain import Diagnosis
from service.errors import DeliveryRefused, UnsupportedImage
from service.intake.burned_in import has_text
from service.pacs import capture, key_object, segmentation, sr
from service.pacs.basic_profile import deidentified
from service.pacs.content import Algorithm
from service.pacs.document import instance_uid, series_uid
from service.pacs.outbox import Letter, Report
from service.pacs.results import witnesses
from service.pacs.segmentation import Segment
from service.pacs.source import Source, discreet, source_of, source_of_header
from specialists.prediction import Explanation
from specialists.segmentation import evidence
from specialists.task import Task

__all__ = ["objects", "witnesses"]


def objects(
    diagnosis: Diagnosis,
    letter: Letter,
    task: Task | None,
    explanations: Sequence[Explanation],
    wanted: Collection[str],
    outside_key: bytes | None = None,
) -> tuple[bytes, ...]:
    """DICOM files: the report always where it is wanted, of the rest what there is.

    With `outside_key`, patient and study are de-identified before anything is written, and no
    picture is made of an image that seems to have text burned in. Raises DeliveryRefused for an
    image that nothing can refer to.
    """
    source = source_for(letter, outside_key)
    if source.is_outside and _may_show_names(letter, source):
        explanations = ()
    return tuple(_made(diagnosis, letter, task, explanations, wanted, source))


def source_for(letter: Letter, outside_key: bytes | None) -> Source:
    """Patient, study and image as a target may know them; raises as `objects` does."""
    if outside_key is None:
        source = source_of_header(letter.header, letter.frame_number)
    else:
        source = _outside(letter, outside_key)
    if source is None:
        raise DeliveryRefused("the image lacks identifiers that results could refer to")
    return source


def report_of(result: str, url: str) -> Report:
    """The report of a result, as it was sent with the patient's data."""
    about = Source("")
    series, instance = (name(result, about, "sr") for name in (series_uid, instance_uid))
    return Report(series, ComprehensiveSRStorage, instance, url.rstrip("/"))


def _made(
    diagnosis: Diagnosis,
    letter: Letter,
    task: Task | None,
    explanations: Sequence[Explanation],
    wanted: Collection[str],
    source: Source,
) -> Iterator[bytes]:
    if "sr" in wanted:
        yield sr.structured_report(diagnosis, source, task)
    if "capture" in wanted and letter.pixels is not None:
        for number, one in enumerate(explanations, 1):
            yield capture.capture(diagnosis, source, letter.pixels, one, number)
    if "segmentation" in wanted:
        yield from _segmentations(diagnosis, letter, task, source)
    if "key-object" in wanted and diagnosis.needs_review:
        selection = key_object.key_object(diagnosis, source, task, len(explanations))
        if selection is not None:
            yield selection


def _outside(letter: Letter, key: bytes) -> Source | None:
    """Patient and study by PS3.15's basic profile.

    Applied to what results repeat, not to the results: of a report it would leave no content.
    """
    try:
        with discreet():
            header = deidentified(Dataset.from_json(letter.header), key)
        return replace(source_of(header, letter.frame_number), is_outside=True)
    except UnsupportedImage:
        return None


def _may_show_names(letter: Letter, source: Source) -> bool:
    """PS3.3 C.7.6.1: what the image says of burned-in text counts more than what it seems."""
    said = source.image.burned_in_annotation if source.image else None
    return said == "YES" or (said != "NO" and letter.pixels is not None and has_text(letter.pixels))


def _segmentations(
    diagnosis: Diagnosis, letter: Letter, task: Task | None, source: Source
) -> Iterator[bytes]:
    """The masks of one specialist in one object; only the first of several has a UID for it."""
    outlined = diagnosis.evidence.segmentations
    image = source.image
    if not letter.maps or not outlined or task is None or task.segment is None or image is None:
        return
    one, chances = outlined[0], letter.maps[0]
    mask = evidence.enlarged(chances, image.rows, image.columns)
    if mask.any():
        by = Algorithm(one.specialist, diagnosis.provenance.code_version, one.weights_sha256)
        yield segmentation.segmentation(diagnosis, source, [Segment(task.segment, mask)], by)
