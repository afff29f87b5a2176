"""Stories of callers who ask where a specialist looked."""

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from builders import a_report_task, png_bytes, task_toml
from fakes import FakeIntake, FakeSpecialists
from PIL import Image
from serving import Service, a_service, problem_of

from service.domain import INTENDED_USE
from service.errors import ImageTooLarge


async def explain(service: Service, accept: str | None = None, **fields: Any) -> httpx.Response:
    form = {"task": "cxr-pneumonia", "specialist": "resnet18", **fields}
    headers = {} if accept is None else {"accept": accept}
    files = {"file": ("image.png", png_bytes())}
    return await service.client.post("/v1/explanations", files=files, data=form, headers=headers)


async def test_shows_the_heat_over_the_image(home: Path) -> None:
    async with a_service(home) as service:
        reply = await explain(service)

    picture = Image.open(io.BytesIO(reply.content))
    shown, image = np.asarray(picture), service.specialists.asked[0][0]
    assert reply.headers["content-type"] == "image/png"
    assert reply.headers["cache-control"] == "no-store"
    assert shown.shape == image.shape
    assert (shown[0, 0] != image[0, 0]).any()
    assert (shown[-1, -1] == image[-1, -1]).all()


async def test_the_picture_says_what_it_shows(home: Path) -> None:
    async with a_service(home) as service:
        reply = await explain(service, label="normal")

    text = Image.open(io.BytesIO(reply.content)).text
    assert (text["specialist"], text["label"]) == ("resnet18", "normal")
    assert text["intended_use"] == INTENDED_USE


async def test_gives_the_map_as_numbers_when_asked(home: Path) -> None:
    async with a_service(home, intake=FakeIntake(notes=("frame 2 of 3 was used",))) as service:
        reply = await explain(service, "application/json")

    body = reply.json()
    assert body["heat"] == [[1, 0, 0], [0, 0, 0]]
    assert (body["image_height"], body["image_width"]) == (32, 32)
    assert (body["label"], body["probability"]) == ("pneumonia", 0.8)
    assert body["notes"] == ["frame 2 of 3 was used"]
    assert reply.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("application/json;q=0.9, image/png;q=0.5", "application/json"),
        ("application/json, */*;q=0.1", "application/json"),
        ("image/png;q=0, */*", "application/json"),
    ],
)
async def test_the_caller_chooses_by_accept(home: Path, accept: str, kind: str) -> None:
    async with a_service(home) as service:
        reply = await explain(service, accept)

    assert reply.headers["content-type"] == kind


@pytest.mark.parametrize("accept", ["text/html", "image/png;q=none"])
async def test_other_representations_do_not_exist(home: Path, accept: str) -> None:
    async with a_service(home) as service:
        reply = await explain(service, accept)

    assert (reply.status_code, problem_of(reply)) == (406, "not-acceptable")
    assert service.specialists.asked == []


@pytest.mark.parametrize(
    ("fields", "status", "problem"),
    [
        ({"specialist": "vgg99"}, 422, "unknown-specialist"),
        ({"specialist": "vgg16"}, 503, "specialist-unavailable"),
        ({"label": "gout"}, 422, "unknown-label"),
        ({"task": "knee"}, 422, "unknown-task"),
        ({"colour": "red"}, 422, "invalid-request"),
        ({"specialist": ""}, 422, "invalid-request"),
    ],
)
async def test_says_what_is_wrong_with_the_request(
    home: Path, fields: dict[str, str], status: int, problem: str
) -> None:
    specialists = FakeSpecialists(missing={"vgg16": "no weights"})
    async with a_service(home, specialists=specialists) as service:
        reply = await explain(service, **fields)

    assert (reply.status_code, problem_of(reply)) == (status, problem)


async def test_a_report_task_has_no_specialists_of_its_own(home: Path) -> None:
    (home / "tasks" / "report.toml").write_text(task_toml(a_report_task()), "utf-8")
    async with a_service(home) as service:
        reply = await explain(service, task="cxr-report")

    assert (reply.status_code, problem_of(reply)) == (422, "invalid-input")
    assert "ask for 'cxr-findings'" in reply.json()["detail"]


async def test_an_image_that_is_too_large_is_refused_as_elsewhere(home: Path) -> None:
    async with a_service(home, intake=FakeIntake(failure=ImageTooLarge("too many"))) as service:
        reply = await explain(service)

    assert (reply.status_code, problem_of(reply)) == (413, "image-too-large")


async def test_an_explanation_needs_room_like_a_diagnosis(home: Path) -> None:
    async with a_service(home, max_concurrent_cases=1) as service:
        with service.app.state.serving.admission.enter():
            reply = await explain(service)

    assert (reply.status_code, problem_of(reply)) == (503, "overloaded")
    assert "retry-after" in reply.headers


async def test_nothing_is_stored(home: Path) -> None:
    async with a_service(home) as service:
        await explain(service)

    assert service.store.saved == {}
