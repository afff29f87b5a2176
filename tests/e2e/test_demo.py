"""The main job, as a newcomer types it: real processes, shipped weights, real files."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
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
    assert len(demo["cases"]) == 3
    for case in demo["cases"]:
        diagnosis = case["diagnosis"]
        assert case["label"]
        assert case["truth"]
        assert len(diagnosis["evidence"]["moed"]) == 10
        assert diagnosis["evidence"]["rad"]
        assert diagnosis["initial"]["labels"]
        assert diagnosis["degraded"] == []
        assert set(diagnosis["provenance"]) >= PARTS_OF_PROVENANCE


def test_probabilities_are_given_for_every_label(demo: dict[str, Any]) -> None:
    for case in demo["cases"]:
        given = [entry["probability"] for entry in case["diagnosis"]["probabilities"]]

        assert sum(given) == pytest.approx(1, abs=1e-3)


def test_a_dicom_file_is_diagnosed_from_the_command_line(
    demo: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "case.dcm"
    task = demo["cases"][0]["task"]
    run(home, "phantoms", "image", "--task", task, "--label", "effusion", "--out", str(file))

    done = run(home, "diagnose", str(file), "--task", task, "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["task"] == task
