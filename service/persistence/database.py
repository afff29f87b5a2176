"""The database: SQLite by default, PostgreSQL in production."""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    InternalError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from service.errors import Misconfigured, Overloaded

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_SECONDS = 30
# InternalError: the server's own, such as one that became a read-only standby.
UNAVAILABLE = (OperationalError, InterfaceError, InternalError, PoolTimeout)
"""What a database raises that cannot answer now, and may later."""

LEAST_FREE_BYTES = 8 * 2**20  # SQLite's journal grows to 4 MiB before it is written back
POSTGRES_LIMITS: Mapping[str, Any] = {
    "connect_timeout": 5,
    "options": "-c statement_timeout=30000",
    # A machine that vanished sends no word: a query would wait a quarter of an hour for it.
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
POSTGRES_POOL: Mapping[str, Any] = {"pool_size": 5, "max_overflow": 10, "pool_pre_ping": True}
_COMMON: Mapping[str, Any] = {
    "hide_parameters": True,  # they are what was found
    "json_serializer": partial(json.dumps, allow_nan=False),  # PostgreSQL takes no NaN
}
_MIGRATION_LOCK = 0x6753436F  # any number, as long as nobody else locks it in this database


def open_engine(url: str) -> Engine:
    """An engine for `sqlite:///FILE` (made with its folders) or `postgresql://…`.

    Raises Misconfigured for a URL or place that cannot be used. PostgreSQL is first contacted
    when first used.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed)
    try:
        return create_engine(parsed, connect_args=dict(POSTGRES_LIMITS), **POSTGRES_POOL, **_COMMON)
    except ImportError as error:
        raise Misconfigured("PostgreSQL needs its driver: install the extra 'postgres'") from error


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A transaction, committed at the end, that may first read and then write what follows from it.

    On SQLite nobody else writes meanwhile; on PostgreSQL the rows that matter are to be locked.
    """
    with Session(engine) as session, session.begin():
        if engine.dialect.name == "sqlite":
            session.connection().exec_driver_sql("BEGIN IMMEDIATE")
        yield session


def require_room(folder: Path) -> None:
    """Raises Overloaded where so little is left of the disk that nothing more can be kept."""
    if shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
        raise Overloaded("the disk is full")


def upgrade(database: Engine | str) -> None:
    """Brings every table to this version of the code; safe to call from many processes at once.

    Raises Misconfigured where the database cannot be reached or is not ours.
    """
    if isinstance(database, str):
        engine = open_engine(database)
        try:
            upgrade(engine)
        finally:
            engine.dispose()
        return
    try:
        with database.begin() as connection:
            _wait_for_others(connection)
            command.upgrade(_alembic(connection), "head")
    except CommandError as error:
        raise Misconfigured(
            f"{_shown(database.url)} was written by another version of this program: {error}"
        ) from error
    except DBAPIError as error:
        raise Misconfigured(f"{_shown(database.url)} cannot be used: {error.orig}") from error


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise Misconfigured("not a database URL: write sqlite:///FILE or postgresql://…") from error
    if parsed.drivername in {"postgres", "postgresql"}:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise Misconfigured(f"{_shown(parsed)}: only SQLite and PostgreSQL are supported")
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise Misconfigured("a database in memory would lose every diagnosis: name a file")
    return parsed


def _open_sqlite(url: URL) -> Engine:
    try:
        _make(Path(str(url.database)))
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, **_COMMON)
        event.listen(engine, "connect", _prepare_sqlite)
        with engine.connect() as connection:
            connection.execute(text("PRAGMA user_version"))
    except NoSuchModuleError as error:
        raise Misconfigured(f"{_shown(url)}: no such SQLite driver") from error
    except (OSError, DBAPIError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error.strerror
        raise Misconfigured(f"{_shown(url)} cannot be used: {reason}") from error
    return engine


def _make(path: Path) -> None:
    """A new database is for nobody else's eyes: SQLite would leave that to the umask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """WAL: readers never wait for a writer. FULL: what is committed survives a power cut."""
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}")
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _write_ahead(connection: Any) -> None:
    """A new database changes to WAL once, and SQLite's own waiting is not for that.

    Raises sqlite3.OperationalError where others hold it for too long.
    """
    ends = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > ends:
                raise
            time.sleep(0.02)
        else:
            return


def _wait_for_others(connection: Connection) -> None:
    """Two processes that start together must not both create the tables."""
    if connection.dialect.name == "sqlite":
        # Python's driver opens no transaction for CREATE TABLE by itself.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # a migration takes its time
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})


def _alembic(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)
