"""Reports, answers and streams as users get them: from the command line, and over a socket."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread

from service.demo import phantoms

GSCO = Path(sys.executable).with_name("gsco")
STREAM = {"accept": "text/event-stream"}
QUESTION = ("--question", "Is there [/b] effusion?", "--choice", "yes", "--choice", "no")


@pytest.fixture(scope="module")
def home(demonstration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(demonstration, tmp_path_factory.mktemp("asking") / "home")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph: no chest X-ray, as its DICOM attributes say."""
    file = tmp_path_factory.mktemp("image") / "case.dcm"
    phantoms.write_dicom(phantoms.draw("dermoscopy", ["nevus"], seed=3, size=128), file)
    return file


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    """A service that listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    settings = {"GSCO_HOME": str(home), "GSCO_PORT": str(port), "GSCO_MAX_CONCURRENT_CASES": "1"}
    environment = os.environ | settings
    with subprocess.Popen([GSCO, "serve"], env=environment, stderr=subprocess.DEVNULL) as service:
        try:
            wait_until_ready(url)
            yield url
        finally:
            service.terminate()


def wait_until_ready(url: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(httpx.ConnectError):
            if httpx.get(f"{url}/readyz").status_code == httpx.codes.OK:
                return
        time.sleep(0.2)
    raise TimeoutError("the service did not become ready")


def gsco(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(GSCO), "--home", str(home), *map(str, arguments)]
    wide = os.environ | {"COLUMNS": "160"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=wide
    )


def test_a_report_from_the_command_line_with_a_draft(home: Path, image: Path) -> None:
    draft = image.with_name("draft.txt")
    draft.write_text("Findings: Right pleural effusion. Impression: Effusion.")

    done = gsco(home, "report", image, "--task", "phantom-cxr-report", "--draft", draft, "--json")

    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert report["text"]
    assert len(report["draft_sha256"]) == 64
    assert "the file says it is XC, the task is for chest X-ray" in report["review_reasons"]


def test_an_answer_from_the_command_line(home: Path, image: Path) -> None:
    task = ("--task", "phantom-cxr-questions")

    shown = gsco(home, "ask", image, *task, *QUESTION)
    answer = json.loads(gsco(home, "ask", image, *task, *QUESTION, "--json").stdout)

    assert shown.returncode == 0, shown.stderr
    assert "Is there [/b] effusion?" in shown.stdout
    assert answer["answer"] in {"yes", "no"}


def test_several_labels_from_the_command_line(home: Path, image: Path) -> None:
    done = gsco(home, "diagnose", image, "--task", "phantom-cxr-findings")

    assert done.returncode == 0, done.stderr
    assert re.search(r"generalist, with evidence \(\w+\)", done.stdout)


def test_standard_objects_from_the_command_line(home: Path, image: Path) -> None:
    out = image.with_name("results")

    done = gsco(
        home, "diagnose", image, "--task", "phantom-derm", "--results", out, "--json"
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {
        "sr.dcm", "capture-1.dcm", "key-object.dcm", "fhir.json", "oru.hl7"
    }  # fmt: skip
    asked, report = dcmread(image), dcmread(out / "sr.dcm")
    assert (report.StudyInstanceUID, report.PatientID) == (asked.StudyInstanceUID, asked.PatientID)
    assert json.loads(done.stdout)["labels"][0] in (out / "oru.hl7").read_text("utf-8").lower()


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/diagnoses", {"task": "phantom-cxr-findings"}),
        ("/v1/reports", {"task": "phantom-cxr-report"}),
        ("/v1/answers", {"task": "phantom-cxr-questions", "question": "What is shown?"}),
    ],
)
def test_stages_arrive_over_a_socket(
    address: str, image: Path, path: str, fields: dict[str, str]
) -> None:
    events = list(streamed(address, image, path, fields))
    final = events[-1][1]
    stored = httpx.get(f"{address}{path}/{final['id']}").json()

    names = [name for name, _ in events]
    assert names[-1] == "final"
    assert {"initial", "specialists", "retrieval"} <= set(names)
    assert stored == final


def streamed(
    address: str, image: Path, path: str, fields: dict[str, str]
) -> Iterator[tuple[str, Any]]:
    files = {"file": ("image", image.read_bytes())}
    with httpx.stream(
        "POST", address + path, files=files, data=fields, headers=STREAM, timeout=60
    ) as reply:
        assert reply.status_code == 201
        name = ""
        for line in reply.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


def test_who_leaves_a_stream_makes_room(address: str, image: Path) -> None:
    first = next(streamed(address, image, "/v1/reports", {"task": "phantom-cxr-report"}))

    deadline = time.monotonic() + 20
    while "gsco_cases_in_progress 0.0" not in httpx.get(f"{address}/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    again = list(streamed(address, image, "/v1/reports", {"task": "phantom-cxr-report"}))

    assert first[0] in {"initial", "specialist", "specialists"}
    assert again[-1][0] == "final"
