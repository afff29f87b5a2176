"""Stories of a running service whose PostgreSQL restarts, goes away, or becomes a standby."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import postgres
import pytest
from builders import a_diagnosis
from callers import a_key
from databases import a_database, served_by, url_of
from serving import Service, a_service, problem_of
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from waiting import until_told

from service.identity.caller import Scope
from service.jobs import workers
from service.jobs.job import Work
from service.jobs.queue import Queue
from service.persistence import erasure, keys, recorded, trail
from service.persistence.database import open_engine, upgrade
from service.persistence.store import SqlStore
from service.review import Word, accepted

pytestmark = pytest.mark.postgres


@pytest.fixture(autouse=True)
def server(postgres_server: postgres.Server) -> Iterator[postgres.Server]:
    with served_by(postgres_server):
        yield postgres_server


async def ask_on(service: Service, seen: Counter[int], stop: asyncio.Event) -> None:
    """A caller who makes, reads and lists diagnoses, whatever the answer."""
    while not stop.is_set():
        made = await service.diagnose()
        lists = [await service.client.get(at) for at in ("/v1/diagnoses", "/v1/agreement")]
        for reply in (made, *lists):
            seen[reply.status_code] += 1
            if reply.status_code == 503:
                assert problem_of(reply) == "database-unavailable"
                assert "retry-after" in reply.headers


async def readiness(service: Service) -> int:
    return (await service.client.get("/readyz")).status_code


async def test_a_restart_costs_some_callers_a_503_and_heals(
    home: Path, server: postgres.Server
) -> None:
    seen, stop = Counter[int](), asyncio.Event()
    async with a_service(home, in_sql=True) as service:
        await service.settled()
        async with asyncio.TaskGroup() as callers:
            for _ in range(8):
                callers.create_task(ask_on(service, seen, stop))
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.restart)
            await until_told(lambda: readiness(service), lambda status: status == 200)
            stop.set()
        after = await service.diagnose()
        head, unrecorded = trail.verify(service.engine), recorded.check(service.engine)

    assert set(seen) <= {200, 201, 503}
    assert after.status_code == 201
    assert head.number > 0
    assert unrecorded == 0


async def test_while_it_is_away_everything_is_503_and_jobs_go_on_afterwards(
    home: Path, server: postgres.Server
) -> None:
    async with a_service(home, in_sql=True) as service:
        await service.settled()
        job = (await service.ask_for_job()).json()["id"]
        server.stop()
        try:
            paths = ("/readyz", "/v1/diagnoses", f"/v1/jobs/{job}", f"/v1/diagnoses/{job}")
            replies = [await service.client.get(path) for path in paths]
            replies += [await service.diagnose(), await service.ask_for_job()]
        finally:
            server.start()
        ended = await service.ended(job)
        again = await service.diagnose()

    assert [reply.status_code for reply in replies] == [503] * len(replies)
    assert ended["status"] == "succeeded"
    assert again.status_code == 201


async def test_a_server_that_became_a_standby_is_503_until_it_takes_writes_again(
    home: Path,
) -> None:
    async with a_service(home, in_sql=True) as service:
        await service.store.save(a_diagnosis())
        only_read(service, "on")
        refused = await service.diagnose()
        only_read(service, "off")
        again = await service.diagnose()

    assert (refused.status_code, problem_of(refused)) == (503, "database-unavailable")
    assert again.status_code == 201


async def test_a_role_with_the_rights_that_are_documented_serves(home: Path) -> None:
    with a_database(home) as owner, owner.begin() as connection:
        for statement in RIGHTS:
            connection.execute(text(statement))
    clerk = open_engine(url_of(home).replace("gsco@", "server@"))
    upgrade(clerk)  # as the service does when it starts
    store = SqlStore(clerk)
    await store.save(a_diagnosis())
    await store.review(accepted(a_diagnosis(), Word("user:a", (), "", a_diagnosis().created_at)))
    key, _ = a_key(clerk, Scope.READ)
    keys.revoke(clerk, key.id, "local:test")
    queue = Queue(clerk)
    await queue.put(Work("errand", {}))
    await queue.run(workers.beat, "alice", 15, set())
    erased = erasure.erase(clerk, [a_diagnosis().id], "local:test", "request")

    assert erased == 1
    assert trail.verify(clerk).number == 5
    queue.close()
    clerk.dispose()


RIGHTS = (
    "CREATE ROLE server LOGIN",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO server",
    "REVOKE ALL ON alembic_version, audit_events, audit_head FROM server",
    "GRANT SELECT ON alembic_version TO server",
    "GRANT SELECT, INSERT ON audit_events TO server",
    "GRANT SELECT, UPDATE ON audit_head TO server",
    "GRANT USAGE ON reviews_number_seq TO server",
)


def only_read(service: Service, on: str) -> None:
    """As of a primary that was demoted: every write is refused, and connections start anew."""
    setting = f"default_transaction_read_only = {on}"
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
    name = service.engine.url.database
    with service.engine.begin() as connection:
        connection.execute(text("SET TRANSACTION READ WRITE"))
        connection.execute(text(f'ALTER DATABASE "{name}" SET {setting}'))
    with pytest.raises(DBAPIError), service.engine.begin() as connection:
        connection.execute(text(others), {"name": name})
