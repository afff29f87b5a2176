"""Images named on a DICOMweb source: what it holds, and every form that takes a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import a_question_task, a_report_task, task_toml
from dicom_files import NAME, dicom
from dicomweb_origin import Origin
from listening import listening
from serving import Service, a_service, problem_of

from service.intake.limits import Limits
from service.intake.sandbox import Sandbox
from service.persistence import trail

INSTANCE = {
    "source": "hospital",
    "study_instance_uid": "1.2.3",
    "series_instance_uid": "1.2.3.4",
    "sop_instance_uid": "1.2.3.4.5",
}


@pytest.fixture
def sources() -> Iterator[list[dict[str, str]]]:
    """A study of two radiographs and a report about them."""
    images = [dicom(SOPInstanceUID=f"1.2.3.4.{n}") for n in (5, 6)]
    report = dicom(None, SOPInstanceUID="1.2.3.9.1", SeriesInstanceUID="1.2.3.9", Modality="SR")
    with listening(Origin([*images, report]).app) as base:
        yield [{"name": "hospital", "url": f"{base}/dicom-web"}]


def serving(home: Path, sources: list[dict[str, str]], **more: Any) -> Any:
    for task in (
        a_report_task(consults="cxr-pneumonia"),
        a_question_task(consults="cxr-pneumonia"),
    ):
        (home / "tasks" / f"{task.name}.toml").write_text(task_toml(task), "utf-8")
    return a_service(home, intake=Sandbox(Limits()), dicomweb_sources=sources, **more)


async def named(service: Service, address: str, **fields: Any) -> Any:
    return await service.client.post(address, json={**INSTANCE, **fields})


async def test_sources_are_listed_by_name_alone(home: Path, sources: list[dict[str, str]]) -> None:
    async with serving(home, sources) as service:
        reply = await service.client.get("/v1/sources")

    assert reply.json() == {"sources": ["hospital"]}


async def test_a_study_is_searched_for_its_images(
    home: Path, sources: list[dict[str, str]]
) -> None:
    async with serving(home, sources) as service:
        wanted = {"study_instance_uid": "1.2.3"}
        reply = await service.client.post("/v1/sources/hospital/search", json=wanted)

    found = reply.json()["instances"]
    assert [one["sop_instance_uid"] for one in found] == ["1.2.3.4.5", "1.2.3.4.6"]
    assert {one["modality"] for one in found} == {"CR"}


async def test_an_unknown_source_or_study_is_named_as_such(
    home: Path, sources: list[dict[str, str]]
) -> None:
    async with serving(home, sources) as service:
        post, study = service.client.post, {"study_instance_uid": "1.2.4"}
        nowhere = await post("/v1/sources/elsewhere/search", json=study)
        nothing = await post("/v1/sources/hospital/search", json=study)
        no_uid = await post("/v1/sources/hospital/search", json={"study_instance_uid": "../x"})

    assert [problem_of(one) for one in (nowhere, nothing, no_uid)] == [
        "invalid-input",
        "not-found",
        "invalid-input",
    ]


async def test_a_frame_of_a_source_is_shown_without_its_patient(
    home: Path, sources: list[dict[str, str]]
) -> None:
    async with serving(home, sources) as service:
        reply = await named(service, "/v1/frames")

    assert reply.headers["content-type"] == "image/png"
    assert b"gsco-frame" in reply.content
    assert NAME.encode() not in reply.content


@pytest.mark.parametrize(
    ("address", "fields"),
    [
        ("/v1/explanations", {"task": "cxr-pneumonia", "specialist": "resnet18"}),
        ("/v1/reports", {"task": a_report_task().name}),
        ("/v1/answers", {"task": a_question_task().name, "question": "?", "choices": ["a", "b"]}),
    ],
)
async def test_whatever_takes_a_file_takes_a_reference(
    home: Path, sources: list[dict[str, str]], address: str, fields: dict[str, Any]
) -> None:
    async with serving(home, sources) as service:
        reply = await named(service, address, **fields)

    assert reply.status_code in {200, 201}, reply.text


async def test_results_are_written_beside_the_image_of_the_source(
    home: Path, sources: list[dict[str, str]]
) -> None:
    async with serving(home, sources) as service:
        made = await named(service, "/v1/diagnoses", task="cxr-pneumonia")
        reply = await named(service, f"/v1/diagnoses/{made.json()['id']}/results")

    assert reply.headers["content-type"] == "application/zip"


async def test_who_read_of_a_source_is_in_the_audit_without_a_uid(
    home: Path, sources: list[dict[str, str]]
) -> None:
    async with serving(home, sources, pseudonym_key="secret") as service:
        await service.client.post(
            "/v1/sources/hospital/search", json={"study_instance_uid": "1.2.3"}
        )
        await named(service, "/v1/frames")
        events = [one for _, one in trail.events(service.engine)]

    assert [(one.action.value, one.kind, one.id) for one in events] == [
        ("read", "source", "hospital")
    ] * 2
    assert all(one.details["of"] for one in events)
    assert "1.2.3" not in str([one.details for one in events])


async def test_an_instance_that_is_too_large_stops_no_others(home: Path) -> None:
    small, large = dicom(), dicom(np.full((256, 256), 5, np.uint8), SOPInstanceUID="1.2.3.4.6")
    with listening(Origin([large, small]).app) as base:
        sources = [{"name": "hospital", "url": f"{base}/dicom-web"}]
        async with serving(home, sources, max_upload_bytes=len(small) + 1000) as service:
            wanted = {"source": "hospital", "study_instance_uid": "1.2.3", "task": "cxr-pneumonia"}
            reply = await service.client.post("/v1/diagnoses", json=wanted)

    assert reply.status_code == 201
    assert [one["sop_instance_uid"] for one in reply.json()["diagnoses"]] == ["1.2.3.4.5"]
    assert [one["sop_instance_uid"] for one in reply.json()["refused"]] == ["1.2.3.4.6"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"source": "elsewhere"}, "invalid-input"),
        ({"sop_instance_uid": None}, "invalid-request"),
        ({"sop_instance_uid": "1.2.3.4.7"}, "not-found"),
        ({"file": "mine"}, "invalid-request"),
        ({"extra": {"deep": 1}}, "invalid-request"),
        ({"frame": 0}, "invalid-request"),
    ],
)
async def test_a_reference_that_is_none_is_refused(
    home: Path, sources: list[dict[str, str]], fields: dict[str, Any], problem: str
) -> None:
    async with serving(home, sources) as service:
        reply = await named(service, "/v1/frames", **fields)

    assert problem_of(reply) == problem


async def test_a_body_that_is_no_json_is_refused(home: Path, sources: list[dict[str, str]]) -> None:
    async with serving(home, sources) as service:
        headers = {"Content-Type": "application/json"}
        reply = await service.client.post("/v1/frames", content=b"{", headers=headers)

    assert problem_of(reply) == "invalid-request"
