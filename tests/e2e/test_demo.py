"""The main job, as a newcomer types it: real processes, shipped weights, real files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.data import get_testdata_file
from vllm_server import free_port

GSCO = str(Path(sys.executable).with_name("gsco"))
PARTS_OF_PROVENANCE = {
    "input_sha256",
    "code_version",
    "preprocessing_version",
    "task_sha256",
    "weights",
    "index_ids",
    "prompt_template",
    "initial_prompt_sha256",
    "arbitration_prompt_sha256",
    "generalist",
}


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "GSCO_HOME": str(home),
        "GSCO_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [GSCO, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "home"


@pytest.fixture(scope="module")
def demo(home: Path) -> dict[str, Any]:
    done = run(home, "demo", "--once", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_demo_task_is_diagnosed_with_all_its_evidence(demo: dict[str, Any]) -> None:
    assert len(demo["cases"]) == 4
    for case in demo["cases"]:
        diagnosis = case["diagnosis"]
        assert case["label"]
        assert case["truth"]
        assert len(diagnosis["evidence"]["moed"]) == 10
        assert diagnosis["evidence"]["rad"]
        assert diagnosis["initial"]["labels"]
        assert diagnosis["degraded"] == []
        assert set(diagnosis["provenance"]) >= PARTS_OF_PROVENANCE


def test_a_task_with_a_segment_is_outlined_too(demo: dict[str, Any]) -> None:
    outlined = {
        case["task"]: case["diagnosis"]["evidence"]["segmentations"] for case in demo["cases"]
    }

    (lesion,) = outlined.pop("phantom-cxr")
    assert (lesion["specialist"], lesion["segment"]) == ("unet", "lesion")
    assert not any(outlined.values())


def test_probabilities_are_given_for_every_label(demo: dict[str, Any]) -> None:
    single = [case for case in demo["cases"] if case["task"] != "phantom-cxr-findings"]
    for case in single:
        given = [entry["probability"] for entry in case["diagnosis"]["probabilities"]]

        assert sum(given) == pytest.approx(1, abs=1e-3)


def test_a_report_is_drafted_with_findings_and_impression(demo: dict[str, Any]) -> None:
    report = demo["report"]["report"]

    assert report["findings"]
    assert report["impression"]
    assert len(report["evidence"]["moed"]) == 10
    assert any(case["report"] for case in report["evidence"]["rad"])


def test_a_dicom_file_is_diagnosed_from_the_command_line(
    demo: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "case.dcm"
    task = demo["cases"][0]["task"]
    run(home, "phantoms", "image", "--task", task, "--label", "effusion", "--out", str(file))

    done = run(home, "diagnose", str(file), "--task", task, "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["task"] == task


def test_the_home_folder_is_prepared_where_callers_must_be_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GSCO_AUTHENTICATION", "true")

    done = run(tmp_path, "demo", "--prepare-only")

    assert (done.returncode, done.stdout) == (0, "")
    indexes = sorted(path.parent.name for path in tmp_path.glob("indexes/*/vgg16"))
    assert {"phantom-cxr", "phantom-derm"} <= set(indexes)


def test_a_running_service_reads_real_dicom_and_ends_when_told(
    demo: dict[str, Any], home: Path
) -> None:
    port = free_port()
    environment = os.environ | {"GSCO_HOME": str(home), "GSCO_PORT": str(port)}
    file = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()

    with subprocess.Popen([GSCO, "serve"], env=environment, stderr=subprocess.DEVNULL) as service:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                wait_until_ready(client)
                form = {"task": demo["cases"][0]["task"]}
                made = client.post("/v1/diagnoses", files={"file": ("x", file)}, data=form)
                read = client.get(made.headers["Location"])
        finally:
            service.terminate()

    assert made.status_code == 201
    assert read.json() == made.json()
    assert "CompressedSamples" not in made.text  # the patient's name in that file
    assert service.returncode in {0, -signal.SIGTERM}  # uvicorn closes, then passes the signal on


def wait_until_ready(client: httpx.Client, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if client.get("/readyz").status_code == httpx.codes.OK:
                return
        except httpx.ConnectError:
            pass
        time.sleep(0.2)
    raise TimeoutError("the service did not become ready")
