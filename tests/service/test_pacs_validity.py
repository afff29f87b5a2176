"""Every object we write, before the standard's own referees: dciodvfy and DCMTK's dsrdump."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders import (
    a_diagnosis,
    a_picture,
    a_report,
    a_segmentation,
    a_task,
    sha256_of,
    some_evidence,
)
from pacs_objects import TEXTS, a_ct_header, a_header, a_source, an_explanation, told_everywhere

from service.errors import GscoError
from service.intake.dataset import opened, require_image
from service.intake.limits import Limits
from service.pacs.answer import source_for
from service.pacs.content import Algorithm, Written
from service.pacs.outbox import Letter
from service.pacs.results import File, files
from service.pacs.segmentation import Segment, segmentation
from service.pacs.source import Source, anonymous, discreet, source_of
from specialists.task import Label

pytestmark = pytest.mark.pacs

DATA = Path(os.environ.get("GSCO_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
NOT_OURS = (
    # What a source is wrong about stays wrong: its frames and identifiers are referred to as told.
    "Shall not be present for Referenced SOP Class that is not multi-frame",
    "StudyInstanceUID has same value as FrameOfReferenceUID",
    # A summary of errors that are listed one by one.
    "Dicom dataset contains invalid data values for Value Representations",
)


def objects(result: Written, source: Source) -> Iterator[File]:
    """The DICOM files of a result, a segmentation among them where there is an image."""
    for file in files(result, source, a_task(), a_picture(), (an_explanation(),)):
        if file.name.endswith(".dcm"):
            yield file
    image = source.image
    if image is not None and 0 < image.rows * image.columns < 10**6:
        mask = np.zeros((image.rows, image.columns), bool)
        mask[:4, :4] = True
        made = segmentation(
            result, source, [Segment(Label("lesion"), mask)], Algorithm("unet", "1", sha256_of("u"))
        )
        yield File("segmentation.dcm", "application/dicom", made)


def verdicts(file: File, folder: Path) -> list[str]:
    """What dciodvfy finds wrong with an object."""
    path = folder / file.name
    path.write_bytes(file.data)
    told = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    found = [line for line in told.stderr.splitlines() if line.startswith("Error")]
    return [line for line in found if not any(known in line for known in NOT_OURS)]


def dumped(file: File, folder: Path) -> str:
    """The tree that dsrdump reads, all of every text; fails where it cannot."""
    path = folder / file.name
    path.write_bytes(file.data)
    told = subprocess.run(
        ["dsrdump", "+U8", "+Pl", path], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    return told.stdout


SOURCES = {
    "radiograph": a_source(),
    "frame": a_source(2, NumberOfFrames=3, SOPClassUID="1.2.840.10008.5.1.4.1.1.7.4"),
    "slice": source_of(a_ct_header()),
    "names": a_source(PatientName="Yamada^Tarou=山田^太郎", StudyDescription="胸部"),
    "nobody": anonymous("6f7c2f0e"),
    "outside": source_for(Letter("6f7c2f0e", header=a_header().to_json_dict()), b"key"),
    "elsewhere": anonymous("6f7c2f0e", a_source().image),
    "private": a_source(SOPClassUID="1.2.3.4.5.6"),
    "bare": a_source(
        PatientID=None, PatientName=None, StudyDate=None, StudyTime=None, AccessionNumber=None
    ),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_object_obeys_its_definition(source: Source, tmp_path: Path) -> None:
    diagnosis = a_diagnosis(
        label_set=("pneumonia",),
        coverage=0.9,
        review_reasons=("low",),
        evidence=some_evidence(segmentations=(a_segmentation(),)),
    )

    found = [verdict for file in objects(diagnosis, source) for verdict in verdicts(file, tmp_path)]

    assert found == []


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_text_makes_an_object_invalid(text: str, tmp_path: Path) -> None:
    for result in (told_everywhere(text), a_report(findings=text, impression=text)):
        for file in objects(result, a_source()):
            # The referee counts the bytes of a value, the standard its characters.
            found = verdicts(file, tmp_path)
            assert [one for one in found if one.isascii() or "Length invalid" not in one] == []
            if file.name in {"sr.dcm", "key-object.dcm"}:
                dumped(file, tmp_path)


def test_dcmtk_reads_the_tree(tmp_path: Path) -> None:
    report, *_ = objects(a_diagnosis(), a_source())

    tree = dumped(report, tmp_path)

    assert "Comprehensive SR Document" in tree
    assert 'NUM:(,,"Probability")="0.9" ({probability},UCUM,"probability")' in tree
    assert "PRELIMINARY" in tree
    assert "UNVERIFIED" in tree
    assert sha256_of("arbitration prompt") in tree


@pytest.mark.slow
def test_results_of_real_files_are_as_valid_as_the_files(tmp_path: Path) -> None:
    if not (DATA / "dicom" / "index.json").is_file():
        pytest.skip("no DICOM collection: set GSCO_TEST_DATA to the folder that holds dicom")
    written = 0
    for path in sorted(named_files()):
        try:
            with discreet():
                file = opened(path.read_bytes(), Limits())
                require_image(file)
            source = source_of(file.dataset)
        except GscoError:
            continue
        for written_file in objects(a_diagnosis(), source):
            assert verdicts(written_file, tmp_path) == []
            written += 1

    assert written > 100


def named_files() -> set[Path]:
    """Every file of the collection that decodes."""
    folder = DATA / "dicom"
    index = json.loads((folder / "index.json").read_text("utf-8"))
    return {folder / entry["file"] for entry in index if entry["pixels"].startswith("ok")}
