"""A comparison as Markdown and JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from service.evaluation.comparison import Comparison
from service.evaluation.comparison_figures import Figure, Standing
from service.evaluation.few import stands_alone
from service.evaluation.intervals import Interval
from specialists.catalogue import Scale
from specialists.task import Task
from specialists.training.split import marked

_HEAD = (
    "backbone", "begins from", "accuracy (95 %)", "macro-F1 (95 %)", "over seeds", "AUC (95 %)",
    "macro-F1 less the best's (95 %)", "training s", "parameters", "ms an image",
)  # fmt: skip


def markdown(task: Task, comparison: Comparison, rows: Sequence[Standing]) -> str:
    """What was compared, one row per backbone, and how to read them."""
    return "\n".join(_lines(task, comparison, rows)) + "\n"


def as_json(task: Task, comparison: Comparison, rows: Sequence[Standing]) -> dict[str, Any]:
    """Everything in the table, unrounded."""
    return {
        "plan": asdict(comparison.plan),
        "cases": len(comparison.groups),
        "patients": len(set(comparison.groups)),
        "seeds": sorted({run.seed for run in comparison.runs}),
        "training_images": _by_seed(comparison, "images"),
        "training_patients": _by_seed(comparison, "patients"),
        "best": rows[0].backbone,
        "backbones": [asdict(row) for row in rows],
        "notes": _notes(task, comparison),
    }


def cells(row: Standing) -> list[str]:
    """One row of the table, as shown."""
    macro_f1 = row.figures["macro_f1"]
    return [
        row.backbone,
        row.weights or "random numbers",
        _figure(row.figures["accuracy"]),
        _figure(macro_f1),
        f"{min(macro_f1.seeds):.3f} to {max(macro_f1.seeds):.3f}" if macro_f1 else "–",
        _figure(row.figures["auc"]),
        _difference(row.less_best.get("macro_f1")),
        f"{row.training_seconds:.0f}",
        f"{row.parameters:,}",
        f"{row.milliseconds_per_image:.1f}",
    ]


def _lines(task: Task, comparison: Comparison, rows: Sequence[Standing]) -> Iterator[str]:
    plan = comparison.plan
    yield f"# Backbones compared: {plan.task}, {plan.data}\n"
    yield _what_was_done(comparison) + "\n"
    yield "| " + " | ".join(_HEAD) + " |"
    yield "|---|---|" + "--:|" * (len(_HEAD) - 2)
    yield from ("| " + " | ".join(cells(row)) + " |" for row in rows)
    yield ""
    yield from (f"- {note}" for note in _notes(task, comparison))


def _what_was_done(comparison: Comparison) -> str:
    plan, counts = comparison.plan, _by_seed(comparison, "images")
    patients = _spread(_by_seed(comparison, "patients"))
    return (
        f"Scale {plan.scale}; training images {_spread(counts)}, patients {patients} (fraction "
        f"{plan.fraction:g}), epochs {plan.recipe['epochs']}, seeds {len(counts)}. Measured on "
        f"{plan.split}: images {len(comparison.groups)}, patients {len(set(comparison.groups))}."
    )


def _notes(task: Task, comparison: Comparison) -> list[str]:
    plan = comparison.plan
    notes = [
        "Figures are means over seeds; intervals resample patients, not seeds. An interval of "
        "differences that holds 0 tells no two backbones apart.",
        "The best is the best on these very cases, so its lead is a little flattering.",
    ]
    if plan.scale is Scale.NANO:
        notes.append(
            "At nano scale a backbone is a small relative without pretraining: this ranks the "
            "wiring, not what the full backbone has learned elsewhere."
        )
    if plan.split == "val":
        notes.append("The best epoch was chosen on these cases too: all figures are flattering.")
    if comparison.shared_groups:
        notes.append(
            f"Patients both among the training images and the cases: {comparison.shared_groups}; "
            "all figures are flattering."
        )
    if alone := sum(stands_alone(group) for group in comparison.groups):
        notes.append(f"Cases whose patient is not known, each taken for a patient: {alone}.")
    if undefined := _one_sided(task, comparison):
        notes.append(f"No AUC of {', '.join(undefined)}: no case with it, or none without.")
    return notes


def _one_sided(task: Task, comparison: Comparison) -> list[str]:
    truth = marked(task, comparison.targets)
    shares = dict(zip(task.label_names, truth.mean(axis=0).tolist(), strict=True))
    return [name for name, share in shares.items() if share in {0.0, 1.0}]


def _by_seed(comparison: Comparison, name: str) -> list[int]:
    counts = {run.seed: getattr(run, name) for run in comparison.runs}
    return [counts[seed] for seed in sorted(counts)]


def _spread(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _figure(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    return f"{figure.mean:.3f} ({figure.interval.low:.3f} to {figure.interval.high:.3f})"


def _difference(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.low:+.3f} to {interval.high:+.3f}"
