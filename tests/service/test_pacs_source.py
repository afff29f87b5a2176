"""What results repeat of a DICOM object: cleaned, and nothing else."""

import json
import logging
import re
import warnings

import pytest
from builders import a_diagnosis, a_picture
from pacs_objects import (
    INSTANCE,
    STUDY,
    a_ct_header,
    a_header,
    a_source,
    an_explanation,
    file_of,
)
from pydicom import Dataset

from service.errors import UnsupportedImage
from service.intake.header import header_of
from service.intake.limits import Limits
from service.pacs.results import files
from service.pacs.source import anonymous, read_source, source_of, source_of_header

PATIENT = ("Doe", "4711", "HOSPITAL", "19700102", "A-12", "Roe")


def test_patient_study_and_image_are_the_objects_own() -> None:
    source = a_source()

    assert source.patient_name == "Doe^Jane^M^Dr^PhD"
    assert (source.patient_birth_date, source.patient_sex) == ("19700102", "F")
    assert (source.study_instance_uid, source.accession_number) == (STUDY, "A-12")
    assert source.image is not None
    assert source.image.references.sop_instance_uid == INSTANCE
    assert (source.image.rows, source.image.columns) == (32, 24)


def test_a_source_can_be_logged_without_naming_patient_or_study() -> None:
    source = a_source()

    shown = re.sub(r"0x[0-9a-f]+", "", repr((source, source.image)))  # an address may hold a 4711
    assert not any(word in shown for word in (*PATIENT, STUDY))


@pytest.mark.parametrize(
    "header",
    [
        a_header(),
        a_header(NumberOfFrames=3, LossyImageCompression="01", TimezoneOffsetFromUTC="+0100"),
        a_header(PatientName="山田^太郎", DeidentificationMethod="by hand"),
        a_ct_header(),
    ],
)
def test_what_intake_keeps_for_the_answer_gives_the_same_source(header: Dataset) -> None:
    kept = json.loads(json.dumps(header_of(header)))

    assert source_of_header(kept, 2) == source_of(header, 2)


def test_kept_header_without_identifiers_is_no_source() -> None:
    assert source_of_header({}) is None


def test_a_frame_is_named_only_where_there_are_several() -> None:
    single, several = a_source(), a_source(2, NumberOfFrames=3)

    assert single.image is not None
    assert several.image is not None
    assert (single.image.frame_number, several.image.frame_number) == (None, 2)


def test_a_slice_says_where_it_lies() -> None:
    source = source_of(a_ct_header())

    assert source.image is not None
    assert source.image.plane is not None
    assert source.image.plane.pixel_spacing == (0.7, 0.7)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "PixelSpacing", "SliceThickness"])
def test_half_a_place_is_none(keyword: str) -> None:
    header = a_ct_header()
    delattr(header, keyword)
    image = source_of(header).image

    assert image is not None
    assert image.plane is None


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, while this test writes nonsense
@pytest.mark.parametrize(
    ("keyword", "value", "field"),
    [
        ("PatientBirthDate", "19701345", "patient_birth_date"),
        ("PatientBirthDate", "1970111", "patient_birth_date"),
        ("PatientBirthDate", "born in May", "patient_birth_date"),
        ("PatientSex", "X", "patient_sex"),
        ("StudyTime", "25:99", "study_time"),
        ("TimezoneOffsetFromUTC", "+9999", "timezone_offset_from_utc"),
    ],
)
def test_an_unusable_value_counts_as_unsaid(keyword: str, value: str, field: str) -> None:
    assert getattr(a_source(**{keyword: value}), field) == ""


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_texts_are_one_line_of_the_length_that_dicom_allows() -> None:
    source = a_source(StudyDescription="one\r\ntwo\x00" + "x" * 99, PatientName="D" * 99 + "^J")

    assert source.study_description.startswith("one two x")
    assert len(source.study_description) == len(source.patient_name) == 64


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_identifier_is_never_cut_to_what_dicom_allows() -> None:
    source = a_source(AccessionNumber="A" * 40, PatientID="47  11" * 20)

    assert (source.accession_number, source.patient_id) == ("A" * 40, "47  11" * 20)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"PatientIdentityRemoved": "YES", "DeidentificationMethod": "hash"}, "hash"),
        ({"PatientIdentityRemoved": "YES"}, "as in the source"),
        ({"PatientIdentityRemoved": "NO", "DeidentificationMethod": "hash"}, ""),
        ({}, ""),
    ],
)
def test_what_has_lost_its_identity_stays_without_one(said: dict[str, str], kept: str) -> None:
    assert a_source(**said).deidentification_method == kept


def test_names_are_read_in_the_character_set_of_the_file() -> None:
    header = a_header(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jürgen")
    source = read_source(file_of(header), Limits())

    assert source is not None
    assert source.patient_name == "Müller^Jürgen"


def test_bytes_outside_their_character_set_raise_nothing_and_warn_of_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = file_of(a_header(PatientName="Doe^Jane")).replace(b"Doe^Jane", b"Doe\xff\xfeane")
    with caplog.at_level(logging.DEBUG):
        source = read_source(data, Limits())

    assert source is not None
    assert source.patient_name.startswith("Doe")
    assert "Doe" not in caplog.text


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_nothing_can_refer_to_an_object_without_identifiers(keyword: str) -> None:
    header = a_header(**{keyword: None})

    with pytest.raises(UnsupportedImage, match="lacks identifiers"):
        source_of(header)
    assert read_source(file_of(header) if "SOP" not in keyword else b"", Limits()) is None


def test_a_file_that_is_not_dicom_has_no_source() -> None:
    assert read_source(b"\x89PNG\r\n\x1a\n" + bytes(200), Limits()) is None


def test_an_anonymous_source_is_a_study_of_its_own() -> None:
    known = a_source()
    source = anonymous("result-1", known.image)

    assert source.study_instance_uid not in {STUDY, anonymous("result-2").study_instance_uid}
    assert source.patient_name == ""
    assert source.patient_id == "result-1"
    assert source.image == known.image


def test_an_empty_dataset_is_refused_in_one_sentence() -> None:
    with pytest.raises(UnsupportedImage):
        source_of(Dataset())


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")  # while the header is made
def test_writing_logs_nothing_of_the_patient_and_warns_of_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = dict.fromkeys(("PatientName", "ReferringPhysicianName"), "MARKER")
    numbers = dict.fromkeys(("PatientID", "AccessionNumber", "StudyID"), "MARKER" * 20)
    source = a_source(**names, **numbers)
    caplog.clear()

    with caplog.at_level(logging.DEBUG), warnings.catch_warnings():
        warnings.simplefilter("error")
        written = files(a_diagnosis(), source, None, a_picture(), [an_explanation()])

    assert "MARKER" not in caplog.text
    assert not any("MARKER" in one.name for one in written)
    assert all(b"MARKER" in one.data for one in written)
