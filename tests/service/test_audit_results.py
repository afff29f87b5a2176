"""What the audit records of requests, results and keys, and how results are held against it."""

from collections.abc import Callable
from pathlib import Path

import postgres
import pytest
from alembic import command
from audits import NOBODY, behind_its_back, some_events
from builders import a_diagnosis, a_report, an_answer, sha256_of
from callers import a_key, bearing
from serving import a_service
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from service.audit import event
from service.audit.chain import START
from service.audit.event import Action
from service.domain import Diagnosis
from service.errors import AuditBroken
from service.identity.caller import Scope
from service.persistence import erasure, recorded, store, trail
from service.persistence import keys as kept
from service.persistence.database import _alembic, open_engine, upgrade, writing
from service.persistence.store import SqlStore

UNKNOWN = "00000000-0000-0000-0000-000000000000"


async def test_every_result_is_recorded_with_what_it_rested_on(engine: Engine) -> None:
    results = SqlStore(engine)
    for result in (a_diagnosis(), a_report(), an_answer()):
        await results.save(result)

    events = [event for _, event in trail.events(engine)]

    assert [event.kind for event in events] == ["diagnosis", "report", "answer"]
    details = events[0].details
    assert details["specialists"]["resnet18"] == sha256_of("weights of resnet18")
    assert details["generalist"]["weights_sha256"] == sha256_of("generalist")
    assert details["prompt"]["arbitration_sha256"] == sha256_of("arbitration prompt")
    assert events[0].who == "anonymous"


async def test_no_word_of_a_result_is_in_the_audit(engine: Engine) -> None:
    await SqlStore(engine).save(an_answer(question="Does John Doe have fluid?", text="no"))
    with writing(engine) as session:
        trail.append(session, event.reviewed("7", "key:x", "override", ("mass",), "John Doe again"))

    entries = [row.entry for row, _ in trail.events(engine)]

    assert not [entry for entry in entries if "Doe" in entry]


async def test_a_result_that_was_changed_is_named(engine: Engine) -> None:
    await SqlStore(engine).save(a_diagnosis())
    assert recorded.check(engine) == 0
    with engine.begin() as connection:
        document = text('UPDATE diagnoses SET document = \'{"final": "normal"}\'')
        connection.execute(document)

    with pytest.raises(AuditBroken, match=f"diagnosis {a_diagnosis().id} is not what was recorded"):
        recorded.check(engine)


async def test_a_result_that_is_gone_though_nobody_erased_it_is_named(engine: Engine) -> None:
    await SqlStore(engine).save(a_report())
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM reports"))

    with pytest.raises(AuditBroken, match="report report-1 was made, and is gone"):
        recorded.check(engine)


async def test_a_result_that_was_erased_and_came_back_is_named(engine: Engine) -> None:
    await SqlStore(engine).save(a_report())
    erasure.erase(engine, ["report-1"], NOBODY, "request")
    with writing(engine) as session:
        session.add(store._record(a_report()))

    with pytest.raises(AuditBroken, match="report-1 was erased, and is there again"):
        recorded.check(engine)


async def test_a_job_that_was_done_twice_counts_with_its_last_result(engine: Engine) -> None:
    await SqlStore(engine).save(a_diagnosis())
    await SqlStore(engine).save(a_diagnosis(notes=("again",)))

    assert recorded.check(engine) == 0


async def test_results_of_before_the_audit_are_counted_and_not_doubted(engine: Engine) -> None:
    await SqlStore(engine).save(a_diagnosis())
    behind_its_back(
        engine,
        "DELETE FROM audit_events",
        f"UPDATE audit_head SET number = 0, sha256 = '{START.sha256}'",
    )

    assert recorded.check(engine) == 1


@pytest.mark.postgres
def test_a_role_that_owns_nothing_can_record_and_cannot_cut(
    postgres_server: postgres.Server,
) -> None:
    url = postgres_server.new_database()
    upgrade(url)
    owner, clerk = open_engine(url), open_engine(url.replace("gsco@", "clerk@"))
    with owner.begin() as connection:
        for statement in RIGHTS:
            connection.execute(text(statement))

    upgrade(clerk)  # as the service does when it starts
    some_events(clerk, 3)
    for attempt in ("DROP TRIGGER audit_events_stay ON audit_events", "TRUNCATE audit_events"):
        with pytest.raises(DBAPIError, match=r"owner|denied"), clerk.begin() as connection:
            connection.execute(text(attempt))

    assert trail.verify(clerk).number == 3
    owner.dispose()
    clerk.dispose()


RIGHTS = (
    "CREATE ROLE clerk LOGIN",
    "GRANT SELECT ON alembic_version TO clerk",
    "GRANT SELECT, INSERT ON audit_events TO clerk",
    "GRANT SELECT, UPDATE ON audit_head TO clerk",
)


async def test_results_outlive_the_arrival_and_the_removal_of_the_audit(engine: Engine) -> None:
    await SqlStore(engine).save(a_diagnosis())
    with writing(engine) as session:
        command.downgrade(_alembic(session.connection()), "0003")
    assert "audit_events" not in inspect(engine).get_table_names()

    upgrade(engine)

    assert await SqlStore(engine).get(Diagnosis, a_diagnosis().id) == a_diagnosis()
    assert recorded.check(engine) == 1
    assert len(some_events(engine, 2)) == 2


@pytest.mark.usefixtures("either_database")
async def test_requests_leave_their_trace(home: Path) -> None:
    async with a_service(home, authentication=True, in_sql=True) as service:
        key, text = a_key(service.engine, Scope.SUBMIT, Scope.READ)
        made = await service.client.post(
            "/v1/diagnoses",
            files={"file": b"image"},
            data={"task": "cxr-pneumonia"},
            headers=bearing(text),
        )
        id = made.json()["id"]
        read = await service.client.get(f"/v1/diagnoses/{id}", headers=bearing(text))
        await service.client.get("/metrics", headers=bearing(text))
        await service.client.get("/metrics")
        await service.client.get(f"/v1/diagnoses/{UNKNOWN}", headers=bearing(text))
        events = [event for _, event in trail.events(service.engine)]

    assert [(event.action, event.who, event.subject) for event in events] == [
        (Action.CREATED, NOBODY, f"key/{key.id}"),
        (Action.CREATED, f"key:{key.id}", f"diagnosis/{id}"),
        (Action.READ, f"key:{key.id}", f"diagnosis/{id}"),
        (Action.REFUSED, f"key:{key.id}", "route/GET /metrics"),
    ]
    assert events[2].request_id == read.headers["x-request-id"]


@pytest.mark.usefixtures("either_database")
async def test_an_explanation_leaves_a_trace_though_nothing_is_kept(home: Path) -> None:
    async with a_service(home) as service:
        await service.client.post(
            "/v1/explanations",
            files={"file": b"image"},
            data={"task": "cxr-pneumonia", "specialist": "resnet18"},
        )
        ((_, event),) = trail.events(service.engine)

    assert (event.action, event.who) == (Action.EXPLAINED, "anonymous")
    assert event.details == {"specialists": {"resnet18": sha256_of("weights of resnet18")}}


@pytest.mark.usefixtures("either_database")
async def test_nobody_sees_a_result_that_is_not_recorded_as_read(home: Path) -> None:
    async with a_service(home, in_sql=True) as service:
        id = (await service.diagnose()).json()["id"]
        with service.engine.begin() as connection:
            connection.execute(text("DELETE FROM audit_head"))
        reply = await service.client.get(f"/v1/diagnoses/{id}")

    assert reply.status_code == 500
    assert "pneumonia" not in reply.text


def test_making_and_revoking_a_key_are_recorded(engine: Engine) -> None:
    key, secret = a_key(engine, Scope.READ)
    kept.revoke(engine, key.id, NOBODY)
    kept.revoke(engine, key.id, NOBODY)

    rows, events = zip(*trail.events(engine), strict=True)

    assert [event.action for event in events] == [Action.CREATED, Action.REVOKED]
    assert not [row for row in rows if secret.rpartition("_")[2] in row.entry]
    assert not [row for row in rows if key.sha256 in row.entry]


BUILDERS: list[Callable[..., object]] = [a_diagnosis, a_report, an_answer]


@pytest.mark.parametrize("build", BUILDERS)
def test_a_document_has_one_hash_before_and_after_it_was_stored(engine: Engine, build) -> None:
    result = build()
    with writing(engine) as session:
        store.add(session, result)
    ((_, made),) = trail.events(engine)

    erasure.erase(engine, [result.id], NOBODY, "request")

    _, (_, gone) = trail.events(engine)
    assert gone.details["document_sha256"] == made.details["document_sha256"]
