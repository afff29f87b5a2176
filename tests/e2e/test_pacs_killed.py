"""The PACS and the service die while images come and results go: each image is answered once."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx
import pytest
from builders import a_task, task_toml
from dicom_files import dicom
from listening import free_port
from peers import PASSWORD, USER, Orthanc, dcmtk, orthanc

from specialists.task import Rule

pytestmark = [pytest.mark.pacs, pytest.mark.slow]

TESTS = Path(__file__).parents[1]
ASSOCIATIONS = 4
STORE = ("storescu", "-aet", "SCANNER", "-aec", "GSCO")
OF_A_STUDY = 25


@dataclass
class Service:
    """gsco in a process of its own, with models that are fakes and everything else real."""

    home: Path
    pacs: Orthanc
    port: int = field(default_factory=free_port)
    dicom_port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        target = {"name": "orthanc", "url": self.pacs.dicomweb_url}
        settings = {
            "GSCO_PACS_TARGETS": json.dumps([target | {"user": USER, "password": PASSWORD}]),
            "GSCO_DICOM_PORT": str(self.dicom_port),
            "GSCO_DICOM_PEERS": "SCANNER=127.0.0.1",
            "GSCO_PSEUDONYM_KEY": "secret",
            "GSCO_JOB_LEASE_SECONDS": "2",
            "GSCO_LOG_LEVEL": "warning",
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, str(TESTS / "jobs_server.py"), str(self.home), str(self.port)]
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=os.environ | settings, stderr=log)
        wait_until(self.is_up, 60)

    def is_up(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/livez", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Orthanc]:
    folder = tmp_path / "orthanc"
    folder.mkdir()
    with orthanc(folder) as running:
        yield running


@pytest.fixture
def service(home: Path, pacs: Orthanc) -> Iterator[Service]:
    task = a_task(rules=(Rule(modality=("DX",), body_part=("CHEST",)),))
    (home / "tasks" / "cxr-pneumonia.toml").write_text(task_toml(task), "utf-8")
    with Service(home, pacs) as running:
        yield running


def images(folder: Path, count: int) -> list[Path]:
    """So many radiographs, several to a study, dealt to a folder for each association."""
    files = []
    for number in range(count):
        study = f"1.2.3.{number // OF_A_STUDY}"
        uids = {"StudyInstanceUID": study, "SOPInstanceUID": f"1.2.9.{number}"}
        series = {"SeriesInstanceUID": f"{study}.1", "PatientID": study}
        file = folder / str(number % ASSOCIATIONS) / f"{number}.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(dicom(Modality="DX", BodyPartExamined="CHEST", **uids, **series))
        files.append(file)
    return files


def answers(pacs: Orthanc) -> Counter[str]:
    """How many structured reports the PACS has of each image."""
    found: Counter[str] = Counter()
    for one in pacs.http.get("/series", params={"expand": ""}).json():
        if one["MainDicomTags"]["Modality"] == "SR":
            found.update(source_of(pacs, instance) for instance in one["Instances"])
    return found


def source_of(pacs: Orthanc, report: str) -> str:
    tags = pacs.http.get(f"/instances/{report}/simplified-tags").json()
    (study,) = tags["CurrentRequestedProcedureEvidenceSequence"]
    (series,) = study["ReferencedSeriesSequence"]
    (image,) = series["ReferencedSOPSequence"]
    return str(image["ReferencedSOPInstanceUID"])


def unsent(service: Service) -> list[str]:
    """Letters that lie in the outbox still; what a kill left half-written goes after an hour."""
    files = (service.home / "spool" / "outbox").iterdir()
    return [path.stem for path in files if path.suffix != ".part"]


def count_of(pacs: Orthanc) -> int:
    try:
        return int(pacs.http.get("/statistics").json()["CountInstances"])
    except httpx.TransportError:
        return 0


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


@pytest.mark.timeout(900)
def test_500_images_of_4_associations_are_answered_once_though_the_pacs_dies_twice(
    tmp_path: Path, pacs: Orthanc, service: Service
) -> None:
    files, began = images(tmp_path / "images", 500), time.monotonic()
    with ThreadPoolExecutor(ASSOCIATIONS) as scanners:
        sent = [
            scanners.submit(
                dcmtk, *STORE, "+sd", "127.0.0.1", service.dicom_port, folder, seconds=600
            )
            for folder in sorted((tmp_path / "images").iterdir())
        ]
        for share in (0.25, 0.6):  # of the two objects that each image is answered with
            wait_until(lambda least=share: count_of(pacs) > least * 2 * len(files), 600)
            pacs.kill()
            time.sleep(2)
            pacs.start()
        assert [one.result().returncode for one in sent] == [0] * ASSOCIATIONS
    wait_until(lambda: count_of(pacs) >= 2 * len(files), 600)

    assert answers(pacs) == {f"1.2.9.{number}": 1 for number in range(len(files))}
    assert count_of(pacs) == 2 * len(files)
    wait_until(lambda: not unsent(service), 120)
    sys.stdout.write(f"{len(files)} images, 2 kills, {time.monotonic() - began:.0f} s\n")


@pytest.mark.timeout(300)
def test_what_was_taken_is_answered_once_though_the_service_dies(
    tmp_path: Path, pacs: Orthanc, service: Service
) -> None:
    files = images(tmp_path / "images", 40)
    taken: list[Path] = []
    with ThreadPoolExecutor(ASSOCIATIONS) as scanners:
        sent = [
            scanners.submit(keep_sending, service.dicom_port, files[number::4], taken)
            for number in range(ASSOCIATIONS)
        ]
        wait_until(lambda: len(taken) >= 15, 60)
        service.kill()
        service.start()
        for one in sent:
            one.result()
    wait_until(lambda: count_of(pacs) >= 2 * len(files), 120)

    assert answers(pacs) == {f"1.2.9.{number}": 1 for number in range(len(files))}
    wait_until(lambda: not unsent(service), 20)


def keep_sending(port: int, files: list[Path], taken: list[Path]) -> None:
    """A scanner that sends each image until it is told of success."""
    for file in files:
        while dcmtk(*STORE, "127.0.0.1", port, file).returncode != 0:
            time.sleep(0.3)
        taken.append(file)
