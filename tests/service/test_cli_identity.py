"""The command line of identity, audit and erasure."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from audits import behind_its_back
from builders import a_diagnosis, a_provenance, a_report, png_bytes
from command_line import Gsco, over
from databases import a_database
from fhir.resources.R4B.auditevent import AuditEvent
from serving import a_service
from sqlalchemy import text

from service.cli import serving
from service.identity.caller import local_name
from service.persistence import store
from service.persistence.database import writing

pytestmark = pytest.mark.usefixtures("home_database")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def gsco(home: Path, capsys: Capture) -> Gsco:
    """Runs a command line over a home folder."""

    return over(home, capsys)


def put(home: Path, *results: object) -> None:
    with a_database(home) as engine:
        for result in results:
            with writing(engine) as session:
                store.add(session, result)  # type: ignore[arg-type]


async def test_a_key_that_was_made_opens_the_service_until_it_is_revoked(
    gsco: Gsco, home: Path
) -> None:
    made = gsco("keys", "create", "ward 3", "--scope", "read", "--scope", "submit")
    key = made.out.strip()
    async with a_service(home, authentication=True) as service:
        headers = {"Authorization": f"Bearer {key}"}
        before = await service.client.get("/v1/tasks", headers=headers)
        gsco("keys", "revoke", key.split("_")[1])
        after = await service.client.get("/v1/tasks", headers=headers)

    assert made.code == 0
    assert "it is shown this once" in made.err
    assert (before.status_code, after.status_code) == (200, 401)


def test_the_list_of_keys_shows_no_key(gsco: Gsco) -> None:
    made = json.loads(
        gsco("keys", "create", "a", "--scope", "read", "--rate", "5/minute", "--json").out
    )
    gsco("keys", "create", "b", "--scope", "metrics", "--days", "7")

    listed = json.loads(gsco("keys", "list", "--json").out)

    assert {key["name"]: key["scopes"] for key in listed} == {"a": ["read"], "b": ["metrics"]}
    assert {key["rate"] for key in listed} == {"5/minute", None}
    assert "key" not in listed[0]
    assert "sha256" not in json.dumps(listed)
    assert made["id"] in gsco("keys", "list").out
    assert made["key"] not in gsco("keys", "list").out


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "x"),
        ("create", "x", "--scope", "everything"),
        ("create", "x", "--scope", "read", "--days", "0"),
        ("create", "x", "--scope", "read", "--rate", "often"),
        ("create", "two\nlines", "--scope", "read"),
        ("create", "x" * 101, "--scope", "read"),
        ("revoke", "nobody"),
    ],
)
def test_wrong_use_of_keys_is_exit_code_2(gsco: Gsco, arguments: tuple[str, ...]) -> None:
    outcome = gsco("keys", *arguments)

    assert outcome.code == 2
    assert gsco("keys", "list", "--json").out.strip() == "[]"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "gsco.example", ""])
def test_serving_strangers_without_asking_who_they_are_is_refused(gsco: Gsco, host: str) -> None:
    outcome = gsco("serve", "--host", host)

    assert outcome.code == 2
    assert outcome.err.startswith("gsco: refusing to listen on")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "variable"),
    [
        ("0.0.0.0", "GSCO_AUTHENTICATION"),
        ("0.0.0.0", "GSCO_ALLOW_ANONYMOUS"),
        ("127.0.0.1", "GSCO_LOG_LEVEL"),
        ("::1", "GSCO_LOG_LEVEL"),
        ("localhost", "GSCO_LOG_LEVEL"),
    ],
)
def test_serving_is_started_where_somebody_answers_for_it(
    gsco: Gsco, monkeypatch: pytest.MonkeyPatch, host: str, variable: str
) -> None:
    started: list[str] = []
    monkeypatch.setenv(variable, "info" if variable.endswith("LEVEL") else "true")
    monkeypatch.setattr(serving.uvicorn, "run", lambda _, host, **__: started.append(host))

    gsco("serve", "--host", host)

    assert started == [host]


def test_the_demo_asks_as_nobody(gsco: Gsco, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSCO_AUTHENTICATION", "true")

    assert "unset GSCO_AUTHENTICATION" in gsco("demo").err


def test_the_audit_is_verified_and_its_head_taken_back(gsco: Gsco, home: Path) -> None:
    put(home, a_diagnosis())
    head = gsco("audit", "verify").out.strip()
    gsco("keys", "create", "x", "--scope", "read")

    again = gsco("audit", "verify", "--noted", head, "--results", "--json")

    assert head.startswith("1:")
    assert (again.code, json.loads(again.out)["events"]) == (0, 2)
    assert json.loads(again.out)["unrecorded"] == 0


def test_a_broken_audit_is_exit_code_1_and_names_the_row(gsco: Gsco, home: Path) -> None:
    put(home, a_diagnosis(id="a"), a_diagnosis(id="b"), a_diagnosis(id="c"))
    with a_database(home) as engine:
        behind_its_back(engine, "UPDATE audit_events SET entry = '{}' WHERE number = 2")

    outcome = gsco("audit", "verify")
    as_json = gsco("audit", "verify", "--json")

    assert (outcome.code, as_json.code) == (1, 1)
    assert "audit event 2 is not what was recorded" in outcome.err
    assert json.loads(as_json.out)["holds"] is False


def test_a_changed_result_is_exit_code_1_where_results_are_asked_for(
    gsco: Gsco, home: Path
) -> None:
    put(home, a_diagnosis(id="a"))
    with a_database(home) as engine, engine.begin() as connection:
        connection.execute(text("UPDATE diagnoses SET document = '{}'"))

    assert gsco("audit", "verify").code == 0
    assert gsco("audit", "verify", "--results").code == 1


@pytest.mark.parametrize("head", ["", "7", "seven:" + "0" * 64])
def test_a_head_that_is_none_is_wrong_use(gsco: Gsco, head: str) -> None:
    assert gsco("audit", "verify", "--noted", head).code == 2


def test_the_audit_is_exported_as_it_is(gsco: Gsco, home: Path) -> None:
    put(home, a_diagnosis(id="a"), a_report("b"))

    lines = [json.loads(line) for line in gsco("audit", "export").out.splitlines()]

    assert [line["number"] for line in lines] == [1, 2, 3]
    assert [line["action"] for line in lines] == ["created", "created", "exported"]
    assert lines[2]["who"] == local_name()


def test_the_audit_is_exported_as_fhir(gsco: Gsco, home: Path, tmp_path: Path) -> None:
    put(home, a_diagnosis(id="a"), a_report("b"))
    file = tmp_path / "audit.ndjson"

    outcome = gsco("audit", "export", "--fhir", "--out", file)

    resources = [AuditEvent.model_validate_json(line) for line in file.read_text().splitlines()]
    assert [resource.action for resource in resources] == ["C", "C", "R"]
    assert "wrote 3 events" in outcome.err
    assert not list(tmp_path.glob("*.part"))


def test_one_case_s_events_are_exported(gsco: Gsco, home: Path) -> None:
    put(home, a_diagnosis(id="a"), a_diagnosis(id="b"))
    gsco("erase", "a", "--yes")

    lines = [json.loads(line) for line in gsco("audit", "export", "--case", "a").out.splitlines()]
    later = gsco("audit", "export", "--since", "2100-01-01").out

    assert [line["action"] for line in lines] == ["created", "erased"]
    assert later == ""


def test_results_are_erased_by_id_image_or_age(gsco: Gsco, home: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(png_bytes())
    sha256 = hashlib.sha256(png_bytes()).hexdigest()
    ancient = datetime.now(UTC) - timedelta(days=800)
    recent = datetime.now(UTC)
    put(home, a_diagnosis(id="by id", created_at=recent))
    put(home, a_report("by image", provenance=a_provenance(input_sha256=sha256), created_at=recent))
    put(home, a_diagnosis(id="by age", created_at=ancient))
    put(home, a_diagnosis(id="stays", created_at=recent))

    ways = [("by id",), ("--image", image), ("--older-than-days", "365")]
    erased = [json.loads(gsco("erase", *way, "--yes", "--json").out) for way in ways]

    assert erased == [{"erased": 1}] * 3
    assert gsco("erase", "stays", "--yes").err.strip() == "erased 1 results"
    assert gsco("audit", "verify", "--results").code == 0


def test_nothing_is_erased_without_a_yes(gsco: Gsco, home: Path) -> None:
    put(home, a_diagnosis(id="a"))

    outcome = gsco("erase", "a")

    assert outcome.code == 1
    assert gsco("erase", "a", "--yes").code == 0


def test_retention_that_finds_nothing_is_done(gsco: Gsco) -> None:
    assert gsco("erase", "--older-than-days", "365").code == 0


@pytest.mark.parametrize(
    "arguments", [(), ("a", "--older-than-days", "3"), ("unknown",), ("--older-than-days", "0")]
)
def test_wrong_use_of_erase_is_exit_code_2(gsco: Gsco, arguments: tuple[str, ...]) -> None:
    assert gsco("erase", *arguments).code == 2
