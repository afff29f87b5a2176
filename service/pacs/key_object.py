"""Which images a result is about, as a Key Object Selection (PS3.16 TID 2010)."""

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import SecondaryCaptureImageStorage

from service.intake.deidentify import DicomReferences
from service.pacs import document
from service.pacs.content import Written, content_of
from service.pacs.source import Source
from service.pacs.sr import observer
from specialists.task import Task


def key_object(
    result: Written, source: Source, task: Task | None, captures: int = 0
) -> bytes | None:
    """The source image and so many captures, "Of Interest", with the conclusion as description.

    None where there is no image of the source's study to select.
    """
    images = (*_own_image(source), *_captures(result.id, source, captures))
    if not images:
        return None
    content = content_of(result, task)
    selected = [_header(one) for one in images]
    selection = hd.ko.KeyObjectSelection(
        codes.cid7010.OfInterest,
        referenced_objects=selected,
        observer_device_context=observer(content),
        description=content.conclusion,
    )
    made = hd.ko.KeyObjectSelectionDocument(
        evidence=selected, content=selection, **document.identity(content, source, "key-object")
    )
    _name_frame(made, source)
    document.evidence(made, source, images)
    return document.to_bytes(document.finish(made, content, source))


def _own_image(source: Source) -> tuple[DicomReferences, ...]:
    """A selection is about one study: an anonymous result's own is not its image's."""
    image = source.image
    if image is None or image.references.study_instance_uid != source.study_instance_uid:
        return ()
    return (image.references,)


def _captures(result_id: str, source: Source, count: int) -> tuple[DicomReferences, ...]:
    series = document.series_uid(result_id, source, "capture")
    return tuple(
        DicomReferences(
            source.study_instance_uid,
            series,
            document.instance_uid(result_id, source, "capture", number),
            SecondaryCaptureImageStorage,
        )
        for number in range(1, count + 1)
    )


def _header(references: DicomReferences) -> Dataset:
    header = document.header(references)
    header.SOPClassUID = references.sop_class_uid
    header.Rows = header.Columns = 1  # by these the library knows an image
    return header


def _name_frame(made: Dataset, source: Source) -> None:
    image = source.image
    if image is None or image.frame_number is None:
        return
    for item in made.ContentSequence:
        for reference in item.get("ReferencedSOPSequence", ()):
            if reference.ReferencedSOPInstanceUID == image.references.sop_instance_uid:
                reference.ReferencedFrameNumber = image.frame_number
