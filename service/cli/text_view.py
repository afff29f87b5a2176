"""Reports and answers, readable."""

from typing import Any

from rich.panel import Panel
from rich.table import Table

from service.cli import output


def show_report(report: dict[str, Any], truth: str | None = None) -> None:
    """The draft's two sections, what the specialists found, and what to mind."""
    output.results.rule(f"{report['task']}  ·  {report['id']}")
    output.results.print(_specialists(report))
    for title in ("findings", "impression"):
        body = report[title] or "–"
        output.results.print(Panel(body, title=title.capitalize(), title_align="left"))
    if truth is not None:
        output.results.print(f"  truth: {truth}", style="green", markup=False)
    output.results.print("  a draft by a model, to be read and corrected", style="dim")
    _show_notes(report)


def show_answer(answer: dict[str, Any]) -> None:
    """The question, the answer, and for a closed one the probability of each choice."""
    output.results.rule(f"{answer['task']}  ·  {answer['id']}")
    table = Table(show_header=False)
    table.add_row("question", answer["question"])
    table.add_row("image only", answer["initial_answer"])
    table.add_row("answer", answer["answer"], style="bold")
    for entry in answer["probabilities"] or ():
        table.add_row(entry["label"], f"{entry['probability']:.2f}")
    output.results.print(table)
    _show_notes(answer)


def _specialists(report: dict[str, Any]) -> Table:
    table = Table(title=f"Specialists of {report['consulted']}", title_justify="left")
    table.add_column("specialist")
    table.add_column("says")
    for row in report["evidence"]["moed"]:
        table.add_row(row["specialist"], " and ".join(row["labels"] or ["?"]))
    return table


def _show_notes(document: dict[str, Any]) -> None:
    for reason in document["review_reasons"]:
        output.results.print(f"  needs review: {reason}", style="yellow", markup=False)
    for note in document["notes"]:
        output.results.print(f"  note: {note}", style="dim", markup=False)
