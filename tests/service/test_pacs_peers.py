"""Real peers send to a real socket: DCMTK, and Orthanc by C-STORE, STOW-RS and as a source."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from dicom_files import dicom
from fakes import FakeStore
from listening import free_port
from pacs_service import OF_A_CHEST, SMOOTH, gsco
from peers import PASSWORD, USER, Orthanc, dcmtk, orthanc

pytestmark = pytest.mark.pacs


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def peer(home: Path, port: int) -> Iterator[FakeStore]:
    """The store of a service that TESTSCU may send to."""
    with gsco(home, dicom_port=port, dicom_peers="TESTSCU=127.0.0.1") as (_, store):
        yield store


def storescu(port: int, *arguments: object) -> Any:
    return dcmtk("storescu", "-aet", "TESTSCU", "-aec", "GSCO", "127.0.0.1", port, *arguments)


def test_dcmtk_is_echoed_and_strangers_are_not(peer: FakeStore, port: int) -> None:
    known = dcmtk("echoscu", "-aet", "TESTSCU", "-aec", "GSCO", "127.0.0.1", port)
    stranger = dcmtk("echoscu", "-aet", "STRANGER", "-aec", "GSCO", "127.0.0.1", port)

    assert known.returncode == 0
    assert stranger.returncode != 0
    assert "Calling AE Title Not Recognized" in stranger.stderr


@pytest.mark.parametrize("proposal", ["-xi", "-xe", "-xb", "-xd"])
def test_dcmtk_stores_in_every_plain_transfer_syntax(
    peer: FakeStore, port: int, tmp_path: Path, proposal: str
) -> None:
    file = tmp_path / "image.dcm"
    file.write_bytes(dicom(SMOOTH, **OF_A_CHEST))

    sent = storescu(port, proposal, file)

    assert sent.returncode == 0, sent.stderr
    assert len(peer.saved) == 1


@pytest.mark.parametrize(
    ("tool", "proposal"),
    [(("dcmcrle",), "-xr"), (("dcmcjpeg", "+e1"), "-xs"), (("dcmcjpeg", "+eb"), "-xy")],
)
def test_dcmtk_stores_compressed_images(
    peer: FakeStore, port: int, tmp_path: Path, tool: tuple[str, ...], proposal: str
) -> None:
    plain, file = tmp_path / "plain.dcm", tmp_path / "image.dcm"
    plain.write_bytes(dicom(SMOOTH, **OF_A_CHEST))
    assert dcmtk(*tool, plain, file).returncode == 0

    sent = storescu(port, proposal, file)

    assert sent.returncode == 0, sent.stderr
    assert len(peer.saved) == 1


def test_dcmtk_learns_what_was_not_taken(peer: FakeStore, port: int, tmp_path: Path) -> None:
    file = tmp_path / "image.dcm"
    file.write_bytes(dicom(SMOOTH, Modality="CT"))

    sent = storescu(port, "-v", file)

    assert "Error: DataSetDoesNotMatchSOPClass" in sent.stderr + sent.stdout
    assert peer.saved == {}


@pytest.fixture
def pacs(tmp_path: Path, port: int) -> Iterator[Orthanc]:
    """An Orthanc that knows our AE title."""
    folder = tmp_path / "orthanc"
    folder.mkdir()
    modalities = {"gsco": ["GSCO", "127.0.0.1", port]}
    with orthanc(folder, DicomModalities=modalities) as running:
        yield running


def test_orthanc_sends_by_c_store(pacs: Orthanc, home: Path, port: int) -> None:
    with gsco(home, dicom_port=port, dicom_peers="ORTHANC=127.0.0.1") as (_, store):
        instance = pacs.add(dicom(SMOOTH, **OF_A_CHEST))

        reply = pacs.ask("/modalities/gsco/store", instance)

        assert reply.is_success, reply.text
        assert [saved.task for saved in store.saved.values()] == ["cxr-pneumonia"]


def test_orthanc_sends_by_stow(pacs: Orthanc, home: Path) -> None:
    with gsco(home) as (url, store):
        pacs.http.put("/dicom-web/servers/gsco", json={"Url": f"{url}/dicom-web/"})
        files = [dicom(SMOOTH, SOPInstanceUID=f"1.2.9.{n}", **OF_A_CHEST) for n in (1, 2)]
        instances = [pacs.add(file) for file in files]

        reply = pacs.ask("/dicom-web/servers/gsco/stow", {"Resources": instances})

        assert reply.is_success, reply.text
        assert len(store.saved) == 2


def test_orthanc_is_a_source(pacs: Orthanc, home: Path) -> None:
    pacs.add(dicom(SMOOTH, **OF_A_CHEST))
    secret = {"user": USER, "password": PASSWORD}
    sources = [{"name": "orthanc", "url": pacs.dicomweb_url, **secret}]
    with gsco(home, dicomweb_sources=sources) as (url, store):
        named = {"source": "orthanc", "study_instance_uid": "1.2.3"}
        study = httpx.post(f"{url}/v1/diagnoses", json=named, trust_env=False)
        one = {**named, "sop_instance_uid": "1.2.3.4.5"}
        instance = httpx.post(f"{url}/v1/diagnoses", json=one, trust_env=False)

    assert (study.status_code, instance.status_code) == (201, 201), study.text + instance.text
    assert study.json()["diagnoses"][0]["sop_instance_uid"] == "1.2.3.4.5"
    assert len(store.saved) == 2
