"""`--results FOLDER`: the standard objects of one case on disk."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders import (
    a_case,
    a_diagnosis,
    a_report,
    an_image,
    png_bytes,
    some_attributes,
    some_evidence,
)
from fakes import FakeSpecialists
from pacs_objects import STUDY, a_header, file_of, group_named, read_back, said

from service.cli import result_files
from service.cli.result_files import Look
from service.domain import Diagnosis, Report
from service.intake.result import IntakeResult

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class FakeParts:
    """Of all parts only the panel is asked."""

    specialists: FakeSpecialists


def a_look(data: bytes, frame_number: int = 1) -> Look:
    image = an_image()
    return Look(
        a_case(image=image),
        data,
        IntakeResult(image, attributes=some_attributes(modality="DX", frame_number=frame_number)),
    )


def write(
    folder: Path,
    data: bytes,
    result: Diagnosis | Report | None = None,
    *,
    panel: FakeSpecialists | None = None,
    frame_number: int = 1,
) -> set[str]:
    parts = FakeParts(panel or FakeSpecialists())
    look = a_look(data, frame_number)
    made = result or a_diagnosis()
    asyncio.run(result_files.write(parts, look, made, folder))  # type: ignore[arg-type]
    return {path.name for path in folder.iterdir()}


def test_a_dicom_file_gives_every_object_in_its_own_study(tmp_path: Path) -> None:
    names = write(tmp_path / "out", file_of(a_header()))

    assert names == {"sr.dcm", "capture-1.dcm", "key-object.dcm", "fhir.json", "oru.hl7"}
    studies = {
        read_back((tmp_path / "out" / name).read_bytes()).StudyInstanceUID
        for name in names
        if name.endswith(".dcm")
    }
    assert studies == {STUDY}
    assert json.loads((tmp_path / "out" / "fhir.json").read_text())["resourceType"] == "Bundle"


def test_a_picture_has_no_patient_and_so_no_message(tmp_path: Path) -> None:
    names = write(tmp_path / "out", png_bytes())

    assert names == {"sr.dcm", "capture-1.dcm", "key-object.dcm", "fhir.json"}
    document = read_back((tmp_path / "out" / "sr.dcm").read_bytes())
    assert document.PatientIdentityRemoved == "YES"


def test_the_frame_that_was_looked_at_is_referred_to(tmp_path: Path) -> None:
    write(tmp_path, file_of(a_header(NumberOfFrames=9)), frame_number=4)

    selection = read_back((tmp_path / "key-object.dcm").read_bytes())
    frames = [
        one.ReferencedSOPSequence[0].get("ReferencedFrameNumber")
        for one in selection.ContentSequence
        if one.ValueType == "IMAGE"
    ]
    assert frames == [4, None]


def test_a_specialist_that_cannot_explain_costs_its_picture_only(
    tmp_path: Path, capsys: Capture
) -> None:
    panel = FakeSpecialists(missing={"vgg16": "no weights"})
    names = write(tmp_path / "out", file_of(a_header()), panel=panel)

    assert "capture-1.dcm" not in names
    assert "sr.dcm" in names
    assert "no heat map: specialist 'vgg16': no weights" in capsys.readouterr().err


def test_without_specialists_there_is_nothing_to_show(tmp_path: Path) -> None:
    diagnosis = a_diagnosis(evidence=some_evidence(moed=()))

    assert "capture-1.dcm" not in write(tmp_path, file_of(a_header()), diagnosis)


def test_a_draft_report_is_written_without_pictures(tmp_path: Path) -> None:
    names = write(tmp_path / "out", file_of(a_header()), a_report())

    assert names == {"sr.dcm", "key-object.dcm", "fhir.json", "oru.hl7"}


def test_messages_and_names_of_files_tell_nothing_of_the_patient(
    tmp_path: Path, capsys: Capture
) -> None:
    names = write(tmp_path / "out", file_of(a_header()))
    told = capsys.readouterr()

    shown = " ".join((*names, told.out, told.err))
    assert "wrote sr.dcm" in shown
    assert not any(word in shown for word in ("Doe", "4711", "A-12"))


def test_the_labels_are_coded_by_the_task(tmp_path: Path) -> None:
    write(tmp_path, file_of(a_header()))

    document = read_back((tmp_path / "sr.dcm").read_bytes())
    assert ("Finding", "Pneumonia") in said(group_named(document, "finding 1"))
