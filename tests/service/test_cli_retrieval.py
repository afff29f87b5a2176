"""`gsco retrieval`: are the indexes sound, do similar cases help, and which may be shown."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders import a_reference_case, a_report_task, a_task, png_bytes, sha256_of, task_toml
from databases import a_database
from pydicom import dcmread
from sqlalchemy import Engine

from retrieval import database, indexing, ingest
from service.cli.main import main
from service.demo import phantoms, tasks
from service.demo.home import SHIPPED
from service.intake.deidentify import pseudonym
from service.persistence.database import open_engine

TASK, SPECIALIST, ENCODER = "cxr-pneumonia", "resnet18", sha256_of("encoder")


@pytest.fixture
def engine(home: Path, home_database: str) -> Iterator[Engine]:
    """A home with 60 indexed cases whose vectors tell their label."""
    engine = open_engine(home_database)
    labels = ["normal", "pneumonia"] * 30
    cases = [a_reference_case(f"case {n}", labels=(name,)) for n, name in enumerate(labels)]
    ingest.ingest(engine, cases)
    random = np.random.default_rng(0)
    middles = {"normal": np.eye(8)[0] * 4, "pneumonia": np.eye(8)[1] * 4}
    vectors = {
        case.id: (middles[case.labels[0]] + random.normal(size=8)).astype(np.float32)
        for case in cases
    }
    ingest.store_vectors(engine, TASK, SPECIALIST, ENCODER, vectors)
    indexing.build(engine, home / "indexes", TASK, SPECIALIST)
    yield engine
    engine.dispose()


@pytest.fixture
def gsco(home: Path, engine: Engine, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """What the command line answers: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["--home", str(home), *map(str, arguments)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_sound_indexes_are_told_as_such(gsco) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = gsco("retrieval", "verify", "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert (row["specialist"], row["stored"], row["problems"]) == (SPECIALIST, 60, [])


def test_what_is_wrong_is_told_and_the_exit_code_says_so(gsco, home: Path) -> None:  # type: ignore[no-untyped-def]
    (file,) = (home / "indexes" / TASK / SPECIALIST).glob("main-*")
    file.write_bytes(b"garbage")
    code, out, _ = gsco("retrieval", "verify", "--task", TASK)
    assert code == 1
    assert "damaged" in out


def test_an_unknown_task_cannot_be_verified(gsco) -> None:  # type: ignore[no-untyped-def]
    code, _, err = gsco("retrieval", "verify", "--task", "nonsense")
    assert code == 2
    assert "unknown task 'nonsense'" in err


def test_the_assessment_ends_in_a_verdict(gsco) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = gsco("retrieval", "assess", "--task", TASK)
    assert code == 0
    assert "Verdict: similar cases help on this task." in out
    told = json.loads(gsco("retrieval", "assess", "--task", TASK, "--json")[1])
    assert told["verdict"] == "helps"
    assert told["over_prior"]["low"] > 0


def test_without_reference_cases_there_is_nothing_to_assess(gsco, home: Path) -> None:  # type: ignore[no-untyped-def]
    (home / "tasks" / "busi.toml").write_text(task_toml(a_task("busi")), "utf-8")
    code, _, err = gsco("retrieval", "assess", "--task", "busi")
    assert code == 1
    assert "20 are needed" in err


def test_options_narrow_what_the_settings_allow(  # type: ignore[no-untyped-def]
    gsco, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GSCO_RETRIEVAL_LICENCES", "CC0-1.0")
    file = tmp_path / "x.png"
    file.write_bytes(b"")
    code, _, err = gsco("retrieval", "search", file, "--task", TASK, "--licence", "internal")
    assert code == 2
    assert "'internal' is not among the licences that GSCO_RETRIEVAL_LICENCES allows" in err


# -- with real specialists --


@pytest.fixture
def told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """A home that knows phantom-cxr with two shipped specialists, and images with reports."""
    home, images = tmp_path / "told", tmp_path / "images"
    (home / "tasks").mkdir(parents=True)
    text = tasks.toml("phantom-cxr").replace("[[labels]]", PANEL + "\n[[labels]]", 1)
    (home / "tasks" / "phantom-cxr.toml").write_text(text)
    for key in ("resnet18", "vgg16"):
        shutil.copytree(SHIPPED / "phantom-cxr" / key, home / "specialists" / "phantom-cxr" / key)
    images.mkdir()
    with (images / "index.csv").open("w", newline="") as file:
        index = csv.writer(file)
        index.writerow(["split", "image", "label", "report"])
        for number, one in enumerate(phantoms.series("chest", 48, seed=3, size=64)):
            phantoms.write_png(one, images / f"{number}.png")
            split = "train" if number % 2 else "val"
            index.writerow([split, f"{number}.png", one.labels[0], one.report])

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["--home", str(home), *map(str, arguments)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    run.home, run.images = home, images  # type: ignore[attr-defined]
    return run


PANEL = 'panel = ["resnet18", "vgg16"]'


def test_reports_come_along_with_their_images(told) -> None:  # type: ignore[no-untyped-def]
    code, _, _ = told("retrieval", "ingest", "--task", "phantom-cxr", "--data", told.images)

    with a_database(told.home) as engine:
        stored = database.cases(engine, "phantom-cxr", limit=100)
    assert code == 0
    assert len(stored) == 24
    assert all("Impression" in case.report for case in stored)


def test_dicom_files_become_reference_cases_of_pseudonyms(  # type: ignore[no-untyped-def]
    told, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, one in enumerate(phantoms.series("chest", 48, seed=3, size=64)):
        phantoms.write_dicom(one, told.images / f"{number}.png")  # a file says itself what it is
    on = ("retrieval", "ingest", "--task", "phantom-cxr", "--data", told.images)

    unkeyed, _, sentence = told(*on)
    monkeypatch.setenv("GSCO_PSEUDONYM_KEY", "secret")
    keyed, _, _ = told(*on)

    engine = open_engine(f"sqlite:///{told.home / 'gsco.db'}")
    groups = {case.group for case in database.cases(engine, "phantom-cxr", limit=100)}
    engine.dispose()
    patient = dcmread(told.images / "1.png").PatientID
    assert (unkeyed, keyed) == (2, 0)
    assert "DICOM files need the secret GSCO_PSEUDONYM_KEY" in sentence
    assert pseudonym(b"secret", patient) in groups
    assert patient not in groups


def test_whether_similar_cases_help_is_asked_with_images_nobody_has_seen(told) -> None:  # type: ignore[no-untyped-def]
    on = ("--task", "phantom-cxr", "--data", told.images)
    told("retrieval", "ingest", *on)
    told("retrieval", "build", "--task", "phantom-cxr")

    code, out, _ = told("retrieval", "assess", *on, "--json")

    document = json.loads(out)
    assert code == 0
    assert (document["cases"], document["groups"]) == (24, 24)
    assert 0 <= document["neighbours"]["value"] <= 1
    assert document["verdict"] in {"helps", "undecided", "does not help"}


def test_without_indexes_it_cannot_be_asked(told) -> None:  # type: ignore[no-untyped-def]
    code, _, err = told("retrieval", "assess", "--task", "phantom-cxr", "--data", told.images)
    assert code == 1
    assert "no image has a neighbour" in err
    assert "has been built" in err


def test_cases_that_are_not_there_cannot_be_removed(gsco) -> None:  # type: ignore[no-untyped-def]
    code, _, err = gsco("retrieval", "remove", "nowhere")
    assert code == 2
    assert "no reference case of these ids" in err


def test_a_table_of_indexes_says_what_matters(gsco) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = gsco("retrieval", "stats")
    assert code == 0
    assert TASK in out
    assert ENCODER[:8] not in out
    (row,) = json.loads(gsco("retrieval", "stats", "--json")[1])
    assert row["encoder_sha256"] == ENCODER


def test_a_report_task_has_the_cases_of_the_task_that_it_consults(gsco, home: Path) -> None:  # type: ignore[no-untyped-def]
    told = task_toml(a_report_task(consults=TASK))
    (home / "tasks" / "cxr-report.toml").write_text(told, "utf-8")
    code, _, err = gsco("retrieval", "build", "--task", "cxr-report")
    assert code == 2
    assert f"those of '{TASK}' serve it" in err


def test_without_specialists_nothing_is_searched(gsco, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "image.png"
    file.write_bytes(png_bytes())

    code, _, err = gsco("retrieval", "search", file, "--task", TASK)

    assert code == 1
    assert f"no specialist for task '{TASK}' answers" in err
