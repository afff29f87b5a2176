"""`gsco jobs`: what an operator sees of the queue, and may do about it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from databases import a_database

from service.cli.main import main
from service.jobs import queue
from service.jobs.job import Problem, State, Work
from service.persistence.database import writing

Gsco = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gsco(home: Path, capsys: pytest.CaptureFixture[str]) -> Gsco:
    """What the command line answers: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["--home", str(home), "jobs", *arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture(autouse=True)
def _jobs(home: Path, home_database: str) -> None:
    """A case that waits, a webhook that was given up, and another delivery that was."""
    works = [Work("diagnosis", {"task": "cxr-pneumonia"}, id="case")]
    works += [Work(name, {}, id=name) for name in ("webhook", "pacs")]
    with a_database(home) as engine, writing(engine) as session:
        for work in works:
            queue.put(session, work)
        for job in queue.claim(session, "alice", ["webhook", "pacs"], None, 10):
            problem = Problem("DeliveryFailed", "the receiver answered 500")
            queue.end(session, job, State.FAILED, problem)


def listed(gsco: Gsco, *arguments: str) -> list[dict[str, Any]]:
    code, out, _ = gsco(*arguments, "--json")
    assert code == 0
    return json.loads(out)  # type: ignore[no-any-return]


def test_cases_are_listed_by_their_state(gsco: Gsco) -> None:
    (job,) = listed(gsco, "list")

    assert (job["id"], job["name"], job["state"], job["priority"]) == (
        "case",
        "diagnosis",
        "queued",
        "medium",
    )
    assert listed(gsco, "list", "--state", "failed") == []
    assert "case" in gsco("list")[1]


def test_a_delivery_that_has_not_arrived_is_listed_with_the_reason(gsco: Gsco, home: Path) -> None:
    with a_database(home) as engine, writing(engine) as session:
        queue.put(session, Work("pacs", {}, id="late"))
        (job,) = queue.claim(session, "alice", ["pacs"], None, 1)
        queue.release(session, job, 60.0, Problem("DeliveryFailed", "target 'pacs' is away"))

    (delivery,) = listed(gsco, "waiting")

    assert (delivery["id"], delivery["state"]) == ("late", "queued")
    assert delivery["problem"]["detail"] == "target 'pacs' is away"


def test_dead_letters_are_listed_with_their_reason_and_sent_again(gsco: Gsco) -> None:
    dead = listed(gsco, "dead")
    code, _, said = gsco("resend", "webhook")
    left = listed(gsco, "dead")

    assert {job["id"] for job in dead} == {"webhook", "pacs"}
    assert dead[0]["problem"]["detail"] == "the receiver answered 500"
    assert (code, "in the queue again: 1" in said) == (0, True)
    assert [job["id"] for job in left] == ["pacs"]


def test_all_dead_letters_are_sent_again_at_once(gsco: Gsco) -> None:
    assert gsco("resend", "--all")[0] == 0
    assert listed(gsco, "dead") == []


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("x", "--all"), 2), (("unknown",), 1)])
def test_what_cannot_be_sent_again_is_told(
    gsco: Gsco, arguments: tuple[str, ...], code: int
) -> None:
    assert gsco("resend", *arguments)[0] == code


def test_a_job_is_cancelled_with_its_image(gsco: Gsco, home: Path) -> None:
    (home / "spool").mkdir()
    image = home / "spool" / "case.case"
    image.touch()

    assert gsco("cancel", "case")[0] == 0
    assert not image.exists()
    assert listed(gsco, "list")[0]["state"] == "cancelled"
    code, _, said = gsco("cancel", "case")
    assert (code, "has been cancelled already" in said) == (1, True)
