"""A results folder: what is measured, the records of finished cases, and what came of them.

measured.json    what was asked of whom; a folder of other conditions is refused
cases.jsonl      one line per finished case; an interrupted run goes on after the last whole one
validation.jsonl what the specialists said of the validation split, for the stacked baseline
metrics.json  table.md  report.html  plots/*.svg
"""

import fcntl
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cattrs

from service.errors import Misconfigured
from service.evaluation import record
from service.evaluation.record import CaseRecord, Kind, TextRecord

MEASURED, CASES, VALIDATION = "measured.json", "cases.jsonl", "validation.jsonl"


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that the records of one folder have in common."""

    task: str
    data: str
    data_fingerprint: str
    split: str
    cases: int
    systems: tuple[str, ...]
    stresses: tuple[str, ...]
    neighbours: int
    left_out: tuple[str, ...]
    specialists_from: str
    validation_accuracies: Mapping[str, float]
    conditions: Mapping[str, str]
    index_ids: tuple[str, ...]
    code_version: str
    notes: tuple[str, ...] = field(default=())


class ResultsFolder:
    """One evaluation's folder, written by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._adding = threading.Lock()

    @contextmanager
    def opened(self, measured: Measured) -> Iterator[None]:
        """Begin, or go on with, this measurement; raises Misconfigured where it is of another."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Misconfigured(f"another evaluation is writing to '{self.path}'") from error
            self._demand_same(measured)
            yield

    def records(self, name: str = CASES) -> list[CaseRecord]:
        return self.records_of(CaseRecord, name)

    def records_of(self, kind: type[Kind], name: str = CASES) -> list[Kind]:
        """Of all finished cases, as they were finished; an unfinished last line is cut off."""
        path = self.path / name
        if not path.exists():
            return []
        octets = path.read_bytes()
        whole = octets[: octets.rfind(b"\n") + 1]
        if len(whole) < len(octets):
            os.truncate(path, len(whole))
        try:
            records = [record.read(text, kind) for text in whole.decode().splitlines()]
            _check_distinct([one.id for one in records])
        except ValueError as error:
            raise Misconfigured(f"'{path}' is damaged: {error}") from error
        return records

    def records_in_order(self, kind: type[Kind], ids: Sequence[str]) -> list[Kind]:
        """Of all finished cases, in the order of `ids`; raises Misconfigured for any other case."""
        place = {id: number for number, id in enumerate(ids)}
        records = self.records_of(kind)
        for one in records:
            if one.id not in place:
                raise Misconfigured(
                    f"'{self.path / CASES}' holds {one.id!r}, which is no case of this evaluation"
                )
        return sorted(records, key=lambda one: place[one.id])

    def add(self, records: Iterable[CaseRecord | TextRecord]) -> None:
        """Append whole lines, on the disk before it returns; where they do not fit, nothing."""
        lines = _lines(records).encode()
        with self._adding, (self.path / CASES).open("ab", buffering=0) as file:
            before = file.tell()
            try:
                while lines:
                    lines = lines[file.write(lines) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise

    def keep(self, records: Iterable[CaseRecord], name: str) -> None:
        """All of them as a file of their own, whole or not at all."""
        self.write(name, _lines(records))

    def write(self, name: str, content: str) -> Path:
        """A file, whole or not at all."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".part")
        fresh.write_text(content, "utf-8")
        return fresh.replace(path)

    def measured(self) -> Measured:
        """What this folder holds; raises Misconfigured where it holds no evaluation."""
        try:
            document: Any = json.loads((self.path / MEASURED).read_text("utf-8"))
            return cattrs.structure(document, Measured)
        except (OSError, ValueError, cattrs.BaseValidationError) as error:
            raise Misconfigured(f"'{self.path}' holds no evaluation that can be read") from error

    def _demand_same(self, measured: Measured) -> None:
        if not (self.path / MEASURED).exists():
            ours_too = {".lock", f"{MEASURED}.part"}
            strange = sorted(one.name for one in self.path.iterdir() if one.name not in ours_too)
            if strange:
                raise Misconfigured(f"'{self.path}' is no results folder: it holds {strange[0]!r}")
            self.write(MEASURED, json.dumps(asdict(measured), indent=2) + "\n")
            return
        ours, theirs = asdict(measured), asdict(self.measured())
        for key, value in ours.items():
            if value != theirs[key]:
                changed = _difference(key, theirs[key], value)
                raise Misconfigured(
                    f"'{self.path}' holds another evaluation: {changed}; choose another folder"
                )


def _lines(records: Iterable[CaseRecord | TextRecord]) -> str:
    return "".join(record.line(one) + "\n" for one in records)


def _check_distinct(ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for id in ids:
        if id in seen:
            raise ValueError(f"case {id!r} is there twice")
        seen.add(id)


def _difference(key: str, theirs: Any, ours: Any) -> str:
    name = key.replace("_", " ")
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        changed = sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k))
        return f"{name} differ in {', '.join(changed[:3])}"
    if isinstance(theirs, str | int) and len(str(theirs)) < 40:
        return f"its {name} is {theirs!r}, not {ours!r}"
    return f"its {name} differs"
