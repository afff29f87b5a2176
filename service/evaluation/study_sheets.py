"""The sheets of a reader study: one CSV file per reader, blinded, filled in, read back."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from math import isfinite
from pathlib import Path

from service.errors import Misconfigured
from service.evaluation.study_cases import StudyCase
from service.evaluation.study_key import Key

COLUMNS = ("study", "reader", "case", "letter", "reference", "text", "rank", "comment")
NEEDED = {"study", "reader", "case", "letter", "rank"}
FORMULA = tuple("=+-@\t\r＝＋－＠")  # what a spreadsheet program would run (OWASP, CSV injection)
DELIMITERS = ",;\t"

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Mark:
    """What a reader wrote beside one text; no `rank` where the cell is empty."""

    rank: float | None
    comment: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet read back: marks by case number and letter."""

    name: str
    reader: int
    marks: Mapping[tuple[int, str], Mark]


def rows(key: Key, reader: int, cases: Mapping[str, StudyCase]) -> Iterator[Row]:
    """What reader number `reader` (from 1) is given to rank."""
    for keyed in key.readers[reader - 1]:
        case = cases[keyed.id]
        for letter, system in keyed.by_letter.items():
            yield {
                "study": key.study,
                "reader": str(reader),
                "case": str(keyed.number),
                "letter": letter,
                "reference": case.reference,
                "text": case.texts[system],
            }


def write(path: Path, given: Iterable[Row]) -> None:
    """As spreadsheet programs like it: RFC 4180 after a byte order mark, no cell a formula."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        sheet = csv.DictWriter(file, COLUMNS, restval="")
        sheet.writeheader()
        sheet.writerows({name: _inert(cell) for name, cell in row.items()} for row in given)


def read(path: Path, key: Key) -> Sheet:
    """A filled sheet; commas, semicolons or tabs, in any order of rows and columns.

    Raises Misconfigured for a sheet of another study, and for what is not a rank of it.
    """
    table = _table(path)
    if any(row["study"] != key.study for row in table):
        raise Misconfigured(f"{path.name} is a sheet of another study")
    reader = _reader(path, key, {row["reader"] for row in table})
    known = {(one.number, letter) for one in key.readers[reader - 1] for letter in one.by_letter}
    marks: dict[tuple[int, str], Mark] = {}
    for row in table:
        place = f"{path.name}, case {row['case']}, {row['letter']}"
        at = (_number(row["case"]), row["letter"].upper())
        if at not in known:
            raise Misconfigured(f"{place}: not on the sheet that reader {reader} was given")
        if at in marks:
            raise Misconfigured(f"{place}: there twice")
        marks[at] = Mark(_rank(row["rank"], len(key.systems), place), _typed(row["comment"]))
    return Sheet(path.name, reader, marks)


def _inert(cell: str) -> str:
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def _typed(cell: str) -> str:
    """The cell without the quote that kept it from being a formula."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell


def _table(path: Path) -> list[Row]:
    """The rows that are not empty, by column, cells stripped."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Misconfigured(f"{path.name} is not UTF-8: save it as “CSV UTF-8”") from None
    if text[:4].lower() == "sep=":  # a line that one spreadsheet program asks for
        text = text.partition("\n")[2]
    delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
    columns, lines = _lines(path, text, delimiter)
    if missing := sorted(NEEDED - set(columns)):
        raise Misconfigured(f"{path.name} is no sheet: it has no column {', '.join(missing)}")
    return [_row(columns, line) for line in lines if any(line)]


def _lines(path: Path, text: str, delimiter: str) -> tuple[list[str], list[list[str]]]:
    try:
        lines = list(csv.reader(StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise Misconfigured(f"{path.name} cannot be read as CSV: {error}") from None
    header, *rest = [[cell.strip() for cell in line] for line in lines] or [[]]
    return [name.lower() for name in header], rest


def _row(columns: list[str], line: list[str]) -> Row:
    return {**dict.fromkeys(COLUMNS, ""), **dict(zip(columns, line, strict=False))}


def _reader(path: Path, key: Key, said: set[str]) -> int:
    if len(said) != 1:
        raise Misconfigured(f"{path.name} is not the sheet of one reader")
    reader = _number(said.pop())
    if reader is None or not 1 <= reader <= len(key.readers):
        raise Misconfigured(f"{path.name}: the study has readers 1 to {len(key.readers)}")
    return reader


def _number(cell: str) -> int | None:
    return int(cell) if cell.isascii() and cell.isdigit() else None


def _rank(cell: str, systems: int, place: str) -> float | None:
    """From 1 to the number of systems; halves, with a point or a comma, are fine."""
    if not cell:
        return None
    try:
        rank = float(cell.replace(",", "."))
    except ValueError:
        raise Misconfigured(f"{place}: {cell!r} is not a rank") from None
    if not (isfinite(rank) and 1 <= rank <= systems):
        raise Misconfigured(f"{place}: rank {cell} is not between 1 and {systems}")
    return rank
