"""`gsco evaluate` as a researcher types it: shipped weights, phantoms, real processes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Gsco, over
from PIL import Image

from service.demo import phantoms
from specialists import catalogue, loader

GSCO = str(Path(sys.executable).with_name("gsco"))
KILLS = 20


@pytest.fixture(scope="module")
def home(demonstration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(demonstration, tmp_path_factory.mktemp("evaluation") / "home")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "phantoms.npz"
    phantoms.write_npz("chest", file, train=40, val=40, test=100, size=128)
    return file


@pytest.fixture
def gsco(home: Path, capsys: pytest.CaptureFixture[str]) -> Gsco:
    """Runs a command line in this process."""
    return over(home, capsys)


def command(home: Path, *arguments: object) -> list[str]:
    return [GSCO, "--home", str(home), *map(str, arguments)]


def run(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GSCO_THREADS": "1"}
    return subprocess.run(
        command(home, *arguments),
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def evaluation(home: Path, data: Path, out: Path, *more: object) -> dict[str, Any]:
    done = run(
        home, "evaluate", "--task", "phantom-cxr", "--data", data, "--out", out, "--json", *more
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def most_accurate(panel: Path, count: int) -> list[str]:
    """On validation; of equals the one that the catalogue names first."""
    manifests = (loader.read_manifest(panel / key) for key in catalogue.PANEL)
    told = {one.backbone: one.validation["accuracy"] for one in manifests}
    return sorted(told, key=told.__getitem__, reverse=True)[:count]


def but_for_last_bits(figures: Any) -> Any:
    """Prompts that are computed in other company differ in the last bits of float32."""
    if isinstance(figures, dict):
        return {name: but_for_last_bits(one) for name, one in figures.items()}
    if isinstance(figures, list):
        return [but_for_last_bits(one) for one in figures]
    return pytest.approx(figures, rel=0, abs=1e-6) if isinstance(figures, float) else figures


def test_every_system_is_told_on_the_same_cases(home: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    found = evaluation(home, data, out, "--limit", 24, "--stress", "biased,random,contradictory")

    assert {one["cases"] for one in found["scores"]} == {24}
    assert len(found["scores"]) == 10 + 5 + 4
    assert found["deceived"]["biased"]["denominator"] == 3 * 24
    assert json.loads((out / "metrics.json").read_text()) == found
    assert (out / "report.html").read_text().startswith("<!doctype html>")


def test_fewer_specialists_and_neighbours_are_another_evaluation(
    home: Path, data: Path, tmp_path: Path
) -> None:
    asked = ("evaluate", "--task", "phantom-cxr", "--data", data, "--limit", 8, "--json")
    out = ("--out", tmp_path / "out")

    few = run(home, *asked, *out, "--leave-out", 7, "--k", 3)
    other = run(home, *asked, *out)

    systems = [one["system"] for one in json.loads(few.stdout)["scores"]]
    assert set(most_accurate(home / "specialists" / "phantom-cxr", 3)) == set(systems[:3])
    assert other.returncode == 2
    assert "holds another evaluation" in other.stderr


def test_one_specialists_hospital_is_measured_at_another(
    home: Path, data: Path, tmp_path: Path
) -> None:
    other = home / "tasks" / "elsewhere.toml"
    task = (home / "tasks" / "phantom-cxr.toml").read_text()
    other.write_text(task.replace('name = "phantom-cxr"', 'name = "elsewhere"'))

    done = run(
        home, "evaluate", "--cases", "elsewhere", "--specialists-from", "phantom-cxr",
        "--data", data, "--limit", 8, "--out", tmp_path / "out", "--json",
    )  # fmt: skip

    other.unlink()
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)["measured"]
    assert measured["specialists_from"] == "phantom-cxr"
    assert len(measured["index_ids"]) == 1
    assert all(
        known["id"].startswith("elsewhere-known-")
        for line in (tmp_path / "out" / "cases.jsonl").read_text().splitlines()
        for known in json.loads(line)["neighbours"]
    )


def test_a_test_set_seen_in_training_is_told_before_any_number(
    home: Path, data: Path, tmp_path: Path
) -> None:
    with np.load(data) as arrays:
        leaking = dict(arrays)
    leaking["test_images"] = leaking["test_images"].copy()
    leaking["test_images"][:3] = leaking["train_images"][:3]
    file = tmp_path / "leaking.npz"
    np.savez(file, **leaking)

    done = run(
        home, "evaluate", "--task", "phantom-cxr", "--data", file, "--limit", 8,
        "--out", tmp_path / "out",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "3 of 100 test cases have an image that is also in train" in done.stdout.split("|")[0]


def test_names_of_files_stay_out_of_the_folder(home: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder = a_folder(data, tmp_path / "data")
    (folder / "test" / "normal" / "Smith^John-8.png").write_text("not an image")

    done = run(home, "evaluate", "--task", "phantom-cxr", "--data", folder, "--out", out)

    assert done.returncode == 0, done.stderr
    assert "Smith^John-0.png" in done.stderr  # is among the training images too
    assert "Smith^John-8.png cannot be read" in done.stderr
    assert "Not read: phantom-cxr-" in done.stdout
    kept = [file.read_text() for file in out.rglob("*") if file.is_file()]
    assert not [text for text in kept if "Smith" in text]


def a_folder(data: Path, folder: Path) -> Path:
    """The same eight images for training and test, named after a patient."""
    names = ("normal", "pneumonia", "effusion", "nodule")
    with np.load(data) as arrays:
        images, labels = arrays["test_images"][:8], arrays["test_labels"][:8].ravel()
    for split in ("train", "val", "test"):
        for place, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            file = folder / split / names[label] / f"Smith^John-{place}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    (folder / "test" / "normal").mkdir(exist_ok=True)
    return folder


def test_an_image_that_is_named_twice_is_wrong_use(gsco: Gsco, data: Path, tmp_path: Path) -> None:
    folder = a_folder(data, tmp_path)
    rows = [f"{file.parts[-3]},{file.relative_to(folder)},{file.parts[-2]}"
            for file in sorted(folder.rglob("*.png"))]  # fmt: skip
    (folder / "index.csv").write_text("\n".join(["split,image,label", *rows, rows[-1]]))

    done = gsco("evaluate", "--task", "phantom-cxr", "--data", folder)

    assert done.code == 2
    assert "more than once" in done.err


def test_what_is_not_for_reports_is_not_ignored(gsco: Gsco, tmp_path: Path) -> None:
    asked = ("evaluate", "--task", "phantom-cxr-report", "--data", tmp_path)

    done = gsco(*asked, "--stress", "biased")

    assert done.code == 2
    assert "--stress is not for report tasks" in done.err


def test_reports_are_compared_with_references(home: Path, tmp_path: Path) -> None:
    assert run(home, "phantoms", "reports", "--out", tmp_path / "data", "--test", 6).returncode == 0

    done = run(
        home, "evaluate", "--task", "phantom-cxr-report", "--data", tmp_path / "data",
        "--labeller", "phantom", "--out", tmp_path / "out", "--limit", 4, "--json",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cases"] == 4
    assert "no training split to look for leaks in" in done.stderr
    scores = {one["system"]: one["figures"] for one in json.loads(done.stdout)["scores"]}
    assert set(scores) == {"report of the nearest case", "generalist alone", "GSCo"}
    assert scores["GSCo"]["finding_micro_f1"] > 0.5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--stress", "flattery"), "'flattery' is none of biased, random, contradictory"),
        (("--leave-out", "resnet50"), "no specialist 'resnet50' to leave out"),
        (("--specialists-from", "phantom-cxr"), "--specialists-from names the task of the cases"),
        (("--split", "holiday"), "has no split 'holiday'"),
        (("--labeller", "phantom"), "--labeller is for report tasks"),
        (("--calibrate", "--k", "3"), "--k asks otherwise than the service does"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_two(
    gsco: Gsco, data: Path, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    done = gsco("evaluate", "--task", "phantom-cxr", "--data", data, "--out", tmp_path, *arguments)

    assert done.code == 2
    assert sentence in done.err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_moment_it_ends_with_the_same_numbers(
    home: Path, data: Path, tmp_path: Path
) -> None:
    whole = evaluation(home, data, tmp_path / "whole")
    rng = random.Random(20261121)  # noqa: S311
    asked = ("evaluate", "--task", "phantom-cxr", "--data", data, "--out", tmp_path / "killed")

    for _ in range(KILLS):
        process = subprocess.Popen(
            command(home, *asked),
            env=os.environ | {"OMP_NUM_THREADS": "1", "GSCO_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.uniform(2, 14))
        process.send_signal(signal.SIGKILL)
        process.wait()

    assert evaluation(home, data, tmp_path / "killed") == but_for_last_bits(whole)
