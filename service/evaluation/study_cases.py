"""The cases of a reader study as they come in: one JSON object per line, checked before use."""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from service.errors import Misconfigured

FIELDS = {"id", "image", "reference", "systems"}
MOST_CHARACTERS = 32_000  # a spreadsheet program cuts a cell at 32,767
NEVER_SHOWN = {"Cc", "Cs"}  # Unicode categories: controls and halves of surrogate pairs


@dataclass(frozen=True, slots=True)
class StudyCase:
    """One case before blinding: what every system says of it."""

    id: str
    texts: Mapping[str, str]  # by system
    image: Path | None = None
    reference: str = ""


def read_cases(file: Path) -> list[StudyCase]:
    """The cases of a JSONL file; paths of images are relative to its folder.

    Raises Misconfigured, naming the line or the case, for anything a study cannot use.
    """
    cases = [
        _case(line, f"{file.name}, line {number}", file.parent) for number, line in _lines(file)
    ]
    _check_together(cases, file)
    return cases


def telling_cases(cases: Sequence[StudyCase]) -> list[str]:
    """Ids of the cases where a text names a system: readers may tell who wrote it."""
    names = "|".join(map(re.escape, cases[0].texts))
    telling = re.compile(rf"(?<!\w)(?:{names})(?!\w)", re.IGNORECASE)
    return [case.id for case in cases if any(map(telling.search, case.texts.values()))]


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise Misconfigured(f"{file.name} is not UTF-8 text") from None
    except OSError as error:
        raise Misconfigured(f"cannot read {file}: {error.strerror}") from error
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _case(line: str, place: str, folder: Path) -> StudyCase:
    document = _object(line, place)
    id = _text(document, "id", place)
    place = f"case {id!r}"
    image = _optional(document, "image", place)
    return StudyCase(
        id=id,
        texts=_texts(document.get("systems"), place),
        image=_image(folder / image, place) if image else None,
        reference=_optional(document, "reference", place),
    )


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except ValueError:
        raise Misconfigured(f"{place}: not JSON") from None
    if not isinstance(document, dict):
        raise Misconfigured(f"{place}: not a JSON object")
    if unknown := sorted(document.keys() - FIELDS):
        raise Misconfigured(f"{place}: unknown field {unknown[0]!r}")
    return document


def _texts(systems: Any, place: str) -> dict[str, str]:
    if not isinstance(systems, dict) or len(systems) < 2:
        raise Misconfigured(f"{place}: 'systems' must give the texts of at least two systems")
    if len(systems) > len(ascii_uppercase):
        raise Misconfigured(f"{place}: {len(systems)} systems are more than there are letters")
    if not all(name.strip() and name.isprintable() for name in systems):
        raise Misconfigured(f"{place}: a system's name is empty or not one line of text")
    return {name: _text(systems, name, place) for name in systems}


def _optional(document: Mapping[str, Any], name: str, place: str) -> str:
    return "" if document.get(name) is None else _text(document, name, place)


def _text(document: Mapping[str, Any], name: str, place: str) -> str:
    value = document.get(name)
    text = _shown(value) if isinstance(value, str) else ""
    if not text:
        raise Misconfigured(f"{place}: {name!r} is missing, empty or not text")
    if len(text) > MOST_CHARACTERS:
        raise Misconfigured(f"{place}: {name!r} is longer than {MOST_CHARACTERS} characters")
    return text


def _shown(value: str) -> str:
    """Without what neither a sheet nor a page can show; line breaks stay."""
    lines = value.replace("\r\n", "\n").split("\n")
    return "\n".join("".join(map(_blanked, line)) for line in lines).strip()


def _blanked(character: str) -> str:
    return " " if unicodedata.category(character) in NEVER_SHOWN else character


def _image(path: Path, place: str) -> Path:
    if not path.is_file():
        raise Misconfigured(f"{place}: there is no image {str(path)!r}")
    return path


def _check_together(cases: Sequence[StudyCase], file: Path) -> None:
    if not cases:
        raise Misconfigured(f"{file.name} holds no case")
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise Misconfigured(f"case {case.id!r} is there twice")
        seen.add(case.id)
        if odd := sorted(case.texts.keys() ^ cases[0].texts.keys()):
            raise Misconfigured(
                f"case {case.id!r} has other systems than case {cases[0].id!r}: {', '.join(odd)}"
            )
