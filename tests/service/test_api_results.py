"""Stories of callers who take a diagnosis to their PACS, beside the image they kept."""

import io
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest
from builders import a_diagnosis, a_provenance, png_bytes
from fakes import FakeSpecialists, FakeStore
from pacs_objects import STUDY, a_header, file_of, read_back
from serving import a_service, problem_of

from service.domain import Diagnosis


def a_diagnosis_of(file: bytes) -> Diagnosis:
    return a_diagnosis(provenance=a_provenance(input_sha256=sha256(file).hexdigest()))


async def ask(
    home: Path, diagnosis: Diagnosis, file: bytes, specialists: FakeSpecialists | None = None
) -> httpx.Response:
    store = FakeStore(saved={diagnosis.id: diagnosis})
    async with a_service(home, store=store, specialists=specialists) as service:
        files = {"file": ("Doe.dcm", file)}
        return await service.client.post(f"/v1/diagnoses/{diagnosis.id}/results", files=files)


def unpacked(reply: httpx.Response) -> dict[str, bytes]:
    with ZipFile(io.BytesIO(reply.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


async def test_a_dicom_file_gives_every_object_in_its_own_study(home: Path) -> None:
    file = file_of(a_header())
    reply = await ask(home, a_diagnosis_of(file), file)

    objects = unpacked(reply)
    assert reply.headers["content-type"] == "application/zip"
    assert set(objects) == {"sr.dcm", "capture-1.dcm", "key-object.dcm", "fhir.json", "oru.hl7"}
    studies = {read_back(objects[n]).StudyInstanceUID for n in objects if n.endswith(".dcm")}
    assert studies == {STUDY}


async def test_a_picture_gives_objects_about_nobody(home: Path) -> None:
    reply = await ask(home, a_diagnosis_of(png_bytes()), png_bytes())

    objects = unpacked(reply)
    assert set(objects) == {"sr.dcm", "capture-1.dcm", "key-object.dcm", "fhir.json"}
    assert read_back(objects["sr.dcm"]).PatientIdentityRemoved == "YES"


async def test_results_are_written_without_heat_maps_where_nobody_can_make_them(
    home: Path,
) -> None:
    missing = dict.fromkeys(("vgg16", "resnet18"), "no weights")
    reply = await ask(
        home, a_diagnosis_of(png_bytes()), png_bytes(), FakeSpecialists(missing=missing)
    )

    assert set(unpacked(reply)) == {"sr.dcm", "fhir.json"}


async def test_another_file_is_refused(home: Path) -> None:
    reply = await ask(home, a_diagnosis_of(b"this one"), png_bytes())

    assert problem_of(reply) == "invalid-input"
    assert "not the file" in reply.json()["detail"]


@pytest.mark.parametrize("id", ["no-id", "00000000-0000-0000-0000-000000000000"])
async def test_an_unknown_diagnosis_is_not_found(home: Path, id: str) -> None:
    async with a_service(home) as service:
        files = {"file": ("x", png_bytes())}
        reply = await service.client.post(f"/v1/diagnoses/{id}/results", files=files)

    assert problem_of(reply) == "not-found"
