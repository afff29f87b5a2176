"""A specialist's masks as a DICOM Segmentation (PS3.3 section A.51)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from service.errors import UnsupportedImage
from service.pacs import concepts, document
from service.pacs.concepts import NOT_FOR_CLINICAL_USE, line
from service.pacs.content import Algorithm, Written, content_of
from service.pacs.source import Plane, Source, SourceImage
from service.pacs.sr import code
from service.pacs.uids import uid_of
from specialists.task import Label

Mask = NDArray[np.bool_]  # (rows, columns) of the image as it is stored


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """What a mask shows, and where; masks of one result may overlap."""

    label: Label
    mask: Mask


def segmentation(
    result: Written, source: Source, segments: Sequence[Segment], by: Algorithm
) -> bytes:
    """The segments in one DICOM file; `by` names the specialist that drew them.

    They lie in the patient where the image says how it does, else on the image's own grid only.
    Raises UnsupportedImage without an image to lie on, and for masks of another size than its.
    """
    image = _image_under(source, segments)
    content = content_of(result, None)
    made = hd.seg.Segmentation(
        source_images=[_header(image)],
        pixel_array=np.stack([one.mask for one in segments], axis=-1)[None].astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[
            _description(result, place, one.label, by) for place, one in enumerate(segments, 1)
        ],
        omit_empty_frames=False,
        content_label="GSCO",
        content_description=f"GSCo, {NOT_FOR_CLINICAL_USE}",
        content_creator_name="GSCo^",
        **document.identity(content, source, "segmentation"),
    )
    made.walk(lambda _, element: _correct(element, image, result.id))
    if image.plane is None:
        made.PatientOrientation = list(image.patient_orientation)
    made.LossyImageCompression = "01" if image.is_lossy else "00"
    return document.to_bytes(document.finish(made, content, source))


def _image_under(source: Source, segments: Sequence[Segment]) -> SourceImage:
    image = source.image
    if image is None or not image.rows:
        raise UnsupportedImage("a segmentation needs the DICOM image that it lies on")
    for one in segments:
        if one.mask.shape != (image.rows, image.columns):
            raise UnsupportedImage(
                f"a mask of {one.mask.shape} does not cover an image of "
                f"{(image.rows, image.columns)}"
            )
    return image


def _header(image: SourceImage) -> Dataset:
    header = document.header(image.references)
    header.Rows, header.Columns = image.rows, image.columns
    if image.plane is not None:
        _lay(header, image.plane)
    return header


def _lay(header: Dataset, plane: Plane) -> None:
    header.FrameOfReferenceUID = plane.frame_of_reference_uid
    header.ImagePositionPatient = list(plane.position)
    header.ImageOrientationPatient = list(plane.orientation)
    header.PixelSpacing = list(plane.pixel_spacing)
    header.SliceThickness = plane.slice_thickness


def _description(result: Written, place: int, label: Label, by: Algorithm) -> Any:
    concept = concepts.label_concept(result.task, label)
    return hd.seg.SegmentDescription(
        segment_number=place,
        segment_label=line(label.name),
        segmented_property_category=codes.cid7150.MorphologicallyAbnormalStructure,
        segmented_property_type=code(concept),
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=line(by.name),
            family=codes.cid7162.ArtificialIntelligence,
            version=line(by.version),
            source="GSCo",
            parameters={f"parameter {n}": told for n, told in enumerate(by.parameters, 1)},
        ),
        tracking_uid=uid_of(result.id, "segment", str(place)),
        tracking_id=f"segment {place}",
    )


def _correct(element: Any, image: SourceImage, result_id: str) -> None:
    """What the header could not tell the library, and an identifier that it drew by lot."""
    if element.keyword == "ReferencedSOPClassUID":
        element.value = image.references.sop_class_uid
    if element.keyword == "DimensionOrganizationUID":
        element.value = uid_of(result_id, "dimensions")
    if element.keyword == "DerivationImageSequence" and image.frame_number is not None:
        for reference in element.value[0].SourceImageSequence:
            reference.ReferencedFrameNumber = image.frame_number
