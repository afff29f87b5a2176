"""The commands of docs/operations.md that copy a database, and what comes back from the copy."""

import shutil
import subprocess
import sys
from pathlib import Path

import postgres
import pytest
from builders import a_diagnosis
from callers import a_key
from databases import a_database
from sqlalchemy import Engine

from service.domain import Diagnosis
from service.identity.caller import Scope
from service.persistence import keys, recorded, trail
from service.persistence.database import open_engine, upgrade
from service.persistence.store import SqlStore


async def something_to_lose(engine: Engine) -> str:
    """A diagnosis and a key, whose id is returned."""
    await SqlStore(engine).save(a_diagnosis())
    key, _ = a_key(engine, Scope.READ)
    return key.id


async def is_all_there(engine: Engine, key_id: str) -> None:
    assert await SqlStore(engine).get(Diagnosis, a_diagnosis().id) == a_diagnosis()
    assert keys.find(engine, key_id) is not None
    assert trail.verify(engine).number == 2
    assert recorded.check(engine) == 0


async def test_a_copy_of_sqlite_taken_while_it_is_used_holds_everything(tmp_path: Path) -> None:
    copy, restored = tmp_path / "copy.db", tmp_path / "new home"
    with a_database(tmp_path / "home") as engine:
        key_id = await something_to_lose(engine)
        with engine.connect() as reading:
            reading.exec_driver_sql("SELECT * FROM diagnoses")
            statement = f"VACUUM INTO '{copy}'"
            _run(sys.executable, "-c", SQLITE, str(tmp_path / "home" / "gsco.db"), statement)

    restored.mkdir()
    shutil.copyfile(copy, restored / "gsco.db")
    with a_database(restored) as engine:
        await is_all_there(engine, key_id)


SQLITE = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute(sys.argv[2])"


@pytest.mark.postgres
async def test_a_dump_of_postgresql_holds_everything(
    postgres_server: postgres.Server, tmp_path: Path
) -> None:
    old, new = postgres_server.new_database(), postgres_server.new_database()
    upgrade(old)
    engine = open_engine(old)
    key_id = await something_to_lose(engine)
    engine.dispose()

    dump = tmp_path / "gsco.dump"
    _run(postgres.program("pg_dump"), "--format=custom", f"--file={dump}", plain(old))
    _run(postgres.program("pg_restore"), "--exit-on-error", "--single-transaction",
         f"--dbname={plain(new)}", str(dump))  # fmt: skip

    engine = open_engine(new)
    await is_all_there(engine, key_id)
    engine.dispose()


def plain(url: str) -> str:
    """The URL as PostgreSQL's own programs read it."""
    return url.replace("postgresql+psycopg://", "postgresql://")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
