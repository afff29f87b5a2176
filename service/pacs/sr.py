"""A result as a Comprehensive SR: an Imaging Measurement Report, PS3.16 TID 1500.

Comprehensive and not Comprehensive 3D: viewers of two-dimensional images look for the former.
"""

from collections.abc import Iterable
from typing import Any

import highdicom as hd
from highdicom.sr.value_types import (
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    ImageContentItem,
    NumContentItem,
    TextContentItem,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from service.intake.dataset import MANUFACTURER, MODEL
from service.pacs import document
from service.pacs.content import Algorithm, Content, Group, Number, Written, content_of
from service.pacs.source import Source, SourceImage
from service.pacs.uids import uid_of
from specialists.task import Concept, Task

CONTAINS = "CONTAINS"
PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
SOURCE = Code("260753009", "SCT", "Source")
_PROBABILITY_UNIT = Code("{probability}", "UCUM", "probability")
_NO_UNIT = Code("1", "UCUM", "no units")
_PIXELS = Code("{pixels}", "UCUM", "Pixels")


def structured_report(result: Written, source: Source, task: Task | None) -> bytes:
    """The whole result with its evidence as one DICOM file: complete, unverified, preliminary.

    `task` codes the labels: the task of a diagnosis, or the one that a report consulted, as it is
    now; None where it no longer exists. Without an image in `source`, the report names the image
    by the sha256 of its file only.
    """
    content = content_of(result, task)
    references = source.image.references if source.image else None
    made = hd.sr.ComprehensiveSR(
        evidence=[document.header(references)],
        content=_root(content, source),
        is_complete=True,
        is_verified=False,
        is_final=False,
        **document.identity(content, source, "sr"),
    )
    document.evidence(made, source, [references] if references else [])
    return document.to_bytes(document.finish(made, content, source))


def code(concept: Concept) -> Any:
    """A concept as highdicom wants it."""
    return hd.sr.CodedConcept(concept.code, concept.scheme, concept.meaning)


def observer(content: Content) -> Any:
    """The device that observed: this project, in this version (PS3.16 TID 1002)."""
    return hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=uid_of("device", content.code_version),
            name="GSCo",
            manufacturer_name=MANUFACTURER,
            model_name=f"{MODEL} {content.code_version}",
        ),
    )


def _root(content: Content, source: Source) -> Any:
    root = ContainerContentItem(codes.DCM.ImagingMeasurementReport, template_id="1500")
    language = hd.sr.LanguageOfContentItemAndDescendants(Code("en", "RFC5646", "English"))
    children = ContentSequence()
    children.extend(language)
    children.extend(hd.sr.ObservationContext(observer_device_context=observer(content)))
    children.append(
        CodeContentItem(codes.DCM.ProcedureReported, PROCEDURE, relationship_type="HAS CONCEPT MOD")
    )
    if source.image is not None:
        children.append(_image_library(source.image))
    if content.groups:
        groups = (_group(content, one, source.image) for one in content.groups)
        children.append(_container(codes.DCM.ImagingMeasurements, groups))
    children.append(_container(QUALITATIVE_EVALUATIONS, _evaluations(content)))
    root.ContentSequence = children
    return root


def _group(content: Content, group: Group, image: SourceImage | None) -> Any:
    """A measurement group, PS3.16 TID 1501."""
    tracking = hd.sr.TrackingIdentifier(uid_of(content.id, group.identifier), group.identifier)
    made = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        finding_type=code(group.about),
        algorithm_id=algorithm(group.algorithm),
        measurements=[_measurement(one) for one in group.numbers],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(code(one.what), code(one.value)) for one in group.codes
        ],
        source_images=[_source_image(image)] if image else None,
    )
    return made[0]


def _measurement(number: Number) -> Any:
    unit = _PROBABILITY_UNIT if number.is_probability else _NO_UNIT
    return hd.sr.Measurement(code(number.what), number.value, unit)


def algorithm(one: Algorithm) -> Any:
    """PS3.16 TID 4019."""
    return hd.sr.AlgorithmIdentification(one.name, one.version, list(one.parameters))


def _source_image(image: SourceImage) -> Any:
    return hd.sr.SourceImageForMeasurementGroup(
        image.references.sop_class_uid, image.references.sop_instance_uid, _frames(image)
    )


def _frames(image: SourceImage) -> list[int] | None:
    return [image.frame_number] if image.frame_number else None


def _evaluations(content: Content) -> Iterable[ContentItem]:
    for one in content.codes:
        yield CodeContentItem(code(one.what), code(one.value), relationship_type=CONTAINS)
    for remark in content.remarks:
        yield TextContentItem(code(remark.what), remark.text, relationship_type=CONTAINS)


def _image_library(image: SourceImage) -> Any:
    """PS3.16 TID 1600, with what is known of any image: viewers look here for what to show."""
    entry = ImageContentItem(
        SOURCE,
        image.references.sop_class_uid,
        image.references.sop_instance_uid,
        referenced_frame_numbers=_frames(image),
        relationship_type=CONTAINS,
    )
    if descriptors := list(_descriptors(image)):
        entry.ContentSequence = ContentSequence(descriptors)
    group = _container(codes.DCM.ImageLibraryGroup, [entry])
    return _container(codes.DCM.ImageLibrary, [group])


def _descriptors(image: SourceImage) -> Iterable[ContentItem]:
    context = "HAS ACQ CONTEXT"
    modality = _MODALITIES.get(image.modality or "")
    if modality is not None:
        yield CodeContentItem(codes.DCM.Modality, modality, relationship_type=context)
    sizes = ((codes.DCM.PixelDataRows, image.rows), (codes.DCM.PixelDataColumns, image.columns))
    for what, size in sizes:
        if size:
            yield NumContentItem(what, size, _PIXELS, relationship_type=context)


def _container(name: Code, items: Iterable[ContentItem]) -> Any:
    container = ContainerContentItem(name, relationship_type=CONTAINS)
    container.ContentSequence = ContentSequence(list(items))
    return container


def _modalities() -> dict[str, Code]:
    """The coded modalities of PS3.16 CID 29, by the values of the attribute Modality."""
    known = (getattr(codes.cid29, name) for name in codes.cid29.dir())
    return {one.value: one for one in known}


_MODALITIES = _modalities()
