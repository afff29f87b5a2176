"""Databases for tests: real ones, made once and copied."""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from sqlalchemy import Engine

from service.jobs.queue import Queue
from service.persistence.database import open_engine, upgrade
from service.persistence.keys import SqlKeys
from service.persistence.trail import SqlTrail


@contextmanager
def a_database(folder: Path) -> Iterator[Engine]:
    """The folder's gsco.db with every table, made where there is none."""
    path = folder / "gsco.db"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_empty(), path)
    engine = open_engine(f"sqlite:///{path}")
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


@cache
def _empty() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="gsco-tests-"))
    atexit.register(shutil.rmtree, folder)
    upgrade(f"sqlite:///{folder / 'empty.db'}")
    return folder / "empty.db"
