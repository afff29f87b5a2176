"""Reports and answers, readable.

What people and models wrote is shown as it is: square brackets in it are no markup.
"""

from typing import Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from service.cli import output
from service.cli.diagnosis_view import joined


def show_report(report: dict[str, Any], truth: str | None = None) -> None:
    """The draft's two sections, what the specialists found, and what to mind."""
    output.results.rule(f"{report['task']}  ·  {report['id']}")
    _show_specialists(report)
    for title in ("findings", "impression"):
        body = Text(report[title] or "–")
        output.fit(Panel(body, title=title.capitalize(), title_align="left"))
    if truth is not None:
        output.results.print(f"  truth: {truth}", style="green", markup=False)
    output.results.print("  a draft by a model, to be read and corrected", style="dim")
    _show_notes(report)


def show_answer(answer: dict[str, Any]) -> None:
    """The question, the answer, and for a closed one the probability of each choice."""
    output.results.rule(f"{answer['task']}  ·  {answer['id']}")
    _show_specialists(answer)
    table = Table(show_header=False)
    table.add_row("question", Text(answer["question"]))
    table.add_row("image only", Text(answer["initial_answer"]))
    table.add_row("answer", Text(answer["answer"]), style="bold")
    for entry in answer["probabilities"] or ():
        table.add_row(Text(entry["label"]), f"{entry['probability']:.2f}")
    output.fit(table)
    _show_notes(answer)


def _show_specialists(document: dict[str, Any]) -> None:
    if not document["evidence"]["moed"]:
        return
    table = Table(title=f"Specialists of {document['consulted']}", title_justify="left")
    table.add_column("specialist")
    table.add_column("says")
    for row in document["evidence"]["moed"]:
        table.add_row(row["specialist"], joined(row["labels"]))
    output.fit(table)


def _show_notes(document: dict[str, Any]) -> None:
    for reason in document["review_reasons"]:
        output.results.print(f"  needs review: {reason}", style="yellow", markup=False)
    for note in document["notes"]:
        output.results.print(f"  note: {note}", style="dim", markup=False)
