"""Stories of callers who send a request twice, because they did not hear the answer."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import a_picture, png_bytes
from callers import holding
from databases import a_queue
from fakes import FakeGeneralist
from serving import Service, a_service, problem_of
from sqlalchemy import text
from waiting import until

from service.errors import GeneralistUnavailable
from service.identity.caller import Scope
from service.jobs.keys import Key, Keys, Made

pytestmark = pytest.mark.usefixtures("either_database")

NAMED = {"Idempotency-Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}


async def diagnose(service: Service, data: bytes | None = None, **more: Any) -> httpx.Response:
    headers = {**NAMED, **more.pop("headers", {})}
    files = {"file": (more.pop("file_name", "image.png"), data or png_bytes())}
    form = {"task": "cxr-pneumonia", **more}
    return await service.client.post("/v1/diagnoses", files=files, data=form, headers=headers)


async def test_the_same_request_is_answered_once(home: Path) -> None:
    async with a_service(home) as service:
        first = await diagnose(service)
        second = await diagnose(service, file_name="the-same-under-another-name.png")

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert first.headers["location"] == second.headers["location"]
    assert len(service.store.saved) == 1


@pytest.mark.parametrize("changed", [{"group": "other"}, {"data": png_bytes(a_picture(seed=1))}])
async def test_the_key_of_another_request_is_refused(home: Path, changed: dict[str, Any]) -> None:
    async with a_service(home) as service:
        await diagnose(service)
        refused = await diagnose(service, **changed)

    assert (refused.status_code, problem_of(refused)) == (422, "idempotency-key-reused")
    assert len(service.store.saved) == 1


async def test_while_the_first_is_being_answered_the_second_is_told_so(home: Path) -> None:
    slow = FakeGeneralist(delay_seconds=0.2)
    async with a_service(home, generalist=slow) as service:
        first = asyncio.create_task(diagnose(service))
        await until(lambda: slow.asked)
        early = await diagnose(service)
        await first
        late = await diagnose(service)

    assert (early.status_code, problem_of(early)) == (409, "request-in-progress")
    assert late.json() == first.result().json()


async def test_the_same_job_is_accepted_once(home: Path) -> None:
    later = {"Prefer": "respond-async"}
    async with a_service(home, in_sql=True) as service:
        first = await diagnose(service, headers=later)
        await service.ended(first.json()["id"])
        second = await diagnose(service, headers=later)

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.headers["location"] == second.headers["location"]
    assert second.json()["status"] == "succeeded"


async def test_what_failed_is_tried_again_under_the_same_key(home: Path) -> None:
    away = FakeGeneralist(failure=GeneralistUnavailable("away"))
    async with a_service(home, generalist=away) as service:
        failed = await diagnose(service)
        away.failure = None
        again = await diagnose(service)

    assert (failed.status_code, again.status_code) == (503, 201)


@pytest.mark.parametrize("headers", [{}, {"Accept": "text/event-stream"}])
async def test_a_request_that_found_no_room_leaves_the_key_free(
    home: Path, headers: dict[str, str]
) -> None:
    slow = FakeGeneralist(delay_seconds=0.2)
    async with a_service(home, generalist=slow, max_concurrent_cases=1) as service:
        first = asyncio.create_task(service.diagnose())
        with service.app.state.serving.admission.enter():
            refused = await diagnose(service, headers=headers)
        await first
        again = await diagnose(service, headers=headers)

    assert (refused.status_code, again.status_code) == (503, 201)


async def test_a_stream_is_told_again_by_its_end(home: Path) -> None:
    stream = {"Accept": "text/event-stream"}
    async with a_service(home) as service:
        first = await diagnose(service, headers=stream)
        second = await diagnose(service, headers=stream)

    assert second.text.startswith("event: final\n")
    assert first.text.endswith(second.text)
    assert len(service.store.saved) == 1


async def test_a_caller_who_leaves_frees_the_key(home: Path) -> None:
    slow = FakeGeneralist(delay_seconds=30)
    async with a_service(home, generalist=slow) as service:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await diagnose(service)
        slow.delay_seconds = 0.0
        again = await diagnose(service)

    assert again.status_code == 201


async def test_keys_are_kept_as_hashes_and_belong_to_an_address(home: Path) -> None:
    async with a_service(home) as service:
        await diagnose(service)
    with a_queue(home) as queue, queue.engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM idempotency_keys")).fetchall()

    assert len(rows) == 1
    assert "8e03978e" not in str(rows)


async def test_what_one_caller_made_is_not_told_to_another(home: Path) -> None:
    async with a_service(home, authentication=True) as service:
        mine, yours = (holding(service.engine, Scope.SUBMIT) for _ in range(2))
        first = await diagnose(service, headers=mine)
        second = await diagnose(service, headers=yours)

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]


@pytest.mark.parametrize("name", ["", '"a', 'a"b', "x" * 256, "a b"])
async def test_a_key_that_is_none_is_refused(home: Path, name: str) -> None:
    async with a_service(home) as service:
        refused = await diagnose(service, headers={"Idempotency-Key": name})

    assert (refused.status_code, problem_of(refused)) == (400, "malformed-request")


async def test_two_keys_are_none(home: Path) -> None:
    async with a_service(home) as service:
        files = {"file": ("image.png", png_bytes())}
        refused = await service.client.post(
            "/v1/diagnoses",
            files=files,
            data={"task": "cxr-pneumonia"},
            headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")],
        )

    assert problem_of(refused) == "malformed-request"


async def test_the_key_of_a_process_that_died_is_taken_over_with_its_id(home: Path) -> None:
    key, made = Key("0" * 64, "1" * 64), Made("diagnosis", "first-id", is_ready=False)
    with a_queue(home) as queue:
        dead, alive = Keys(queue, "dead", 15), Keys(queue, "alive", 15)
        await dead.take(key, made)
        taken = await alive.take(key, Made("diagnosis", "second-id", is_ready=False))
        await alive.settle(key)
        again = await dead.take(key, made)

    assert taken == made  # the dead one's id: what it may have stored is replaced, not doubled
    assert again == Made("diagnosis", "first-id", is_ready=True)
