"""The blinded reader study of the paper: readers rank what several systems wrote of a case.

A study is a folder: `sheets/` and `pages/` go to the readers, `key.json` stays with its owner.
"""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import Misconfigured
from service.evaluation import agreement, study_key, study_page, study_sheets
from service.evaluation.agreement import Agreement, Reading
from service.evaluation.study_cases import StudyCase
from service.evaluation.study_key import Key, KeyedCase
from service.evaluation.study_sheets import Sheet


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A case that is left out for one reader, and the letters that have no rank."""

    reader: int
    case: int
    id: str
    letters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comment:
    reader: int
    id: str
    system: str
    text: str


@dataclass(frozen=True, slots=True)
class StudyResult:
    """A study un-blinded; `missing` are the readers whose sheets were not given."""

    systems: tuple[str, ...]
    missing: tuple[int, ...]
    incomplete: tuple[Incomplete, ...]
    comments: tuple[Comment, ...]
    agreement: Agreement


def create(
    cases: Sequence[StudyCase], key: Key, out: Path, on_case: Callable[[], None] = lambda: None
) -> None:
    """Write the study's folder, whole or not at all; `on_case` is called after each image.

    Raises Misconfigured where `out` holds anything: a key is never overwritten.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Misconfigured(f"{str(out)!r} is not an empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures = {case.id: _pictured(case, on_case) for case in cases}
    with tempfile.TemporaryDirectory(dir=out.parent) as staging:
        folder = Path(staging) / "study"
        _write(folder, {case.id: case for case in cases}, pictures, key)
        if out.exists():
            out.rmdir()
        folder.replace(out)


def result(folder: Path, files: Iterable[Path]) -> StudyResult:
    """What the filled sheets say of the study in `folder`.

    Raises Misconfigured for sheets that are not this study's, for two of one reader, and where no
    case is complete.
    """
    key = study_key.read(folder)
    sheets = [study_sheets.read(file, key) for file in files]
    _refuse_two_of_one_reader(sheets)
    readings = [one for sheet in sheets for one in _readings(key, sheet)]
    if not readings:
        raise Misconfigured("no case has all its ranks")
    given = {sheet.reader for sheet in sheets}
    return StudyResult(
        systems=key.systems,
        missing=tuple(r for r in range(1, len(key.readers) + 1) if r not in given),
        incomplete=tuple(one for sheet in sheets for one in _incomplete(key, sheet)),
        comments=tuple(one for sheet in sheets for one in _comments(key, sheet)),
        agreement=agreement.analyse(key.systems, readings),
    )


def _pictured(case: StudyCase, on_case: Callable[[], None]) -> str:
    picture = study_page.picture(case)
    on_case()
    return picture


def _write(folder: Path, cases: dict[str, StudyCase], pictures: dict[str, str], key: Key) -> None:
    for part in ("sheets", "pages"):
        (folder / part).mkdir(parents=True)
    for reader, keyed in enumerate(key.readers, 1):
        rows = list(study_sheets.rows(key, reader, cases))
        shown = {str(one.number): pictures[one.id] for one in keyed}
        page = study_page.page(rows, shown, len(key.systems))
        study_sheets.write(folder / "sheets" / f"reader-{reader}.csv", rows)
        (folder / "pages" / f"reader-{reader}.html").write_text(page, "utf-8")
    study_key.write(folder, key)


def _refuse_two_of_one_reader(sheets: Sequence[Sheet]) -> None:
    first: dict[int, Sheet] = {}
    for sheet in sheets:
        other = first.setdefault(sheet.reader, sheet)
        if other is not sheet:
            raise Misconfigured(f"{other.name} and {sheet.name} are both of reader {sheet.reader}")


def _readings(key: Key, sheet: Sheet) -> list[Reading]:
    """The complete cases, systems in the order of the key's."""
    told = [(keyed.id, _ranks(keyed, sheet)) for keyed in key.readers[sheet.reader - 1]]
    return [
        Reading(sheet.reader, id, tuple(ranks[system] for system in key.systems))
        for id, ranks in told
        if len(ranks) == len(key.systems)
    ]


def _ranks(keyed: KeyedCase, sheet: Sheet) -> dict[str, float]:
    """By system, un-blinded."""
    marks = {system: sheet.marks.get((keyed.number, a)) for a, system in keyed.by_letter.items()}
    return {s: mark.rank for s, mark in marks.items() if mark and mark.rank is not None}


def _without_rank(keyed: KeyedCase, sheet: Sheet) -> tuple[str, ...]:
    ranked = _ranks(keyed, sheet)
    return tuple(letter for letter, system in keyed.by_letter.items() if system not in ranked)


def _incomplete(key: Key, sheet: Sheet) -> list[Incomplete]:
    cases = key.readers[sheet.reader - 1]
    open_cases = [(keyed, _without_rank(keyed, sheet)) for keyed in cases]
    return [
        Incomplete(sheet.reader, keyed.number, keyed.id, letters)
        for keyed, letters in open_cases
        if letters
    ]


def _comments(key: Key, sheet: Sheet) -> list[Comment]:
    cases = {keyed.number: keyed for keyed in key.readers[sheet.reader - 1]}
    return [
        Comment(sheet.reader, cases[number].id, cases[number].by_letter[letter], mark.comment)
        for (number, letter), mark in sheet.marks.items()
        if mark.comment
    ]
