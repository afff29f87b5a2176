"""Databases for tests: real ones, made once and copied; on SQLite, or as the story asks."""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import postgres
from sqlalchemy import Engine

from service.jobs.queue import Queue
from service.persistence.database import open_engine, upgrade
from service.persistence.keys import SqlKeys
from service.persistence.trail import SqlTrail

_servers: list[postgres.Server] = []
_urls: dict[Path, str] = {}


@contextmanager
def served_by(server: postgres.Server) -> Iterator[None]:
    """Within, the database of a folder is one of this PostgreSQL server; dropped afterwards."""
    _servers.append(server)
    try:
        yield
    finally:
        _servers.pop()
        while _urls:
            server.drop(_urls.popitem()[1])


def url_of(folder: Path) -> str:
    """The database of a folder, with every table, made where there is none."""
    if not _servers:
        return _on_sqlite(folder / "gsco.db")
    if folder not in _urls:
        _urls[folder] = _servers[-1].new_database(template=_template(_servers[-1]))
    return _urls[folder]


def empty_url(folder: Path) -> str:
    """A database without a table."""
    if not _servers:
        return f"sqlite:///{folder / 'gsco.db'}"
    return _urls.setdefault(folder, _servers[-1].new_database())


@contextmanager
def a_database(folder: Path) -> Iterator[Engine]:
    """The folder's database with every table."""
    engine = open_engine(url_of(folder))
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def a_queue(folder: Path) -> Iterator[Queue]:
    """The queue of the folder's database."""
    with a_database(folder) as engine:
        queue = Queue(engine)
        try:
            yield queue
        finally:
            queue.close()


@contextmanager
def kept_in(folder: Path) -> Iterator[tuple[Queue, SqlKeys, SqlTrail]]:
    """The jobs, the API keys and the audit of the folder's database."""
    with a_queue(folder) as queue:
        yield queue, SqlKeys(queue.engine), SqlTrail(queue.engine)


def _on_sqlite(path: Path) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_empty(), path)
    return f"sqlite:///{path}"


@cache
def _empty() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="gsco-tests-"))
    atexit.register(shutil.rmtree, folder)
    upgrade(f"sqlite:///{folder / 'empty.db'}")
    return folder / "empty.db"


@cache
def _template(server: postgres.Server) -> str:
    url = server.new_database()
    upgrade(url)
    return url
