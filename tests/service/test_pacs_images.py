"""Captures, segmentations and key objects: what viewers show beside the image."""

import highdicom as hd
import numpy as np
import pytest
from builders import a_diagnosis, a_picture, a_segmentation, a_task, sha256_of
from pacs_objects import (
    INSTANCE,
    STUDY,
    a_ct_header,
    a_source,
    an_explanation,
    items,
    read_back,
    said,
)
from pydicom.uid import SecondaryCaptureImageStorage

from service.errors import UnsupportedImage
from service.intake.dataset import is_ours
from service.pacs.capture import LONGEST_SIDE, capture, picture
from service.pacs.content import Algorithm
from service.pacs.document import instance_uid
from service.pacs.key_object import key_object
from service.pacs.segmentation import Segment, segmentation
from service.pacs.source import Source, anonymous, source_of
from specialists.segmentation import evidence
from specialists.task import Concept, Label

UNET = Algorithm("unet", "1", sha256_of("unet"))
LESION = Label("lesion", Concept("SCT", "52988006", "Lesion"))


def a_mask(rows: int = 32, columns: int = 24) -> np.ndarray:
    """True in the upper left corner."""
    mask = np.zeros((rows, columns), bool)
    mask[:5, :8] = True
    return mask


def captured(source: Source, **more: object) -> object:
    return read_back(capture(a_diagnosis(), source, a_picture(64, 48), an_explanation(**more)))


def test_a_capture_shows_the_heat_and_words_below_the_image() -> None:
    pixels = a_picture(400, 330)
    shown = picture(pixels, an_explanation())

    assert shown.shape[1] == 330
    assert (shown[0, 0] != pixels[0, 0]).any()
    assert (shown[399, 329] == pixels[399, 329]).all()
    assert shown[400:].max() == 255


def test_the_words_say_what_it_is_not_for() -> None:
    one, other = (
        picture(a_picture(), an_explanation()),
        picture(a_picture(), an_explanation("gout")),
    )

    first_line = slice(32, 32 + 18)
    assert (one[first_line] == other[first_line]).all()
    assert one[first_line].any()
    assert (one != other).any()


def test_a_capture_refers_to_the_image_it_was_made_of() -> None:
    document = captured(a_source(3, NumberOfFrames=4, ImageLaterality="L"))

    assert (document.SOPClassUID, document.Modality) == (SecondaryCaptureImageStorage, "OT")
    assert (document.StudyInstanceUID, document.PatientID) == (STUDY, "4711")
    source = document.SourceImageSequence[0]
    assert (source.ReferencedSOPInstanceUID, source.ReferencedFrameNumber) == (INSTANCE, 3)
    assert document.ImageLaterality == "L"
    assert is_ours(document)


@pytest.mark.parametrize("said_so", ["YES", "NO", None])
def test_a_capture_hides_no_burned_in_text_that_the_image_has(said_so: str | None) -> None:
    assert captured(a_source(BurnedInAnnotation=said_so)).get("BurnedInAnnotation") == said_so


def test_what_was_once_lossy_stays_so() -> None:
    assert captured(a_source(LossyImageCompression="01")).LossyImageCompression == "01"


def test_the_heat_map_is_named_with_label_and_weights() -> None:
    document = captured(a_source(), label="肺炎")

    assert "肺炎" in document.DerivationDescription
    assert sha256_of("weights of resnet18") in document.DerivationDescription
    assert document.ImageComments == "not for clinical use"


def test_a_large_image_is_made_smaller_and_a_narrow_one_gets_a_ground() -> None:
    large = picture(a_picture(3000, 1500), an_explanation())
    narrow = picture(a_picture(64, 16), an_explanation())

    assert (large.shape[1], large.shape[0] > LONGEST_SIDE) == (512, True)
    assert narrow.shape[1] == 320


def test_captures_of_one_result_are_one_series_of_numbered_instances() -> None:
    diagnosis, source = a_diagnosis(), a_source()
    one, two = (
        read_back(capture(diagnosis, source, a_picture(), an_explanation(), number))
        for number in (1, 2)
    )

    assert one.SeriesInstanceUID == two.SeriesInstanceUID
    assert (one.InstanceNumber, two.InstanceNumber) == (1, 2)
    assert one.SOPInstanceUID != two.SOPInstanceUID


def segmented(source: Source, *segments: Segment) -> object:
    chosen = segments or (Segment(LESION, a_mask()),)
    return read_back(segmentation(a_diagnosis(), source, chosen, UNET))


def test_what_a_specialist_outlined_for_this_request_becomes_a_segment() -> None:
    mask = evidence.mask(a_segmentation(), 32, 24)  # as large as the image

    document = segmented(a_source(), Segment(LESION, mask))

    shown = hd.seg.Segmentation.from_dataset(document).pixel_array.squeeze()
    assert (shown == mask).all()
    assert mask[:8, :6].all()
    assert not mask[20:].any()


def test_a_mask_comes_back_as_it_was_given() -> None:
    other = Segment(Label("shadow"), ~a_mask())
    document = segmented(a_source(), Segment(LESION, a_mask()), other)

    frames = hd.seg.Segmentation.from_dataset(document).pixel_array
    assert (frames[0] == a_mask()).all()
    assert (frames[1] == ~a_mask()).all()


def test_a_segment_is_coded_and_names_its_algorithm() -> None:
    segment = segmented(a_source()).SegmentSequence[0]

    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "52988006"
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "unet"
    assert sha256_of("unet") in algorithm.AlgorithmParameters


def test_a_segmentation_refers_to_image_and_frame() -> None:
    document = segmented(a_source(2, NumberOfFrames=3))
    derivation = document.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]

    source = derivation.SourceImageSequence[0]
    assert (source.ReferencedSOPInstanceUID, source.ReferencedFrameNumber) == (INSTANCE, 2)
    assert source.ReferencedSOPClassUID == a_source().image.references.sop_class_uid


def test_a_segmentation_lies_where_the_slice_does() -> None:
    document = segmented(source_of(a_ct_header()))
    shared = document.SharedFunctionalGroupsSequence[0]

    assert document.FrameOfReferenceUID == "1.2.3.9"
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.7, 0.7]


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(UnsupportedImage, match="does not cover"):
        segmented(a_source(), Segment(LESION, a_mask(31, 24)))


def test_a_mask_needs_an_image() -> None:
    with pytest.raises(UnsupportedImage, match="needs the DICOM image"):
        segmented(anonymous("result"))


def test_key_objects_are_the_image_and_the_captures() -> None:
    diagnosis, source = a_diagnosis(), a_source(2, NumberOfFrames=3)
    document = read_back(key_object(diagnosis, source, a_task(), captures=2) or b"")

    images = [one.ReferencedSOPSequence[0] for one in items(document) if one.ValueType == "IMAGE"]
    assert [one.ReferencedSOPInstanceUID for one in images] == [
        INSTANCE,
        instance_uid(diagnosis.id, source, "capture", 1),
        instance_uid(diagnosis.id, source, "capture", 2),
    ]
    assert images[0].ReferencedFrameNumber == 2
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    assert [len(one.ReferencedSOPSequence) for one in study.ReferencedSeriesSequence] == [1, 2]


def test_key_objects_carry_the_conclusion() -> None:
    told = dict(said(read_back(key_object(a_diagnosis(), a_source(), a_task()) or b"")))

    assert told["Key Object Description"] == (
        "Pneumonia (0.90). Preliminary, unverified, not for clinical use."
    )


def test_where_there_is_nothing_to_select_there_is_no_selection() -> None:
    diagnosis = a_diagnosis()
    unknown, elsewhere = anonymous(diagnosis.id), anonymous(diagnosis.id, a_source().image)

    assert key_object(diagnosis, unknown, None) is None
    assert key_object(diagnosis, elsewhere, None) is None
    assert key_object(diagnosis, unknown, None, captures=1) is not None


def test_every_sort_of_object_is_the_same_on_a_retry() -> None:
    diagnosis, source = a_diagnosis(), source_of(a_ct_header())

    def written() -> tuple[bytes | None, ...]:
        return (
            capture(diagnosis, source, a_picture(), an_explanation()),
            segmentation(diagnosis, source, (Segment(LESION, a_mask()),), UNET),
            key_object(diagnosis, source, a_task(), 1),
        )

    assert written() == written()
