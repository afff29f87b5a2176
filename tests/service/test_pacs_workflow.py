"""Orthanc drives the work by the files in deploy/orthanc, and its studies have the results."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from dicom_files import dicom
from listening import free_port
from pacs_service import OF_A_CHEST, SMOOTH, gsco
from peers import PASSWORD, USER, Orthanc, orthanc

pytestmark = pytest.mark.pacs

DEPLOY = Path(__file__).parents[2] / "deploy" / "orthanc"
STUDY = "1.2.3"


@pytest.fixture
def port() -> int:
    return free_port()


@contextmanager
def pacs(folder: Path, port: int, **more: Any) -> Iterator[Orthanc]:
    """An Orthanc that knows our AE title."""
    folder.mkdir()
    with orthanc(folder, DicomModalities={"gsco": ["GSCO", "127.0.0.1", port]}, **more) as running:
        yield running


def settings(running: Orthanc, port: int, target: dict[str, Any] | None = None) -> dict[str, Any]:
    """What gsco is told: who may send, and where results go."""
    by_stow = {"url": running.dicomweb_url, "user": USER, "password": PASSWORD}
    return {
        "dicom_port": port,
        "dicom_peers": "ORTHANC=127.0.0.1",
        "pacs_targets": [{"name": "orthanc", **(target or by_stow)}],
    }


def modalities(running: Orthanc) -> list[str]:
    """Of the series of the only study."""
    try:
        found = running.http.get("/series", params={"expand": ""}).json()
    except httpx.TransportError:
        return []
    return sorted(one["MainDicomTags"]["Modality"] for one in found)


def wait_until(holds: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def test_a_stable_series_comes_back_with_results_and_no_loop_forms(
    tmp_path: Path, home: Path, port: int
) -> None:
    lua = {"LuaScripts": [str(DEPLOY / "gsco.lua")], "StableAge": 1}
    with pacs(tmp_path / "orthanc", port, **lua) as running:
        by_c_store = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": running.dicom_port}
        with gsco(home, **settings(running, port, by_c_store)) as (_, store):
            running.add(dicom(SMOOTH, **OF_A_CHEST))
            wait_until(lambda: modalities(running) == ["DX", "OT", "SR"])
            time.sleep(4)  # what was stored becomes stable, too

            studies = running.http.get("/studies", params={"expand": ""}).json()
            assert [one["MainDicomTags"]["StudyInstanceUID"] for one in studies] == [STUDY]
            assert modalities(running) == ["DX", "OT", "SR"]
            assert len(store.saved) == 1
            assert len(running.http.get("/jobs").json()) == 1


@contextmanager
def following(running: Orthanc, cursor: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, str(DEPLOY / "follow.py"), "--seconds", "0.2"]
    where = ["--orthanc", f"http://127.0.0.1:{running.port}", "--cursor", str(cursor)]
    secret = {"ORTHANC_USER": USER, "ORTHANC_PASSWORD": PASSWORD}
    process = subprocess.Popen([*command, *where], env=os.environ | secret)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_what_comes_while_gsco_is_away_is_followed_up(
    tmp_path: Path, home: Path, port: int
) -> None:
    cursor = tmp_path / "cursor"
    with pacs(tmp_path / "orthanc", port) as running:
        running.add(dicom(SMOOTH, SOPInstanceUID="1.2.9.1", **OF_A_CHEST))
        with following(running, cursor):
            time.sleep(1)  # nobody is there to send to
        with (
            gsco(home, **settings(running, port)) as (_, store),
            following(running, cursor) as process,
        ):
            wait_until(lambda: modalities(running) == ["DX", "OT", "SR"])
            running.kill()
            time.sleep(1)
            running.start()
            running.add(dicom(SMOOTH, SOPInstanceUID="1.2.9.3", Modality="CT"))  # no task is for it
            running.add(dicom(SMOOTH, SOPInstanceUID="1.2.9.2", **OF_A_CHEST))
            wait_until(lambda: running.http.get("/statistics").json()["CountInstances"] == 7)
            time.sleep(1)

            assert process.poll() is None
            assert len(store.saved) == 2
