"""Stories of callers who ask for reports and answers, at once or in stages."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import (
    a_multi_label_task,
    a_question_task,
    a_report_task,
    png_bytes,
    task_toml,
)
from fakes import FREE_TEXT, FakeGeneralist, FakeSpecialists, FakeStore
from serving import Service, a_service, problem_of
from sqlalchemy.exc import OperationalError

from service.domain import Completion
from service.errors import GeneralistUnavailable, PromptTooLong


@pytest.fixture
def home(home: Path) -> Path:
    """The home folder of all stories, with a task to write about and one to ask about."""
    for task in (a_multi_label_task(), a_report_task(), a_question_task()):
        (home / "tasks" / f"{task.name}.toml").write_text(task_toml(task))
    return home


async def post(
    service: Service, address: str, *, headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    files = {"file": ("image.png", png_bytes())}
    return await service.client.post(address, files=files, data=fields, headers=headers)


def events_of(reply: httpx.Response) -> list[tuple[str, Any]]:
    assert reply.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in reply.text.strip().split("\n\n")]
    return [
        (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for name, data in blocks
    ]


async def test_a_report_is_drafted_stored_and_read_again(home: Path) -> None:
    async with a_service(home) as service:
        reply = await post(service, "/v1/reports", task="cxr-report", draft="Left effusion.")
        again = await service.client.get(reply.headers["location"])

    body = reply.json()
    assert reply.status_code == 201
    assert again.json() == body
    assert (body["findings"], body["impression"]) == ("The lungs are clear.", "No acute disease.")
    assert body["consulted"] == "cxr-findings"
    assert body["evidence"]["moed"][0]["labels"] == ["nodule"]
    assert body["evidence"]["typicality"] == 0.5
    assert len(body["draft_sha256"]) == 64


async def test_a_closed_question_has_a_probability_for_each_choice(home: Path) -> None:
    async with a_service(home) as service:
        reply = await post(
            service,
            "/v1/answers",
            task="cxr-questions",
            question="Is there fluid?",
            choices=["yes", "no"],
        )
        again = await service.client.get(reply.headers["location"])

    body = reply.json()
    assert body["answer"] == "yes"
    assert [entry["label"] for entry in body["probabilities"]] == ["yes", "no"]
    assert again.json() == body


async def test_an_open_question_is_answered_in_words(home: Path) -> None:
    async with a_service(home) as service:
        reply = await post(service, "/v1/answers", task="cxr-questions", question="What is it?")

    assert reply.json()["answer"] == FREE_TEXT
    assert reply.json()["probabilities"] is None


@pytest.mark.parametrize(
    "fields",
    [
        {"question": ""},
        {"question": " \n\x00"},
        {"question": "x" * 501},
        {"question": "Why?", "choices": ["yes", 'no", "tumor']},
        {"question": "Why?", "choices": ["yes", ""]},
        {"question": "Why?", "choices": ["yes"]},
        {"question": "Why?", "choices": ["yes", "YES"]},
        {"question": "Why?", "choices": ["yes", "x" * 101]},
        {"question": "Why?", "choices": [str(number) for number in range(21)]},
        {"question": "Why?", "draft": "not asked for"},
    ],
)
async def test_what_cannot_be_asked_is_named(home: Path, fields: dict[str, Any]) -> None:
    async with a_service(home) as service:
        reply = await post(service, "/v1/answers", task="cxr-questions", **fields)

    assert problem_of(reply) == "invalid-request"


@pytest.mark.parametrize(
    ("address", "task", "right"),
    [
        ("/v1/diagnoses", "cxr-report", "a report task: ask it at POST /v1/reports"),
        ("/v1/reports", "cxr-questions", "a question task: ask it at POST /v1/answers"),
        ("/v1/answers", "cxr-findings", "a multi-label task: ask it at POST /v1/diagnoses"),
    ],
)
async def test_the_wrong_address_for_a_task_names_the_right_one(
    home: Path, address: str, task: str, right: str
) -> None:
    more = {"question": "Why?"} if address == "/v1/answers" else {}
    async with a_service(home) as service:
        reply = await post(service, address, task=task, **more)

    assert problem_of(reply) == "invalid-input"
    assert right in reply.json()["detail"]
    assert service.intake.asked == []


async def test_several_labels_have_a_probability_each(home: Path) -> None:
    found = Completion("effusion, nodule", (0.1, 0.8, 0.7))
    generalist = FakeGeneralist(script=[Completion("no finding", (0.9, 0.1, 0.1)), found])
    async with a_service(home, generalist=generalist) as service:
        body = (await post(service, "/v1/diagnoses", task="cxr-findings")).json()

    assert body["labels"] == ["effusion", "nodule"]
    assert [entry["probability"] for entry in body["probabilities"]] == [0.1, 0.8, 0.7]
    assert body["arbitration"] == "swayed"
    assert (body["label_set"], body["coverage"]) == (None, None)


async def test_a_draft_has_its_limit(home: Path) -> None:
    async with a_service(home) as service:
        longest = await post(service, "/v1/reports", task="cxr-report", draft="x" * 10_000)
        too_long = await post(service, "/v1/reports", task="cxr-report", draft="x" * 10_001)

    assert longest.status_code == 201
    assert problem_of(too_long) == "invalid-request"


async def test_a_task_that_consults_a_missing_one_is_refused(home: Path) -> None:
    (home / "tasks" / "cxr-findings.toml").unlink()
    async with a_service(home) as service:
        reply = await post(service, "/v1/reports", task="cxr-report")

    assert problem_of(reply) == "unknown-task"


async def test_a_diagnosis_of_one_kind_is_not_read_as_another(home: Path) -> None:
    async with a_service(home) as service:
        made = (await post(service, "/v1/reports", task="cxr-report")).json()
        reply = await service.client.get(f"/v1/answers/{made['id']}")

    assert problem_of(reply) == "not-found"


# -- in stages --

STREAM = {"Accept": "text/event-stream"}


async def test_stages_are_told_and_what_is_final_is_stored(home: Path) -> None:
    async with a_service(home) as service:
        reply = await post(service, "/v1/reports", task="cxr-report", headers=STREAM)
        events = events_of(reply)
        stored = await service.client.get(f"/v1/reports/{events[-1][1]['id']}")

    names = [name for name, _ in events]
    stages = {"initial", "specialist", "specialists", "retrieval", "text", "final"}
    assert set(names) == stages
    assert names[-1] == "final"
    assert events[-1][1] == stored.json()
    assert "".join(data["text"] for name, data in events if name == "text").strip() == FREE_TEXT


async def test_the_stages_of_a_diagnosis_carry_labels_and_probabilities(home: Path) -> None:
    async with a_service(home) as service:
        reply = await post(service, "/v1/diagnoses", task="cxr-pneumonia", headers=STREAM)

    events = dict(events_of(reply))
    assert events["initial"]["labels"] == ["normal"]
    one_by_one = [told for name, told in events_of(reply) if name == "specialist"]
    assert len(events["specialists"]) == 10
    assert one_by_one == events["specialists"]
    assert events["retrieval"][0]["case_id"] == "reference-1"
    assert events["final"]["labels"] == ["normal"]


async def test_a_failure_in_a_stream_ends_it_with_a_problem(home: Path) -> None:
    away = FakeGeneralist(failure=GeneralistUnavailable("the server does not answer"))
    async with a_service(home, generalist=away) as service:
        reply = await post(service, "/v1/reports", task="cxr-report", headers=STREAM)

    name, problem = events_of(reply)[-1]
    assert name == "problem"
    assert problem["type"] == "urn:gsco:problem:generalist-unavailable"
    assert problem["status"] == 503
    assert service.store.saved == {}


async def test_a_database_that_fails_in_a_stream_is_named_as_such(home: Path) -> None:
    full = FakeStore(failure=OperationalError("INSERT patient Miller", {}, Exception("full")))
    async with a_service(home, store=full) as service:
        reply = await post(service, "/v1/reports", task="cxr-report", headers=STREAM)

    assert events_of(reply)[-1][1]["type"] == "urn:gsco:problem:database-unavailable"
    assert "Miller" not in reply.text


async def test_what_is_final_was_stored_before(home: Path) -> None:
    store = FakeStore(delay_seconds=0.05)
    async with a_service(home, store=store) as service:
        files = {"file": ("image.png", png_bytes())}
        request = service.client.stream(
            "POST", "/v1/reports", files=files, data={"task": "cxr-report"}, headers=STREAM
        )
        async with request as reply:
            stored = [
                len(store.saved) async for line in reply.aiter_lines() if line == "event: final"
            ]

    assert stored == [1]


async def test_an_open_question_without_evidence_is_heard_as_it_is_answered(home: Path) -> None:
    alone = a_question_task("alone", consults="")
    (home / "tasks" / "alone.toml").write_text(task_toml(alone))
    async with a_service(home) as service:
        reply = await post(
            service, "/v1/answers", task="alone", question="What is it?", headers=STREAM
        )

    events = events_of(reply)
    assert "".join(data["text"] for name, data in events if name == "text").strip() == FREE_TEXT
    assert {name for name, _ in events} == {"text", "initial", "final"}


async def test_an_error_nobody_foresaw_tells_the_stream_nothing_but_its_id(home: Path) -> None:
    broken = FakeSpecialists(failure=ZeroDivisionError("patient Miller"))
    async with a_service(home, specialists=broken) as service:
        reply = await post(service, "/v1/reports", task="cxr-report", headers=STREAM)

    assert events_of(reply)[-1][1]["type"] == "urn:gsco:problem:internal-error"
    assert "Miller" not in reply.text


async def test_a_case_that_the_context_cannot_hold_is_not_to_be_tried_again(home: Path) -> None:
    short = FakeGeneralist(failure=PromptTooLong("the prompt has 5000 tokens"))
    async with a_service(home, generalist=short) as service:
        reply = await post(service, "/v1/reports", task="cxr-report")

    assert reply.status_code == 422
    assert problem_of(reply) == "prompt-too-long"
    assert "retry-after" not in reply.headers
