"""Marks that another program made of report texts, read from its file.

CheXbert (Smit et al. 2020) writes a CSV with the column `Report Impression` and one column for each
of its 14 conditions. A cell holds 1 (the condition is there), 0 (it is denied), -1 (uncertain) or
nothing (not mentioned); here 1 is a mark, 0 and blank are none, and -1 is a mark unless asked
otherwise, as is usual where generated reports are measured. `No Finding` is a condition too.

    write_texts(path, [*references, *generated])   # label these with the other program
    labeller = read_labels(path_of_its_output)
"""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import InvalidInput
from service.evaluation.intervals import Marks

TEXT_COLUMN = "Report Impression"
PRESENT, DENIED, UNCERTAIN = 1, 0, -1


@dataclass(frozen=True, slots=True)
class CsvLabeller:
    """Looks marks up by the text they were made of, white space aside."""

    name: str
    findings: tuple[str, ...]
    labelled: dict[str, tuple[bool, ...]]  # text → marks in the order of `findings`

    def marks(self, texts: Sequence[str]) -> Marks:
        """(texts, findings); raises InvalidInput where a text was not labelled."""
        keys = [_key(text) for text in texts]
        if missing := [key for key in keys if key not in self.labelled]:
            raise InvalidInput(
                f"{self.name} has no labels for {len(missing)} of {len(keys)} texts, such as "
                f"{missing[0][:60]!r}"
            )
        return np.array([self.labelled[key] for key in keys], dtype=bool)


def read_labels(
    path: Path, text_column: str = TEXT_COLUMN, *, uncertain_counts: bool = True
) -> CsvLabeller:
    """The labels in a CSV, JSON (a list of objects) or JSONL file; every other column is a finding.

    Raises InvalidInput for another form, a value outside 1, 0, -1 and blank, and for one text with
    different labels.
    """
    rows = _rows(path)
    if not rows or text_column not in rows[0]:
        raise InvalidInput(f"{path.name} has no column {text_column!r} with the labelled texts")
    findings = tuple(column for column in rows[0] if column and column != text_column)
    labelled: dict[str, tuple[bool, ...]] = {}
    for number, row in enumerate(rows, start=1):
        where = f"row {number} of {path.name}"
        marks = tuple(
            _mark(row.get(finding), where, uncertain_counts=uncertain_counts)
            for finding in findings
        )
        if labelled.setdefault(_key(row.get(text_column)), marks) != marks:
            raise InvalidInput(f"{where} labels a text otherwise than a row before it")
    return CsvLabeller(path.name, findings, labelled)


def write_texts(path: Path, texts: Iterable[str]) -> int:
    """Write the distinct texts as CheXbert reads them; how many they are."""
    distinct = dict.fromkeys(_key(text) for text in texts)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([TEXT_COLUMN])
        writer.writerows([text] for text in distinct)
    return len(distinct)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix == ".json":
                rows = json.load(file)
            elif path.suffix == ".jsonl":
                rows = [json.loads(line) for line in file if line.strip()]
            else:
                rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise InvalidInput(f"{path.name} cannot be read as a table of labels") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidInput(f"{path.name} is not a list of objects")
    return rows


def _mark(value: Any, where: str, *, uncertain_counts: bool) -> bool:
    text = "" if value is None else str(value).strip()
    try:
        number = float(text) if text and text.lower() != "nan" else float(DENIED)
    except ValueError:
        number = float("nan")
    if number not in (PRESENT, DENIED, UNCERTAIN):
        raise InvalidInput(f"{where} holds {text[:20]!r}, not 1, 0, -1 or nothing")
    return number == PRESENT or (uncertain_counts and number == UNCERTAIN)


def _key(text: Any) -> str:
    return " ".join(str(text or "").split())
