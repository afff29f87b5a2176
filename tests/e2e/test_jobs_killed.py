"""The service dies at any moment while jobs are taken in and done: each ends exactly once."""

import base64
import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

import httpx
import postgres
import pytest
from builders import png_bytes
from databases import a_database
from receiver import Receiver, a_receiver
from sqlalchemy import Engine, text
from standardwebhooks import Webhook
from vllm_server import free_port

from service.persistence import recorded, trail
from service.persistence.database import open_engine, upgrade

TESTS = Path(__file__).parent.parent
SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes that are secret").decode()
LEASE_SECONDS = 2.0
IMAGE = png_bytes()

NOTE_ENDINGS = {
    "sqlite": (
        "CREATE TABLE endings (id TEXT)",
        "CREATE TRIGGER note_ending AFTER UPDATE OF state ON jobs "
        "WHEN NEW.state NOT IN ('queued', 'running') AND OLD.state IN ('queued', 'running') "
        "BEGIN INSERT INTO endings VALUES (NEW.id); END",
    ),
    "postgresql": (
        "CREATE TABLE endings (id TEXT)",
        "CREATE FUNCTION note_ending() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO endings VALUES (NEW.id); RETURN NEW; END $$",
        "CREATE TRIGGER note_ending AFTER UPDATE OF state ON jobs FOR EACH ROW "
        "WHEN (NEW.state NOT IN ('queued', 'running') AND OLD.state IN ('queued', 'running')) "
        "EXECUTE FUNCTION note_ending()",
    ),
}
"""The database itself counts how often each job comes to an end."""


@dataclass
class Killed:
    """A service that is killed and started again, and its callers, who do not give up."""

    home: Path
    database_url: str
    receiver: Receiver
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        settings = {
            "GSCO_DATABASE_URL": self.database_url,
            "GSCO_JOB_LEASE_SECONDS": str(LEASE_SECONDS),
            "GSCO_JOB_WORKERS": "8",
            "GSCO_WEBHOOK_URLS": self.receiver.url,
            "GSCO_WEBHOOK_SECRET": SECRET,
            "GSCO_LOG_LEVEL": "error",
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, str(TESTS / "jobs_server.py"), str(self.home), str(self.port)]
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=os.environ | settings, stderr=log)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def submit(self, number: int) -> str:
        """The id of a job, however often it takes to hear that it was accepted."""
        while True:
            with contextlib.suppress(httpx.TransportError):
                reply = httpx.post(
                    f"{self.url}/v1/diagnoses",
                    files={"file": ("image.png", IMAGE)},
                    data={"task": "cxr-pneumonia", "webhook": self.receiver.url},
                    headers={"Prefer": "respond-async", "Idempotency-Key": f"job-{number}"},
                    timeout=20,
                )
                if reply.status_code == 202:
                    return str(reply.json()["id"])
                # In flight until the lease of a process that died is over; or no database now.
                assert reply.status_code in {409, 503}, reply.text
            time.sleep(0.1)


@dataclass
class Told:
    """What was received: how often, and under how many event ids, by job."""

    receiver: Receiver
    heard: int = 0
    events: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def hear(self) -> set[str]:
        """The jobs whose end was told so far; each event is checked soon after it came."""
        news = self.receiver.received[self.heard :]
        self.heard += len(news)
        for headers, body in news:
            event = Webhook(SECRET).verify(body, headers)
            assert event["type"] == "job.succeeded"
            self.events[event["data"]["id"]][headers["webhook-id"]] += 1
        return set(self.events)


def story(
    home: Path, engine: Engine, jobs: int, kills: int, disturb: Callable[[int], None]
) -> None:
    """So many jobs while the service is killed so many times."""
    chance, began = random.Random(20261), time.monotonic()  # noqa: S311
    with engine.begin() as connection:
        for statement in NOTE_ENDINGS[engine.dialect.name]:
            connection.exec_driver_sql(statement)
    url = engine.url.render_as_string(hide_password=False)
    with (
        a_receiver() as receiver,
        Killed(home, url, receiver) as service,
        ThreadPoolExecutor(16) as callers,
    ):
        told = Told(receiver)
        submitted = [callers.submit(service.submit, number) for number in range(jobs)]
        for kill in range(kills):
            enough = jobs * (kill + 0.5) / (kills + 1)  # evenly over the work
            wait_until(partial(has_heard, told, enough))
            time.sleep(chance.uniform(0, 0.3))
            service.kill()
            disturb(kill)
            service.start()
        ids = {one.result() for one in submitted}
        wait_until(lambda: told.hear() >= ids)
    assert len(ids) == jobs
    assert told.hear() == ids
    assert {len(counter) for counter in told.events.values()} == {1}  # one event id a job
    with engine.connect() as connection:
        named = "SELECT e.id FROM endings e JOIN jobs j ON j.id = e.id WHERE j.name = 'diagnosis'"
        endings = Counter(connection.execute(text(named)).scalars())
        made = connection.execute(text("SELECT id FROM diagnoses")).scalars().all()
    assert endings == dict.fromkeys(ids, 1)
    assert sorted(made) == sorted(ids)
    trail.verify(engine)
    assert recorded.check(engine) == 0  # as `gsco audit verify --results`
    seconds, sent = time.monotonic() - began, len(receiver.received)
    sys.stdout.write(f"{jobs} jobs, {kills} kills, {sent} webhooks, {seconds:.0f} s\n")


def test_a_few_jobs_survive_a_kill(home: Path) -> None:
    with a_database(home) as engine:
        story(home, engine, jobs=25, kills=1, disturb=lambda _: None)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_jobs_survive_ten_kills(home: Path) -> None:
    with a_database(home) as engine:
        story(home, engine, jobs=1000, kills=10, disturb=lambda _: None)


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(900)
def test_a_thousand_jobs_survive_ten_kills_and_two_restarts_of_postgresql(
    home: Path, postgres_server: postgres.Server
) -> None:
    engine = open_engine(postgres_server.new_database())
    upgrade(engine)

    def disturb(kill: int) -> None:
        if kill in {2, 6}:
            engine.dispose()
            postgres_server.restart()

    story(home, engine, jobs=1000, kills=10, disturb=disturb)
    engine.dispose()


def has_heard(told: Told, enough: float) -> bool:
    return len(told.hear()) >= enough


def wait_until(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.05)
