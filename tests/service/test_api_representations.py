"""A stored diagnosis in the representation that a caller asks for."""

from pathlib import Path

import httpx
import pytest
from builders import a_diagnosis
from fakes import FakeStore
from pacs_objects import group_named, read_back, said
from serving import a_service, problem_of

DIAGNOSIS = a_diagnosis()


async def get(home: Path, accept: str | None, id: str = DIAGNOSIS.id) -> httpx.Response:
    headers = {} if accept is None else {"accept": accept}
    async with a_service(home, store=FakeStore(saved={DIAGNOSIS.id: DIAGNOSIS})) as service:
        return await service.client.get(f"/v1/diagnoses/{id}", headers=headers)


async def test_a_structured_report_tells_the_whole_diagnosis(home: Path) -> None:
    reply = await get(home, "application/dicom")

    assert reply.headers["content-type"] == "application/dicom"
    document = read_back(reply.content)
    assert ("Finding", "pneumonia") in said(group_named(document, "finding 1"))
    assert document.PatientIdentityRemoved == "YES"
    assert document.PatientName == ""


async def test_a_fhir_bundle_tells_it_too(home: Path) -> None:
    reply = await get(home, "application/fhir+json")

    assert reply.headers["content-type"] == "application/fhir+json"
    kinds = {entry["resource"]["resourceType"] for entry in reply.json()["entry"]}
    assert kinds == {"DiagnosticReport", "Observation", "Provenance", "Device"}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("application/json;q=0.5, application/dicom", "application/dicom"),
        ("application/*;q=0.1, application/fhir+json", "application/fhir+json"),
    ],
)
async def test_the_caller_chooses_and_json_is_the_default(
    home: Path, accept: str | None, kind: str
) -> None:
    reply = await get(home, accept)

    assert reply.headers["content-type"] == kind
    assert reply.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    "accept", ["text/html", "x-application/hl7-v2+er7", "application/dicom;q=0"]
)
async def test_other_representations_do_not_exist(home: Path, accept: str) -> None:
    reply = await get(home, accept)

    assert (reply.status_code, problem_of(reply)) == (406, "not-acceptable")
    assert "application/fhir+json" in reply.json()["detail"]


async def test_what_is_not_there_is_so_in_every_representation(home: Path) -> None:
    reply = await get(home, "application/dicom", "00000000-0000-0000-0000-000000000000")

    assert (reply.status_code, problem_of(reply)) == (404, "not-found")


async def test_asking_twice_gives_the_same_object(home: Path) -> None:
    first, second = [await get(home, "application/dicom") for _ in range(2)]

    assert first.content == second.content


async def test_the_openapi_document_names_them_all(home: Path) -> None:
    async with a_service(home) as service:
        document = (await service.client.get("/openapi.json")).json()

    responses = document["paths"]["/v1/diagnoses/{id}"]["get"]["responses"]
    assert set(responses["200"]["content"]) == {
        "application/json",
        "application/dicom",
        "application/fhir+json",
    }
    assert "406" in responses
