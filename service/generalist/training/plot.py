"""Training as a picture: loss and accuracy of the steps, and the judgements."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from service.generalist.training.optimisation import Progress

mpl.use("Agg")


def progress(history: Sequence[Progress], judgements: Sequence[dict[str, Any]], path: Path) -> None:
    """Loss, share of answers that are all right, and macro-F1 on validation cases."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    steps = [at.step for at in history]
    _lines(left, steps, {"loss": [at.loss for at in history]})
    _lines(middle, steps, {"answers all right": [at.accuracy for at in history]})
    judgements = [one for one in judgements if one["share"] == 1]  # mixtures belong to no step
    judged = [one["step"] for one in judgements]
    shown = {
        name: [_mean(one["tasks"], key) for one in judgements]
        for name, key in (
            ("generalist alone", "alone"),
            ("majority vote", "vote"),
            ("arbitration", "final"),
            ("biased panel", "biased"),
        )
    }
    _lines(right, judged, shown)
    right.set_ylabel("macro-F1, validation, half shifted")
    for axes in (left, middle, right):
        axes.set_xlabel("step")
    figure.savefig(path, dpi=120)


def _lines(axes: Any, steps: Sequence[int], lines: dict[str, list[float]]) -> None:
    for name, values in lines.items():
        axes.plot(steps, values, label=name)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)


def _mean(tasks: Sequence[dict[str, Any]], key: str) -> float:
    return sum(float(one[key]) for one in tasks) / len(tasks)
