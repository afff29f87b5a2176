"""A diagnosis as readable tables."""

from collections import Counter
from typing import Any

from rich.table import Table

from service.cli import output


def show(diagnosis: dict[str, Any], truth: str | None = None) -> None:
    """The panel, the neighbours, and the generalist before and after seeing them."""
    output.results.rule(f"{diagnosis['task']}  ·  {diagnosis['id']}")
    output.results.print(_panel(diagnosis))
    output.results.print(_neighbours(diagnosis))
    output.results.print(_decision(diagnosis, truth))
    for reason in diagnosis["review_reasons"]:
        output.results.print(f"  needs review: {reason}", style="yellow", markup=False)
    for note in diagnosis["notes"]:
        output.results.print(f"  note: {note}", style="dim", markup=False)


def _panel(diagnosis: dict[str, Any]) -> Table:
    table = Table(title="Specialists (MoED)", title_justify="left")
    table.add_column("specialist")
    table.add_column("says")
    names = [entry["label"] for entry in diagnosis["probabilities"]]
    for name in names:
        table.add_column(name, justify="right")
    for row in diagnosis["evidence"]["moed"]:
        shares = [f"{entry['probability']:.2f}" for entry in row["probabilities"]]
        table.add_row(row["specialist"], " and ".join(row["labels"] or ["?"]), *shares)
    return table


def _neighbours(diagnosis: dict[str, Any]) -> Table:
    table = Table(title="Similar cases (RAD)", title_justify="left")
    for column in ("case", "labels", "similarity", "found by", "source"):
        table.add_column(column)
    for row in diagnosis["evidence"]["rad"]:
        finders = f"{len(row['retrievers'])} specialists"
        table.add_row(
            row["case_id"],
            " and ".join(row["labels"]),
            f"{row['similarity']:.3f}",
            finders,
            row["source"],
        )
    return table


def _decision(diagnosis: dict[str, Any], truth: str | None) -> Table:
    table = Table(title="Decision", title_justify="left")
    table.add_column("step")
    table.add_column("answer")
    table.add_column("probability", justify="right")
    initial = diagnosis["initial"]
    table.add_row("generalist, image only", *_answer(initial["labels"], initial["probabilities"]))
    table.add_row("specialists' majority", *_majority(diagnosis))
    final = _answer(diagnosis["labels"], diagnosis["probabilities"])
    final_step = f"generalist, with evidence ({diagnosis['arbitration']})"
    table.add_row(final_step, *final, style="bold")
    if diagnosis["label_set"] is not None:
        held = f"holds the truth with probability {diagnosis['coverage']:g}"
        table.add_row(held, ", ".join(diagnosis["label_set"]), "")
    if truth is not None:
        table.add_row("truth", truth, "", style="green")
    return table


def _answer(labels: list[str], probabilities: list[dict[str, Any]]) -> tuple[str, str]:
    named = [entry["probability"] for entry in probabilities if entry["label"] in labels]
    return " and ".join(labels), ", ".join(f"{probability:.2f}" for probability in named)


def _majority(diagnosis: dict[str, Any]) -> tuple[str, str]:
    moed = diagnosis["evidence"]["moed"]
    counts = Counter(" and ".join(row["labels"] or ["?"]) for row in moed)
    if not counts:
        return "–", ""
    label, votes = counts.most_common(1)[0]
    return label, f"{votes} of {len(moed)}"
