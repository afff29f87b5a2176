"""The list of a cohort's cases: a CSV file with a header, or JSON lines.

    image,task,id
    a.dcm,cxr-pneumonia,case-1

`image` is a path from the list's folder. Optional, as in REST: `id` (else the row's number),
`task` (else the one given for all), `frame`, `group`, `question`, `choices` (in CSV with
semicolons between), `draft`.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from service.api.schemas_text import Choices, Draft, Question
from service.errors import Misconfigured

MOST_BYTES = 256 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TEXTS: dict[str, Any] = {"question": Question, "choices": Choices, "draft": Draft}


@dataclass(frozen=True, slots=True)
class Row:
    """One case of a cohort."""

    id: str
    image: str
    task: str
    frame: int | None = None
    group: str | None = None
    question: str = ""
    choices: tuple[str, ...] = ()
    draft: str = ""

    @property
    def sha256(self) -> str:
        """Of everything that the row says: another row under the same id is another case."""
        told = [getattr(self, field.name) for field in fields(self)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def read(path: Path, task: str = "") -> tuple[Row, ...]:
    """The rows of a list; raises Misconfigured with the first row that cannot be used, and why."""
    rows = []
    for number, told in enumerate(_told(path), start=1):
        try:
            rows.append(row_of(told, number, task))
        except ValueError as error:
            raise Misconfigured(f"{path.name!r}, row {number}: {error}") from error
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise Misconfigured(f"{path.name!r}: the id {row.id!r} is there twice")
        seen.add(row.id)
    if not rows:
        raise Misconfigured(f"{path.name!r} lists no case")
    return tuple(rows)


def row_of(told: Mapping[str, Any], number: int = 1, task: str = "") -> Row:
    """The row that a mapping describes; raises ValueError with one sentence."""
    known = {field.name for field in fields(Row)}
    given = {name: value for name, value in told.items() if value not in (None, "")}
    if strange := sorted(str(name) for name in given if name not in known):
        raise ValueError(f"{strange[0][:40]!r} is not known here; there are {', '.join(known)}")
    row = Row(
        id=_text(given, "id", str(number)),
        image=_text(given, "image"),
        task=_text(given, "task", task),
        frame=_frame(given.get("frame")),
        group=_text(given, "group") if "group" in given else None,
        **{name: _accepted(name, given[name]) for name in _TEXTS if name in given},
    )
    for name in (row.id, row.group):
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError("id and group are 1 to 128 letters, digits, '.', '_' or '-'")
    return row


def _told(path: Path) -> Iterator[Mapping[str, Any]]:
    """What each row says, as the file has it."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise Misconfigured(f"{path.name!r} is larger than {MOST_BYTES} bytes")
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise Misconfigured(f"cannot read {path.name!r}: {reason}") from error
    return _json_lines(path, text) if path.suffix in {".jsonl", ".ndjson"} else _csv(path, text)


def _json_lines(path: Path, text: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(filter(str.strip, text.splitlines()), start=1):
        try:
            told = json.loads(line)
        except ValueError as error:
            raise Misconfigured(f"{path.name!r}, row {number}: not a line of JSON") from error
        if not isinstance(told, dict):
            raise Misconfigured(f"{path.name!r}, row {number}: not a JSON object")
        yield told


def _csv(path: Path, text: str) -> Iterator[Mapping[str, Any]]:
    try:
        for told in csv.DictReader(
            io.StringIO(text), strict=True, restkey="a column without a name"
        ):
            yield {**told, **_listed(told.get("choices"))}
    except csv.Error as error:
        raise Misconfigured(f"{path.name!r} is not a CSV file: {error}") from error


def _listed(choices: str | None) -> dict[str, list[str]]:
    return {"choices": choices.split(";")} if choices else {}


def _text(given: Mapping[str, Any], name: str, otherwise: str = "") -> str:
    value = given.get(name, otherwise)
    if not isinstance(value, str | int) or value == "":
        raise ValueError(f"{name!r} is missing" if value == "" else f"{name!r} must be a text")
    return str(value)


def _frame(value: Any) -> int | None:
    if value is None:
        return None
    if not str(value).isascii() or not str(value).isdigit() or int(value) < 1:
        raise ValueError("'frame' counts from 1")
    return int(value)


def _accepted(name: str, value: Any) -> Any:
    """What REST would accept too."""
    try:
        accepted = TypeAdapter(_TEXTS[name]).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"{name!r}: {reason}") from None
    return tuple(accepted) if isinstance(accepted, list) else accepted
