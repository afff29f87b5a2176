"""Stories of callers who are answered later."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import (
    a_multi_label_task,
    a_question_task,
    a_report_task,
    a_task,
    png_bytes,
    task_toml,
)
from fakes import FREE_TEXT, FakeGeneralist, FakeIntake, FakeSpecialists
from serving import Service, a_service, problem_of
from waiting import until, until_told

from service.domain import Completion
from service.errors import (
    ComputationLost,
    GeneralistUnavailable,
    UnparsableAnswer,
    UnreadableImage,
)
from service.jobs import cases
from service.jobs.job import Retry

pytestmark = pytest.mark.usefixtures("either_database")

STREAM = {"Accept": "text/event-stream"}
LATER = {"Prefer": "respond-async"}
SPOOL_IS_AWAY = "the spool folder cannot be written: no jobs are taken in"
NOBODY = "6f7c2f0e-3f52-4d0a-9a3a-0f4c6e1d2b3a"


@pytest.fixture
def home(home: Path) -> Path:
    for task in (a_multi_label_task(), a_report_task(), a_question_task()):
        (home / "tasks" / f"{task.name}.toml").write_text(task_toml(task))
    return home


def spooled(home: Path) -> list[Path]:
    return sorted((home / "spool").glob("*.case"))


async def test_a_job_is_accepted_at_once_and_its_diagnosis_read_later(home: Path) -> None:
    async with a_service(home, in_sql=True) as service:
        reply = await service.ask_for_job(priority="high")
        job = await service.ended(reply.json()["id"])
        diagnosis = await service.client.get(job["result"])

    assert reply.status_code == 202
    assert reply.headers["location"] == f"/v1/jobs/{job['id']}"
    assert reply.headers["preference-applied"] == "respond-async"
    assert int(reply.headers["retry-after"]) > 0
    assert (job["status"], job["kind"], job["priority"]) == ("succeeded", "diagnosis", "high")
    assert (job["attempts"], job["problem"]) == (1, None)
    assert diagnosis.json()["id"] == job["id"]
    assert spooled(home) == []


async def test_reports_and_answers_are_made_later_too(home: Path) -> None:
    async with a_service(home, in_sql=True) as service:
        report = await post(service, "/v1/reports", task="cxr-report", draft="Effusion.")
        asked = {"task": "cxr-questions", "question": "Is it?", "choices": ["yes", "no"]}
        answer = await post(service, "/v1/answers", **asked)
        jobs = [await service.ended(reply.json()["id"]) for reply in (report, answer)]
        made = [(await service.client.get(job["result"])).json() for job in jobs]

    assert [job["kind"] for job in jobs] == ["report", "answer"]
    assert made[0]["findings"] == "The lungs are clear."
    assert len(made[0]["draft_sha256"]) == 64
    assert (made[1]["question"], made[1]["answer"]) == ("Is it?", "yes")


async def test_a_waiting_case_is_as_it_was_when_it_was_accepted(home: Path) -> None:
    away = FakeGeneralist(failure=GeneralistUnavailable("away"))
    intake = FakeIntake(group="pseudonym", notes=("frame 3 of 5",), modality="CR")
    async with a_service(home, generalist=away, intake=intake, in_sql=True) as service:
        id = (await service.ask_for_job()).json()["id"]
    (path,) = spooled(home)
    assert (path.name, path.stat().st_mode & 0o777) == (f"{id}.case", 0o600)
    async with a_service(home, in_sql=True) as service:
        job = await service.ended(id)
        diagnosis = (await service.client.get(job["result"])).json()

    assert diagnosis["notes"] == ["frame 3 of 5"]
    assert service.retriever.asked[0][2] == "pseudonym"


async def test_an_image_that_cannot_be_used_is_refused_at_once(home: Path) -> None:
    broken = FakeIntake(failure=UnreadableImage("the image is malformed"))
    async with a_service(home, intake=broken, in_sql=True) as service:
        reply = await service.ask_for_job()

    assert problem_of(reply) == "unreadable-image"
    assert spooled(home) == []


async def test_without_the_generalist_calls_are_refused_and_jobs_wait_for_it(home: Path) -> None:
    away = FakeGeneralist(failure=GeneralistUnavailable("the server does not answer"))
    async with a_service(home, generalist=away, in_sql=True) as service:
        id = (await service.ask_for_job()).json()["id"]
        refused = await service.diagnose()
        await asyncio.sleep(0.1)
        waiting = await service.job(id)
        away.failure = None
        job = await service.ended(id)

    assert problem_of(refused) == "generalist-unavailable"
    assert waiting["status"] == "queued"
    assert job["status"] == "succeeded"


async def test_a_generalist_that_fails_in_the_middle_costs_no_attempt(home: Path) -> None:
    async with a_service(home, generalist=FailsOnce(), in_sql=True) as service:
        job = await service.ended((await service.ask_for_job()).json()["id"])

    assert (job["status"], job["attempts"], job["problem"]) == ("succeeded", 2, None)


async def test_a_case_that_ends_what_computes_it_is_given_up_in_the_end(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "RETRY", Retry(attempts=3, first_seconds=0.01))
    ended = OnlyAnswersFail(failure=ComputationLost("the generalist's process has ended"))
    async with a_service(home, generalist=ended, in_sql=True) as service:
        job = await service.ended((await service.ask_for_job()).json()["id"])

    assert (job["status"], job["attempts"]) == ("failed", 3)
    assert job["problem"]["type"] == "urn:gsco:problem:generalist-unavailable"


async def test_a_job_that_cannot_succeed_fails_once_and_says_why(home: Path) -> None:
    odd = FakeGeneralist(failure=UnparsableAnswer("neither of the labels"))
    odd_but_there = OnlyAnswersFail(failure=odd.failure)
    async with a_service(home, generalist=odd_but_there, in_sql=True) as service:
        job = await service.ended((await service.ask_for_job()).json()["id"])
        figures = await service.figures()

    assert (job["status"], job["attempts"], job["result"]) == ("failed", 1, None)
    assert job["problem"]["type"] == "urn:gsco:problem:unparsable-answer"
    assert job["problem"]["detail"] == "neither of the labels"
    assert 'gsco_jobs_ended_total{name="diagnosis",state="failed"} 1.0' in figures
    assert spooled(home) == []


async def test_what_nobody_foresaw_is_tried_again_and_then_told_without_its_text(
    home: Path,
) -> None:
    broken = FakeSpecialists(failure=ZeroDivisionError("patient Miller"))
    async with a_service(home, specialists=broken, in_sql=True) as service:
        id = (await service.ask_for_job()).json()["id"]
        job = await until_told(lambda: service.job(id), lambda job: job["problem"])

    assert job["status"] == "queued"
    assert job["problem"]["type"] == "urn:gsco:problem:internal-error"
    assert "Miller" not in json.dumps(job)


async def test_a_waiting_job_is_cancelled(home: Path) -> None:
    away = FakeGeneralist(failure=GeneralistUnavailable("away"))
    async with a_service(home, generalist=away, in_sql=True) as service:
        address = (await service.ask_for_job()).headers["location"]
        cancelled = await service.client.delete(address)
        again = await service.client.delete(address)

    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert (again.status_code, problem_of(again)) == (409, "job-ended")
    assert spooled(home) == []


async def test_a_running_job_is_cancelled_and_nothing_of_it_stored(home: Path) -> None:
    slow = FakeGeneralist(delay_seconds=30)
    async with a_service(home, generalist=slow, in_sql=True) as service:
        id = (await service.ask_for_job()).json()["id"]
        await until(lambda: slow.asked)
        cancelled = await service.client.delete(f"/v1/jobs/{id}")
        read = await service.client.get(f"/v1/diagnoses/{id}")
        after = await service.ended(id)

    assert cancelled.json()["status"] == after["status"] == "cancelled"
    assert read.status_code == 404
    assert spooled(home) == []


async def test_jobs_that_nobody_knows_are_not_found(home: Path) -> None:
    async with a_service(home, in_sql=True) as service:
        replies = [
            await service.client.get(f"/v1/jobs/{NOBODY}"),
            await service.client.delete(f"/v1/jobs/{NOBODY}"),
            await service.client.get("/v1/jobs/1.2.840.113619"),
        ]

    assert [problem_of(reply) for reply in replies] == ["not-found"] * 3


async def test_a_full_queue_is_refused_before_the_body_is_sent(home: Path) -> None:
    away = FakeGeneralist(failure=GeneralistUnavailable("away"))
    async with a_service(home, generalist=away, in_sql=True, max_queued_jobs=1) as service:
        first = await service.ask_for_job()
        refused = await service.ask_for_job()

    assert first.status_code == 202
    assert (refused.status_code, problem_of(refused)) == (503, "overloaded")
    assert "retry-after" in refused.headers
    assert len(spooled(home)) == 1


async def test_a_full_spool_refuses_further_jobs(home: Path) -> None:
    away = FakeGeneralist(failure=GeneralistUnavailable("away"))
    async with a_service(home, generalist=away, in_sql=True, max_spool_bytes=1) as service:
        replies = [await service.ask_for_job(), await service.ask_for_job()]

    assert [reply.status_code for reply in replies] == [202, 503]
    assert "spool" in replies[1].json()["detail"]


async def test_calls_that_wait_do_not_keep_jobs_from_being_accepted(home: Path) -> None:
    slow = FakeGeneralist(delay_seconds=0.3)
    async with a_service(home, generalist=slow, in_sql=True, max_concurrent_cases=1) as service:
        first = asyncio.create_task(service.diagnose())
        await until(lambda: slow.asked)
        job = await service.ask_for_job()
        await first

    assert job.status_code == 202


async def test_urgent_jobs_overtake_those_that_wait(home: Path) -> None:
    slow = FakeGeneralist(delay_seconds=0.05)
    async with a_service(home, generalist=slow, in_sql=True, job_workers=1) as service:
        waiting = [(await service.ask_for_job(priority="low")).json()["id"] for _ in range(3)]
        urgent = (await service.ask_for_job(priority="high")).json()["id"]
        jobs = {id: await service.ended(id) for id in [*waiting, urgent]}

    started = sorted(jobs, key=lambda id: str(jobs[id]["started_at"]))
    assert started.index(urgent) < started.index(waiting[2])


async def test_webhook_and_priority_are_not_ignored_where_there_is_no_job(home: Path) -> None:
    async with a_service(home) as service:
        reply = await service.diagnose(priority="high")

    assert problem_of(reply) == "invalid-input"
    assert "respond-async" in reply.json()["detail"]


async def test_a_preference_among_others_is_heard(home: Path) -> None:
    async with a_service(home, in_sql=True) as service:
        reply = await service.ask_for_job(headers={"Prefer": "wait=10, Respond-Async;x=1"})
        other = await service.ask_for_job(headers={"Prefer": "respond-async-please"})

    assert (reply.status_code, other.status_code) == (202, 201)


async def test_the_stages_of_a_job_are_told_as_they_end(home: Path) -> None:
    slow = FakeGeneralist(delay_seconds=0.1)
    async with a_service(home, generalist=slow, in_sql=True) as service:
        job = await post(service, "/v1/reports", task="cxr-report")
        events = events_of(await service.client.get(job.headers["location"], headers=STREAM))
        stored = await service.client.get(f"/v1/reports/{job.json()['id']}")

    names = [name for name, _ in events]
    stages = {"initial", "specialist", "specialists", "retrieval", "text"}
    assert set(names) == {"status", *stages, "final"}
    assert events[-1] == ("final", stored.json())
    assert "".join(data["text"] for name, data in events if name == "text").strip() == FREE_TEXT
    assert [data["status"] for name, data in events if name == "status"][-1] == "succeeded"


async def test_who_comes_late_hears_how_it_ended(home: Path) -> None:
    odd = OnlyAnswersFail(failure=UnparsableAnswer("neither"))
    async with a_service(home, generalist=odd, in_sql=True) as service:
        id = (await service.ask_for_job()).json()["id"]
        await service.ended(id)
        events = events_of(await service.client.get(f"/v1/jobs/{id}", headers=STREAM))

    ((name, told),) = events
    assert (name, told["status"]) == ("status", "failed")
    assert told["problem"]["detail"] == "neither"


async def test_listeners_have_a_limit(home: Path) -> None:
    away = FakeGeneralist(failure=GeneralistUnavailable("away"))
    async with a_service(home, generalist=away, in_sql=True, max_concurrent_cases=1) as service:
        address = (await service.ask_for_job()).headers["location"]
        with service.app.state.serving.listening.enter():
            refused = await service.client.get(address, headers=STREAM)

    assert problem_of(refused) == "overloaded"


async def test_jobs_wait_for_their_specialists_after_a_start(home: Path) -> None:
    away = FakeGeneralist(failure=GeneralistUnavailable("away"))
    async with a_service(home, generalist=away, in_sql=True) as service:
        id = (await service.ask_for_job()).json()["id"]
    loading = FakeSpecialists(load_seconds=0.1)
    async with a_service(home, specialists=loading, in_sql=True) as service:
        early = await service.job(id)
        await service.ended(id)

    assert early["status"] == "queued"
    assert loading.calls.index(f"load {a_task().name}") >= 0


async def test_without_a_spool_jobs_are_refused_and_readiness_says_so(home: Path) -> None:
    async with a_service(home, in_sql=True) as service:
        await service.settled()
        shutil.rmtree(home / "spool")
        refused = await service.ask_for_job()
        ready = (await service.client.get("/readyz")).json()
        at_once = await service.diagnose()

    assert (refused.status_code, problem_of(refused)) == (503, "overloaded")
    assert ready["status"] == "degraded"
    assert {"part": "jobs", "status": "degraded", "reason": SPOOL_IS_AWAY} in ready["parts"]
    assert at_once.status_code == 201


async def test_a_service_that_stops_leaves_its_jobs_to_the_next(home: Path) -> None:
    slow = FakeGeneralist(delay_seconds=30)
    async with a_service(home, generalist=slow, in_sql=True) as service:
        id = (await service.ask_for_job()).json()["id"]
        await until(lambda: slow.asked)
    async with a_service(home, in_sql=True) as service:
        job = await service.ended(id)

    assert (job["status"], job["attempts"]) == ("succeeded", 2)


class FailsOnce(FakeGeneralist):
    """Is away when it is first asked, and then back."""

    async def answer(self, prompt: Any) -> Completion:
        self.failure = None if self.asked else GeneralistUnavailable("away")
        try:
            return await super().answer(prompt)
        finally:
            self.failure = None


class OnlyAnswersFail(FakeGeneralist):
    """Says that it is well, and fails."""

    async def check(self) -> None:
        return


async def post(service: Service, address: str, **fields: Any) -> httpx.Response:
    files = {"file": ("image.png", png_bytes())}
    return await service.client.post(address, files=files, data=fields, headers=LATER)


def events_of(reply: httpx.Response) -> list[tuple[str, Any]]:
    assert reply.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in reply.text.strip().split("\n\n")]
    told = [block for block in blocks if block[0].startswith("event: ")]
    return [
        (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for name, data in told
    ]
