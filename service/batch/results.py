"""The results of a cohort: one line of JSON per case, on the disk as soon as it is answered."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.batch.manifest import Row
from service.errors import Misconfigured


class Results:
    """A results file that one process writes at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def opened(self, rows: tuple[Row, ...]) -> Iterator[set[str]]:
        """The ids of these rows that are answered already; those that failed are forgotten.

        Raises Misconfigured where the file is in use, or holds cases of another list.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_name(self._path.name + ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Misconfigured(f"another batch is writing to '{self._path}'") from error
            kept = self._done(rows)
            self._rewrite(kept)
            yield {line["id"] for line in kept}

    def add(self, line: dict[str, Any]) -> None:
        """One more line, on the disk when this returns."""
        with self._path.open("ab") as file:
            file.write(_encoded(line))
            file.flush()
            os.fsync(file.fileno())

    def _done(self, rows: tuple[Row, ...]) -> list[dict[str, Any]]:
        asked = {row.id: row.sha256 for row in rows}
        done: dict[str, dict[str, Any]] = {}
        for line in self._lines():
            if asked.get(line["id"]) != line["row_sha256"]:
                raise Misconfigured(
                    f"'{self._path}' holds {line['id']!r} of another list: choose another file"
                )
            if line["status"] == "done":
                done[line["id"]] = line
        return list(done.values())

    def _lines(self) -> Iterator[dict[str, Any]]:
        """What was written; a last line that is not whole was cut off by a crash."""
        if not self._path.exists():
            return
        *whole, _ = self._path.read_bytes().split(b"\n")
        for number, text in enumerate(whole, start=1):
            try:
                line = json.loads(text)
                line["id"], line["row_sha256"], line["status"]
            except (ValueError, TypeError, KeyError) as error:
                raise Misconfigured(
                    f"'{self._path}', line {number}: not a result of this command"
                ) from error
            yield line

    def _rewrite(self, lines: list[dict[str, Any]]) -> None:
        fresh = self._path.with_name(self._path.name + ".part")
        fresh.write_bytes(b"".join(map(_encoded, lines)))
        fresh.replace(self._path)


def _encoded(line: dict[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"
