"""A diagnosis as readable tables."""

from collections import Counter
from typing import Any

from rich.table import Table
from rich.text import Text

from service.cli import output


def show(diagnosis: dict[str, Any], truth: str | None = None) -> None:
    """The panel, the neighbours, and the generalist before and after seeing them."""
    output.results.rule(f"{diagnosis['task']}  ·  {diagnosis['id']}")
    output.fit(_panel(diagnosis))
    output.fit(_neighbours(diagnosis))
    if diagnosis["evidence"]["segmentations"]:
        output.fit(_segmentations(diagnosis))
    output.fit(_decision(diagnosis, truth))
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
        table.add_column(Text(name), justify="right")
    for row in diagnosis["evidence"]["moed"]:
        shares = [f"{entry['probability']:.2f}" for entry in row["probabilities"]]
        table.add_row(row["specialist"], joined(row["labels"]), *shares)
    return table


def _neighbours(diagnosis: dict[str, Any]) -> Table:
    table = Table(title="Similar cases (RAD)", title_justify="left")
    for column in ("case", "labels", "similarity", "found by", "source"):
        table.add_column(column, overflow="fold")
    for row in diagnosis["evidence"]["rad"]:
        finders = f"{len(row['retrievers'])} specialists"
        table.add_row(
            Text(row["case_id"]),
            joined(row["labels"]),
            f"{row['similarity']:.3f}",
            finders,
            Text(row["source"]),
        )
    return table


def _segmentations(diagnosis: dict[str, Any]) -> Table:
    table = Table(title="Segmentations", title_justify="left")
    for column in ("specialist", "segment", "where", "share of the image", "certainty"):
        table.add_column(column)
    for row in diagnosis["evidence"]["segmentations"]:
        table.add_row(
            row["specialist"],
            Text(row["segment"]),
            ", ".join(row["places"]) or "nothing found",
            f"{100 * row['share']:.1f} %",
            f"{row['certainty']:.2f}",
        )
    return table


def _decision(diagnosis: dict[str, Any], truth: str | None) -> Table:
    table = Table(title="Decision", title_justify="left")
    table.add_column("step")
    table.add_column("answer")
    table.add_column("probability", justify="right")
    initial = diagnosis["initial"]
    table.add_row("generalist, image only", *_answer(initial["labels"], initial["probabilities"]))
    table.add_row("most specialists", *_most(diagnosis))
    final = _answer(diagnosis["labels"], diagnosis["probabilities"])
    final_step = f"generalist, with evidence ({diagnosis['arbitration']})"
    table.add_row(final_step, *final, style="bold")
    if diagnosis["label_set"] is not None:
        held = f"holds the truth with probability {diagnosis['coverage']:g}"
        table.add_row(held, Text(", ".join(diagnosis["label_set"])), "")
    if truth is not None:
        table.add_row("truth", Text(truth), "", style="green")
    return table


def joined(labels: list[str] | None) -> Text:
    """Names are shown as they are: square brackets in them are no markup."""
    return Text(" and ".join(["?"] if labels is None else labels) or "nothing")


def _answer(labels: list[str], probabilities: list[dict[str, Any]]) -> tuple[Text, str]:
    named = [entry["probability"] for entry in probabilities if entry["label"] in labels]
    return joined(labels), ", ".join(f"{probability:.2f}" for probability in named)


def _most(diagnosis: dict[str, Any]) -> tuple[Text, str]:
    moed = diagnosis["evidence"]["moed"]
    counts = Counter(joined(row["labels"]).plain for row in moed)
    if not counts:
        return Text("–"), ""
    label, votes = counts.most_common(1)[0]
    return Text(label), f"{votes} of {len(moed)}"
