"""A real PostgreSQL server for tests: made by initdb in a folder of its own, on a Unix socket."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

INSTALL = "PostgreSQL is not installed: apt-get install postgresql"
ORDER = ("--encoding=UTF8", "--locale-provider=icu", "--icu-locale=en-US")
"""Texts are ordered as people do, as on most servers, and not by their bytes as on SQLite."""
_UNPRIVILEGED = "nobody"  # the server refuses to run as root


@dataclass(frozen=True)
class Server:
    """A running server, reached through `folder`; each story gets a database of its own."""

    folder: Path

    def new_database(self, template: str | None = None) -> str:
        """The URL of an empty database, or of a copy of another that nobody is connected to."""
        name = f"test_{uuid.uuid4().hex}"
        source = make_url(template).database if template else "template1"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}"')
        return self._url(name)

    def drop(self, url: str) -> None:
        """Whoever is connected to it is thrown out."""
        self._execute(f'DROP DATABASE "{make_url(url).database}" WITH (FORCE)')

    def restart(self) -> None:
        """As a crash would: no client is waited for."""
        self._control("restart", "-m", "immediate")

    def start(self) -> None:
        self._control("start")

    def stop(self) -> None:
        self._control("stop", "-m", "immediate")

    def _execute(self, statement: str) -> None:
        engine = create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://gsco@/{database}?host={self.folder}"

    def _control(self, *verb: str) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=off"
        log = str(self.folder / "log")
        data = str(self.folder / "data")
        _run(program("pg_ctl"), "-D", data, "-o", options, "-l", log, "-w", "-t", "60", *verb)


@contextmanager
def a_server() -> Iterator[Server]:
    """A server that runs until this is left."""
    folder = Path(tempfile.mkdtemp(prefix="gsco-pg-"))  # sockets need short paths
    if os.geteuid() == 0:
        shutil.chown(folder, _UNPRIVILEGED)
    try:
        data = str(folder / "data")
        _run(program("initdb"), "-D", data, "-U", "gsco", "--auth=trust", *ORDER, "-N")
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def program(name: str) -> str:
    """One of PostgreSQL's programs: on the path, or where Debian keeps them."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=str)
    found = shutil.which(name) or (str(debian[-1]) if debian else None)
    assert found, INSTALL
    return found


def _run(*command: str) -> None:
    other = pwd.getpwnam(_UNPRIVILEGED) if os.geteuid() == 0 else None
    done = subprocess.run(
        command,
        user=other and other.pw_uid,
        group=other and other.pw_gid,
        extra_groups=[] if other else None,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
