"""Fixtures that several test folders share."""

import gc
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import postgres
import pytest
import structlog
from builders import a_task, task_toml
from databases import a_database, served_by, url_of
from sqlalchemy import Engine

from service import telemetry


@pytest.fixture(autouse=True, scope="session")
def _quiet_log() -> None:
    """Logs as in production, to nowhere; the default takes seconds to draw a traceback."""
    telemetry.configure_logging("warning", stream=io.StringIO())


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What this process logs, down to the last detail, as JSON lines."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level, configuration = list(root.handlers), root.level, structlog.get_config()
    telemetry.configure_logging("debug", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configuration)


@pytest.fixture(scope="module")
def collected() -> Iterator[None]:
    """What a module's stories drop is collected at its end, not in whatever story comes next."""
    yield
    gc.collect()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder that knows one task, cxr-pneumonia."""
    folder = tmp_path / "home"
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks" / "cxr-pneumonia.toml").write_text(task_toml(a_task()), "utf-8")
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A real PostgreSQL server, started when the first story asks for it."""
    with postgres.a_server() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def either_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The same story on SQLite and on PostgreSQL: what `databases` opens is on one of them."""
    if request.param == "sqlite":
        yield "sqlite"
        return
    with served_by(request.getfixturevalue("postgres_server")):
        yield "postgresql"


@pytest.fixture
def home_database(either_database: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of the home's database, also where the command line finds it."""
    monkeypatch.setenv("GSCO_DATABASE_URL", url_of(home))
    return url_of(home)


@pytest.fixture
def engine(either_database: str, tmp_path: Path) -> Iterator[Engine]:
    """An empty database with every table."""
    with a_database(tmp_path) as engine:
        yield engine
