"""Ways in for DICOM: a task chosen by rule, frames, and images named on a source."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import a_task, jpeg_bytes, task_toml
from dicom_files import dicom
from dicomweb_origin import Origin
from fakes import FakeGeneralist
from listening import listening
from serving import Service, a_service, problem_of

from service.errors import GeneralistUnavailable
from service.intake.limits import Limits
from service.intake.sandbox import Sandbox
from specialists.task import Rule

CHEST = Rule(modality=("CR", "DX"), body_part=("CHEST",))
FIVE = np.repeat(np.arange(1, 6, dtype=np.uint8) * 40, 32 * 32).reshape(5, 32, 32)
OF_A_CHEST = {"Modality": "DX", "BodyPartExamined": "CHEST"}


@asynccontextmanager
async def serving(home: Path, **more: Any) -> AsyncIterator[Service]:
    """A service that really decodes, with a task for radiographs of the chest."""
    task = a_task(rules=(CHEST,))
    (home / "tasks" / "cxr-pneumonia.toml").write_text(task_toml(task), "utf-8")
    sandbox = Sandbox(Limits(), key=b"secret")
    async with a_service(home, intake=sandbox, **more) as service:
        yield service


@pytest.fixture
def origin() -> Origin:
    """A study of two radiographs and a report about them."""
    images = [dicom(SOPInstanceUID=f"1.2.3.4.{n}", **OF_A_CHEST) for n in (5, 6)]
    report = dicom(None, SOPInstanceUID="1.2.3.9.1", SeriesInstanceUID="1.2.3.9", Modality="SR")
    return Origin([*images, report])


@pytest.fixture
def sources(origin: Origin) -> Iterator[list[dict[str, str]]]:
    with listening(origin.app) as base:
        yield [{"name": "hospital", "url": f"{base}/dicom-web"}]


async def post(service: Service, data: bytes, **fields: str) -> Any:
    return await service.client.post("/v1/diagnoses", files={"file": ("x", data)}, data=fields)


async def test_task_is_chosen_by_what_the_image_is(home: Path) -> None:
    async with serving(home) as service:
        reply = await post(service, dicom(**OF_A_CHEST))

    assert reply.status_code == 201
    assert reply.json()["task"] == "cxr-pneumonia"


async def test_image_that_fits_no_rule_needs_a_task(home: Path) -> None:
    async with serving(home) as service:
        replies = [
            await post(service, dicom(Modality="CT")),
            await post(service, jpeg_bytes()),
        ]

    assert [problem_of(reply) for reply in replies] == ["unsupported-image", "invalid-input"]
    assert all("name a task" in reply.json()["detail"] for reply in replies)


async def test_image_of_another_modality_is_for_a_person_to_look_at(home: Path) -> None:
    async with serving(home) as service:
        reply = await post(service, dicom(Modality="CT"), task="cxr-pneumonia")

    assert "the file says it is CT" in " ".join(reply.json()["review_reasons"])


@pytest.mark.parametrize(("frames", "numbers"), [("all", [1, 2, 3, 4, 5]), ("5,1-2,2", [5, 1, 2])])
async def test_frames_that_are_asked_for_have_a_diagnosis_each(
    home: Path, frames: str, numbers: list[int]
) -> None:
    async with serving(home) as service:
        reply = await post(service, dicom(FIVE, **OF_A_CHEST), frames=frames)

    found = reply.json()["diagnoses"]
    assert reply.status_code == 201
    assert [one["frame_number"] for one in found] == numbers
    assert len({one["diagnosis"]["id"] for one in found}) == len(numbers)
    assert found[0]["diagnosis"]["notes"][0] == f"Frame {numbers[0]} of 5 was used."
    assert {one["sop_instance_uid"] for one in found} == {"1.2.3.4.5"}


async def test_frame_that_does_not_exist_is_named_beside_those_that_do(home: Path) -> None:
    async with serving(home) as service:
        reply = await post(service, dicom(FIVE, **OF_A_CHEST), frames="4-6")

    (refused,) = reply.json()["refused"]
    assert len(reply.json()["diagnoses"]) == 2
    assert refused["frame_number"] == 6
    assert refused["type"] == "urn:gsco:problem:unsupported-image"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"frames": "6-9"}, "unsupported-image"),
        ({"frames": "1-999"}, "invalid-input"),
        ({"frames": "some"}, "invalid-input"),
        ({"frames": "all", "frame": "1"}, "invalid-input"),
    ],
)
async def test_frames_that_cannot_be_had_are_a_problem(
    home: Path, fields: dict[str, str], problem: str
) -> None:
    async with serving(home) as service:
        reply = await post(service, dicom(FIVE, **OF_A_CHEST), **fields)

    assert problem_of(reply) == problem


async def test_image_is_fetched_from_a_source_that_is_named(
    home: Path, sources: list[dict[str, str]]
) -> None:
    named = {"source": "hospital", "study_instance_uid": "1.2.3", "sop_instance_uid": "1.2.3.4.6"}
    async with serving(home, dicomweb_sources=sources) as service:
        reply = await service.client.post("/v1/diagnoses", json=named)
        (saved,) = service.store.saved.values()

    assert reply.status_code == 201
    assert reply.headers["location"] == f"/v1/diagnoses/{saved.id}"
    assert reply.json()["task"] == "cxr-pneumonia"


async def test_every_image_of_a_study_is_diagnosed(
    home: Path, sources: list[dict[str, str]]
) -> None:
    named = {"source": "hospital", "study_instance_uid": "1.2.3"}
    async with serving(home, dicomweb_sources=sources) as service:
        reply = await service.client.post("/v1/diagnoses", json=named)

    document = reply.json()
    assert [one["sop_instance_uid"] for one in document["diagnoses"]] == ["1.2.3.4.5", "1.2.3.4.6"]
    assert document["refused"][0]["sop_instance_uid"] == "1.2.3.9.1"
    assert "SR holds no image" in document["refused"][0]["detail"]


async def test_series_is_named_with_its_study(
    home: Path, sources: list[dict[str, str]], origin: Origin
) -> None:
    named = {"source": "hospital", "study_instance_uid": "1.2.3", "series_instance_uid": "1.2.3.4"}
    async with serving(home, dicomweb_sources=sources) as service:
        reply = await service.client.post("/v1/diagnoses", json=named)

    assert len(reply.json()["diagnoses"]) == 2
    assert reply.json()["refused"] == []
    assert origin.asked[0] == "/dicom-web/studies/1.2.3/series/1.2.3.4/instances"


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"source": "http://evil.example"}, "invalid-input"),
        ({"url": "http://evil.example"}, "invalid-request"),
        ({"study_instance_uid": "../../x"}, "invalid-input"),
        ({"study_instance_uid": "1.2.99"}, "not-found"),
        ({"frames": "all"}, "invalid-input"),
        ({"task": "no-such-task", "sop_instance_uid": "1.2.3.4.5"}, "unknown-task"),
    ],
)
async def test_only_what_the_settings_name_is_asked(
    home: Path, sources: list[dict[str, str]], more: dict[str, str], problem: str
) -> None:
    named = {"source": "hospital", "study_instance_uid": "1.2.3", **more}
    async with serving(home, dicomweb_sources=sources) as service:
        reply = await service.client.post("/v1/diagnoses", json=named)

    assert problem_of(reply) == problem
    assert "evil" not in reply.text


async def test_source_that_is_down_is_a_bad_gateway(home: Path) -> None:
    down = [{"name": "hospital", "url": "http://127.0.0.1:9"}]
    named = {"source": "hospital", "study_instance_uid": "1.2.3"}
    async with serving(home, dicomweb_sources=down) as service:
        reply = await service.client.post("/v1/diagnoses", json=named)

    assert reply.status_code == 502
    assert problem_of(reply) == "source-unavailable"


async def test_without_the_generalist_several_images_are_one_problem(
    home: Path, sources: list[dict[str, str]]
) -> None:
    nobody = FakeGeneralist(failure=GeneralistUnavailable("no generalist"))
    named = {"source": "hospital", "study_instance_uid": "1.2.3"}
    async with serving(home, dicomweb_sources=sources, generalist=nobody) as service:
        reply = await service.client.post("/v1/diagnoses", json=named)

    assert problem_of(reply) == "generalist-unavailable"


LATER = {"Prefer": "respond-async"}


async def test_an_image_of_a_source_is_diagnosed_later_and_once_for_a_key(
    home: Path, sources: list[dict[str, str]]
) -> None:
    named = {"source": "hospital", "study_instance_uid": "1.2.3", "sop_instance_uid": "1.2.3.4.5"}
    headers = {**LATER, "Idempotency-Key": "one"}
    async with serving(home, in_sql=True, dicomweb_sources=sources) as service:
        post = service.client.post
        first = await post("/v1/diagnoses", json=named, headers=headers)
        again = await post("/v1/diagnoses", json=named, headers=headers)
        other = await post("/v1/diagnoses", json={**named, "priority": "low"}, headers=headers)
        job = await service.ended(first.json()["id"])

    assert (first.status_code, again.status_code) == (202, 202)
    assert first.headers["location"] == again.headers["location"]
    assert problem_of(other) == "idempotency-key-reused"
    assert (job["status"], job["task"]) == ("succeeded", "cxr-pneumonia")


@pytest.mark.parametrize("headers", [LATER, {"Idempotency-Key": "one"}])
async def test_a_job_and_a_key_are_for_one_image(home: Path, headers: dict[str, str]) -> None:
    several = {"files": {"file": ("x", dicom(FIVE, **OF_A_CHEST))}, "data": {"frames": "all"}}
    async with serving(home, in_sql=True) as service:
        reply = await service.client.post("/v1/diagnoses", headers=headers, **several)

    assert problem_of(reply) == "invalid-input"
    assert "one image" in reply.json()["detail"]
