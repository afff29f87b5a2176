"""Stories of requests that go wrong: every answer is a problem document."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from builders import png_bytes
from fakes import FakeRetriever
from serving import Service, a_service, problem_of
from starlette.types import Message

from service.api import middleware

TASK = {"task": "cxr-pneumonia"}


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"tsak": "cxr-pneumonia"}, "tsak", "is not known here"),
        ({"frame": "0"}, "frame", "greater than or equal to 1"),
        ({"frame": "last"}, "frame", "valid integer"),
        ({"group": "Doe, John"}, "group", "pattern"),
        ({"task": ["cxr-pneumonia", "busi"]}, "task", "was sent more than once"),
    ],
)
async def test_names_the_field_but_not_what_was_in_it(
    home: Path, fields: dict[str, str], field: str, message: str
) -> None:
    async with a_service(home) as service:
        reply = await service.diagnose(**fields)

    assert (reply.status_code, problem_of(reply)) == (422, "invalid-request")
    (error,) = reply.json()["errors"]
    assert (error["in"], error["field"]) == ("body", field)
    assert message in error["message"]
    assert "Doe" not in reply.text


async def test_a_file_is_required(home: Path) -> None:
    async with a_service(home) as service:
        replies = [
            await service.client.post("/v1/diagnoses", data=TASK),
            await service.client.post("/v1/diagnoses", data={**TASK, "file": "text"}),
            await service.client.post("/v1/diagnoses", content="text"),
            await service.client.post("/v1/diagnoses", json=TASK),
        ]

    assert [problem_of(reply) for reply in replies] == [
        "invalid-request",
        "invalid-request",
        "unsupported-media-type",
        "invalid-request",
    ]
    assert "must be a file" in replies[1].text


async def test_two_files_are_refused(home: Path) -> None:
    files = [("file", ("a.png", png_bytes())), ("file", ("b.png", png_bytes()))]
    async with a_service(home) as service:
        reply = await service.client.post("/v1/diagnoses", files=files, data=TASK)

    assert reply.json()["errors"][0]["message"] == "was sent more than once"


async def test_a_broken_form_is_malformed(home: Path) -> None:
    headers = {"content-type": "multipart/form-data; boundary=line"}
    async with a_service(home) as service:
        reply = await service.client.post("/v1/diagnoses", content=b"nonsense", headers=headers)

    assert (reply.status_code, problem_of(reply)) == (400, "malformed-request")


@pytest.mark.parametrize("address", ["/v1/tasks", "/v1/specialists", "/v1/diagnoses/x"])
async def test_an_unknown_option_is_named(home: Path, address: str) -> None:
    async with a_service(home) as service:
        reply = await service.client.get(address, params={"verbose": "1"})

    assert (reply.status_code, problem_of(reply)) == (422, "invalid-request")
    assert reply.json()["errors"][0]["field"] == "verbose"


async def test_a_body_over_the_limit_is_refused_by_its_length(home: Path) -> None:
    async with a_service(home, max_upload_bytes=1000) as service:
        reply = await service.diagnose(b"0" * 2000)
        elsewhere = await service.client.post("/nowhere", content=b"0" * 2000)

    assert (reply.status_code, problem_of(reply)) == (413, "body-too-large")
    assert reply.headers["connection"] == "close"
    assert problem_of(elsewhere) == "no-such-address"  # for which no body is read at all
    assert service.intake.asked == []


@pytest.mark.parametrize("claimed", [{}, {"content-length": "10"}])
async def test_a_body_over_the_limit_is_refused_as_it_comes(
    home: Path, claimed: dict[str, str]
) -> None:
    sent: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        yield b'--line\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for number in range(1000):
            sent.append(number)
            yield b"0" * 100

    headers = {"content-type": "multipart/form-data; boundary=line", **claimed}
    async with a_service(home, max_upload_bytes=1000) as service:
        reply = await service.client.post("/v1/diagnoses", content=endless(), headers=headers)

    assert (reply.status_code, problem_of(reply)) == (413, "body-too-large")
    assert len(sent) < 100


@pytest.mark.parametrize(
    "address", ["/v1/diagnoses", "/v1/sources/pacs/search", "/v1/diagnoses/x/review"]
)
async def test_a_document_is_small_however_large_images_may_be(home: Path, address: str) -> None:
    """Megabytes of JSON stood between everybody else and the event loop for seconds."""
    document = {str(number): 1 for number in range(100_000)}
    async with a_service(home) as service:
        reply = await service.client.post(address, json=document)

    assert (reply.status_code, problem_of(reply)) == (413, "body-too-large")


async def send_and_stop(service: Service, *pieces: bytes, then: asyncio.Event) -> int:
    """The status that a sender gets who says nothing more until the event; speaks ASGI itself."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/diagnoses",
        "query_string": b"",
        "headers": [
            (b"host", b"localhost"),
            (b"content-type", b"multipart/form-data; boundary=line"),
        ],
        "client": ("127.0.0.1", 1),
    }
    coming = iter(pieces)
    told: list[int] = []

    async def receive() -> Message:
        piece = next(coming, None)
        if piece is None:
            await then.wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(message: Message) -> None:
        told.append(message.get("status", 0))

    await service.app(scope, receive, send)
    return told[0]


async def test_bodies_that_wait_for_their_rest_hold_no_more_memory_than_there_is(
    home: Path,
) -> None:
    head = b'--line\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    async with a_service(home, max_upload_bytes=10_000, max_concurrent_cases=2) as service:
        left = asyncio.Event()
        async with asyncio.TaskGroup() as together:
            for _ in range(2):
                together.create_task(send_and_stop(service, head, b"0" * 9000, then=left))
            await asyncio.sleep(0.1)
            refused = await service.client.post("/v1/diagnoses", files={"file": b"0" * 5000})
            left.set()
        afterwards = await service.diagnose()

    assert (refused.status_code, problem_of(refused)) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) > 0
    assert afterwards.status_code == 201


async def test_who_stops_sending_is_not_waited_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "SILENCE_SECONDS", 0.05)
    async with a_service(home) as service, asyncio.timeout(10):
        status = await send_and_stop(service, b"--line\r\n", then=asyncio.Event())

    assert status == 408


async def test_of_many_errors_the_first_are_told(home: Path) -> None:
    document = {f"field{number}": 1 for number in range(1000)}
    async with a_service(home) as service:
        reply = await service.client.post("/v1/sources/pacs/search", json=document)

    assert (reply.status_code, problem_of(reply)) == (422, "invalid-request")
    assert len(reply.json()["errors"]) == 20


async def test_a_wrong_address_or_method_is_a_problem_too(home: Path) -> None:
    async with a_service(home) as service:
        lost = await service.client.get("/v2/diagnoses")
        wrong = await service.client.delete("/v1/tasks")

    assert (lost.status_code, problem_of(lost)) == (404, "no-such-address")
    assert (wrong.status_code, problem_of(wrong)) == (405, "method-not-allowed")
    assert wrong.headers["allow"] == "GET"


async def test_an_unexpected_error_tells_nothing_but_its_id(home: Path) -> None:
    retriever = FakeRetriever(failure=RuntimeError("patient John Doe"))
    async with a_service(home, retriever=retriever) as service:
        reply = await service.diagnose()
        afterwards = await service.client.get("/livez")

    assert (reply.status_code, problem_of(reply)) == (500, "internal-error")
    assert "Doe" not in reply.text
    assert afterwards.status_code == 200


async def test_problems_are_counted_by_type(home: Path) -> None:
    async with a_service(home) as service:
        await asyncio.gather(*(service.diagnose(task="knee-mri") for _ in range(3)))
        figures = await service.figures()

    assert 'gsco_http_problems_total{type="unknown-task"} 3.0' in figures


@pytest.mark.parametrize(
    "given", ["0B5A3C1F-9E6D-4A7F-B2C8-D1E0F3A4B5C6", "0b5a3c1f9e6d4a7fb2c8d1e0f3a4b5c6"]
)
async def test_a_well_formed_request_id_comes_back(home: Path, given: str) -> None:
    async with a_service(home) as service:
        reply = await ask_with_id(service, given)

    assert reply == given


@pytest.mark.parametrize("given", ["short", "with space", "x" * 65, "a;b\\c<d>"])
async def test_any_other_request_id_is_replaced(home: Path, given: str) -> None:
    async with a_service(home) as service:
        reply = await ask_with_id(service, given)

    assert reply != given
    assert len(reply) == 32


async def ask_with_id(service: Service, given: str) -> str:
    reply = await service.client.get("/livez", headers={"x-request-id": given})
    return reply.headers["x-request-id"]
