"""What the command line shows: results on stdout, everything else on stderr."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

results = Console(soft_wrap=True)
messages = Console(stderr=True, soft_wrap=True)


def print_json(document: Any) -> None:
    """One JSON document on stdout, nothing else."""
    results.out(json.dumps(document, indent=2, ensure_ascii=False), highlight=False)


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Long cells fold, and nothing is cut; the first names its row, is typed again, stays whole."""
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=place == 0)
    for row in rows:
        table.add_row(*row)
    fit(table)


def fit(shown: RenderableType) -> None:
    """A table or panel as wide as the terminal: its texts are wrapped and not cut."""
    results.print(shown, soft_wrap=False)


def print_rows(title: str, rows: list[dict[str, Any]], *, json: bool) -> None:
    """Rows of the same fields, as a table or as JSON."""
    if json:
        print_json(rows)
    elif rows:
        print_table(title, list(rows[0]), [[shown(v) for v in row.values()] for row in rows])
    else:
        messages.print(f"{title}: none")


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar on stderr, gone when done; none where nobody watches."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=messages, transient=True, disable=not messages.is_terminal
    ) as bar:
        yield bar


def shown(value: Any) -> str:
    """A table cell: three decimals, a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
