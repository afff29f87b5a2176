"""Stories of those who run the service: health, figures, logs, start and stop."""

import asyncio
import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import structlog
from builders import a_report_task, a_task, png_bytes, task_toml
from fakes import FakeGeneralist, FakeIntake, FakeRetriever, FakeSpecialists, FakeStore
from serving import a_service, problem_of

from service.app import create_app
from service.errors import (
    GeneralistUnavailable,
    InvalidCheckpoint,
    Misconfigured,
    Overloaded,
    UnparsableAnswer,
    UnreadableImage,
)
from service.settings import Settings


async def test_lives_and_is_ready_once_the_specialists_are_loaded(home: Path) -> None:
    specialists = FakeSpecialists(load_seconds=1.5)
    async with a_service(home, specialists=specialists) as service:
        early_life = await service.client.get("/livez")
        early = await service.client.get("/readyz")
        await service.settled()
        late = await service.client.get("/readyz")

    assert early_life.status_code == 200
    assert problem_of(early) == "not-ready"
    assert early.json()["parts"][-1]["reason"] == "being loaded"
    assert (late.status_code, late.json()["status"]) == (200, "ready")


async def test_missing_specialists_degrade_readiness(home: Path) -> None:
    specialists = FakeSpecialists(missing={"vgg16": "no weights", "alexnet": "no weights"})
    async with a_service(home, specialists=specialists) as service:
        await service.settled()
        reply = await service.client.get("/readyz")

    part = reply.json()["parts"][-1]
    assert (reply.status_code, reply.json()["status"]) == (200, "degraded")
    assert part["part"] == "specialists of cxr-pneumonia"
    assert part["reason"] == "8 of 10 answer; missing: vgg16, alexnet"


async def test_a_report_task_needs_no_specialists_of_its_own(home: Path) -> None:
    task = a_report_task(consults="cxr-pneumonia")
    (home / "tasks" / "report.toml").write_text(task_toml(task), "utf-8")
    async with a_service(home) as service:
        await service.settled()
        ready = (await service.client.get("/readyz")).json()
        panels = (await service.client.get("/v1/specialists")).json()["tasks"]

    named = [part["part"] for part in ready["parts"]]
    assert named[:4] == ["database", "generalist", "intake", "jobs"]
    assert named[4:] == ["retrieval for cxr-pneumonia", "specialists of cxr-pneumonia"]
    assert [panel["task"] for panel in panels] == ["cxr-pneumonia"]


@pytest.mark.parametrize(
    ("broken", "part", "reason"),
    [
        (
            {"generalist": FakeGeneralist(failure=GeneralistUnavailable("down"))},
            "generalist",
            "down",
        ),
        ({"store": FakeStore(failure=OSError("secret"))}, "database", "OSError"),
        ({"intake": FakeIntake(failure=UnreadableImage("crash"))}, "intake", "crash"),
    ],
)
async def test_names_the_part_that_prevents_diagnoses(
    home: Path, broken: dict[str, object], part: str, reason: str
) -> None:
    async with a_service(home, **broken) as service:  # type: ignore[arg-type]
        await service.settled()
        reply = await service.client.get("/readyz")

    named = {entry["part"]: entry for entry in reply.json()["parts"]}
    assert (reply.status_code, problem_of(reply)) == (503, "not-ready")
    assert named[part] == {"part": part, "status": "unready", "reason": reason}


async def test_a_busy_intake_is_ready(home: Path) -> None:
    async with a_service(home, intake=FakeIntake(failure=Overloaded("full"))) as service:
        await service.settled()
        reply = await service.client.get("/readyz")

    assert reply.json()["status"] == "ready"


async def test_a_broken_task_file_stops_no_other_task(home: Path) -> None:
    (home / "tasks" / "broken.toml").write_text("name = 3", "utf-8")
    async with a_service(home) as service:
        await service.settled()
        ready = await service.client.get("/readyz")
        reply = await service.diagnose()

    assert reply.status_code == 201
    assert "task file broken.toml" in {part["part"] for part in ready.json()["parts"]}
    assert ready.json()["status"] == "degraded"


async def test_a_home_without_tasks_serves_and_says_so(tmp_path: Path) -> None:
    async with a_service(tmp_path / "new") as service:
        ready = await service.client.get("/readyz")
        reply = await service.diagnose()

    assert ready.json()["parts"][-1] == {
        "part": "tasks",
        "status": "degraded",
        "reason": "there are none",
    }
    assert "none yet" in reply.json()["detail"]


async def test_specialists_that_cannot_be_loaded_are_no_reason_to_stop(home: Path) -> None:
    specialists = FakeSpecialists(load_failure=RuntimeError("out of memory"))
    async with a_service(home, specialists=specialists) as service:
        await service.settled()
        reply = await service.client.get("/readyz")

    assert reply.json()["parts"][-1]["reason"] == "none are loaded"
    retrieval = next(one for one in reply.json()["parts"] if one["part"].startswith("retrieval"))
    assert retrieval["status"] == "degraded"
    assert retrieval["reason"] == "no specialist whose index could be searched"


async def test_lists_the_tasks_and_their_specialists(home: Path) -> None:
    specialists = FakeSpecialists(missing={"vgg16": "no weights"})
    async with a_service(home, specialists=specialists) as service:
        await service.settled()
        tasks = (await service.client.get("/v1/tasks")).json()["tasks"]
        task = (await service.client.get("/v1/tasks/cxr-pneumonia")).json()
        (panel,) = (await service.client.get("/v1/specialists")).json()["tasks"]

    assert tasks == [task]
    assert [label["name"] for label in task["labels"]] == ["normal", "pneumonia"]
    assert (panel["task"], panel["loading"], len(panel["specialists"])) == (
        "cxr-pneumonia",
        False,
        9,
    )
    assert panel["specialists"][0]["validation"] == {"accuracy": 0.9}
    assert panel["missing"] == [{"specialist": "vgg16", "reason": "no weights"}]


async def test_follows_the_task_folder(home: Path) -> None:
    async with a_service(home) as service:
        (home / "tasks" / "busi.toml").write_text(task_toml(a_task("busi")), "utf-8")
        (home / "tasks" / "cxr-pneumonia.toml").unlink()
        tasks = (await service.client.get("/v1/tasks")).json()["tasks"]
        gone = await service.client.get("/v1/tasks/cxr-pneumonia")

    assert [task["name"] for task in tasks] == ["busi"]
    assert problem_of(gone) == "not-found"


async def test_figures_tell_of_diagnoses_but_of_no_patient(home: Path) -> None:
    specialists = FakeSpecialists(missing={"vgg16": "no weights"})
    async with a_service(home, specialists=specialists) as service:
        reply = await service.diagnose(file_name="John_Doe.png", group="doe-7")
        await service.client.get(f"/v1/diagnoses/{reply.json()['id']}")
        figures = await service.figures()

    assert 'gsco_diagnoses_total{needs_review="true",task="cxr-pneumonia"} 1.0' in figures
    assert 'part="specialist vgg16"' in figures
    assert 'stage="intake"' in figures
    assert 'route="/v1/diagnoses/{id}",status="200"' in figures
    assert "doe" not in figures.lower()
    assert reply.json()["id"] not in figures


def lines_of(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


async def test_the_log_names_the_request_and_no_patient(home: Path, log: io.StringIO) -> None:
    failing = FakeRetriever(failure=ValueError("PatientName is John Doe"))
    async with a_service(home, retriever=failing) as service:
        reply = await service.diagnose(file_name="John_Doe.png", group="doe-7")

    id = reply.headers["x-request-id"]
    told = [line for line in lines_of(log) if line.get("request_id") == id]
    error, request = (line for line in told if line["event"] != "stage")
    assert (error["event"], error["error"][0]["type"]) == ("unexpected error", "ValueError")
    assert (request["route"], request["status"]) == ("/v1/diagnoses", 500)
    assert "doe" not in log.getvalue().lower()


@pytest.mark.parametrize("headers", [{}, {"accept": "text/event-stream"}])
async def test_the_log_holds_no_words_of_an_answer_that_cannot_be_used(
    home: Path, log: io.StringIO, headers: dict[str, str]
) -> None:
    failing = FakeGeneralist(failure=UnparsableAnswer("among ['Doe has it', 'Doe has not']"))
    files = {"file": ("x.png", png_bytes())}
    async with a_service(home, generalist=failing) as service:
        reply = await service.client.post(
            "/v1/diagnoses", files=files, data={"task": "cxr-pneumonia"}, headers=headers
        )

    assert "Doe has it" in reply.text
    assert "The generalist's answer is unusable" in log.getvalue()
    assert "Doe" not in log.getvalue()


def test_the_log_drops_fields_that_sound_like_a_patient(log: io.StringIO) -> None:
    logger = structlog.get_logger("anything")
    logger.info("seen", patient_name="Doe", deep={"PatientID": "7", "rows": 2}, file_name="doe.png")
    logging.getLogger("a.library").warning("plain %s", "words")

    seen, plain = lines_of(log)
    assert seen["deep"] == {"rows": 2}
    assert {"patient_name", "file_name"}.isdisjoint(seen)
    assert plain["event"] == "plain words"


async def test_parts_start_in_order_and_stop_in_reverse(home: Path) -> None:
    calls: list[str] = []
    async with a_service(home, **parts_noting(calls)) as service:
        await service.settled()

    started = ["intake", "generalist", "retriever", "specialists"]
    assert calls == [
        *(f"start {name}" for name in started),
        "load cxr-pneumonia",
        *(f"close {name}" for name in reversed(started)),
    ]


async def test_a_part_that_cannot_start_stops_the_others(home: Path) -> None:
    calls: list[str] = []
    parts = parts_noting(calls)
    parts["generalist"].start_failure = InvalidCheckpoint("no weights")

    with pytest.raises(InvalidCheckpoint, match="no weights"):
        async with a_service(home, **parts):
            pass

    assert calls == ["start intake", "start generalist", "close generalist", "close intake"]


def test_a_prompt_template_with_a_mistake_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no prompt template 'poor'"):
        create_app(Settings(home=tmp_path, prompt_template="poor"))


async def test_stopping_does_not_wait_for_loading(home: Path) -> None:
    async with asyncio.timeout(5), a_service(home, specialists=FakeSpecialists(load_seconds=60)):
        pass


def parts_noting(calls: list[str]) -> dict[str, FakeGeneralist]:
    kinds = {
        "specialists": FakeSpecialists,
        "retriever": FakeRetriever,
        "generalist": FakeGeneralist,
        "intake": FakeIntake,
    }
    return {name: kind(calls=calls) for name, kind in kinds.items()}  # type: ignore[misc]
