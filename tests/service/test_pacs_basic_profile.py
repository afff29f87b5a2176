"""What leaves for elsewhere names nobody: PS3.15, basic profile."""

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from seeded import MARKERS, UID_ROOT, seeded_file

from service.errors import InvalidInput
from service.intake.decoder import decode
from service.pacs.basic_profile import deidentified, replaced_uid

KEY = b"secret"


def written(dataset: Dataset) -> bytes:
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def of_basic_profile(data: bytes, key: bytes = KEY) -> Dataset:
    return dcmread(BytesIO(written(deidentified(dcmread(BytesIO(data)), key))))


def test_no_text_survives_but_that_of_code_strings_and_codes() -> None:
    copy = of_basic_profile(seeded_file(numbers=False))

    kept = {
        element.VR for element in copy.iterall() if any(m in str(element.value) for m in MARKERS)
    }
    codes = {
        e.keyword for e in copy.iterall() if e.VR in ("SH", "LO", "UC") and "ZZ" in str(e.value)
    }

    assert kept <= {"CS", "SH", "LO", "UC", "SQ"}
    assert codes <= {
        "CodeValue",
        "LongCodeValue",
        "CodingSchemeDesignator",
        "CodingSchemeVersion",
        "CodeMeaning",
    }


def test_patient_is_gone_and_the_object_says_so() -> None:
    copy = of_basic_profile(seeded_file())

    assert copy.PatientName == ""
    assert copy.PatientID == "ANONYMOUS"
    assert "PatientAddress" not in copy
    assert not any(element.tag.is_private for element in copy)
    assert copy.PatientIdentityRemoved == "YES"
    assert copy.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert copy.LongitudinalTemporalInformationModified == "REMOVED"


def test_objects_of_a_study_stay_together_under_other_identifiers() -> None:
    one, other = (of_basic_profile(seeded_file(InstanceNumber=n)) for n in (1, 2))
    with_another_key = of_basic_profile(seeded_file(), b"another")

    assert one.StudyInstanceUID == other.StudyInstanceUID == replaced_uid(f"{UID_ROOT}.1", KEY)
    assert one.StudyInstanceUID != with_another_key.StudyInstanceUID
    assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
    assert UID_ROOT.encode() not in written(one)


def test_image_is_the_same_as_before() -> None:
    data = seeded_file()

    after = decode(written(deidentified(dcmread(BytesIO(data)), KEY))).image

    assert after.pixels_sha256 == decode(data).image.pixels_sha256
    assert of_basic_profile(data).SOPClassUID == dcmread(BytesIO(data)).SOPClassUID


def test_without_a_key_nothing_is_deidentified() -> None:
    with pytest.raises(InvalidInput, match="GSCO_PSEUDONYM_KEY"):
        deidentified(dcmread(BytesIO(seeded_file())), b"")
