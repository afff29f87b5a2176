"""An evaluation as pictures: SVG texts by name."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix, roc_curve

from service.evaluation import metrics, systems, trials
from service.evaluation.figures import Figures
from service.evaluation.strata import NAMES
from specialists.task import TaskKind

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "gsco"  # the same figures draw the same bytes
mpl.rcParams["svg.fonttype"] = "none"

SHOWN = (systems.BEST_SINGLE, systems.VOTE, systems.AVERAGE, trials.ALONE, trials.GSCO)
MOST_LABELS = 6
NO_METADATA = ("Date", "Creator", "Format", "Type")
BINS = 10
WAYS = {
    (True, True, True): "all right",
    (True, False, True): "upheld",
    (True, False, False): "misled",
    (False, True, True): "self-corrected",
    (False, True, False): "stubborn",
    (False, False, True): "right against both",
    (True, True, False): "wrong against both",
    (False, False, False): "all wrong",
}


def plots(figures: Figures) -> dict[str, str]:
    """Those that can be drawn of this evaluation: name → SVG."""
    drawn: dict[str, Callable[[Figures], Figure | None]] = {
        "roc": _roc,
        "calibration": _calibration,
        "confusion": _confusion,
        "strata": _strata,
        "arbitration": _arbitration,
        "selective": _selective,
    }
    found = {name: draw(figures) for name, draw in drawn.items()}
    return {name: _svg(figure) for name, figure in found.items() if figure is not None}


def _roc(figures: Figures) -> Figure | None:
    columns = metrics.told_columns(figures.task, figures.truth)[:MOST_LABELS]
    if not columns:
        return None
    figure, places = _panels(len(columns))
    for axes, column in zip(places, columns, strict=True):
        for name, table in _shown(figures):
            wrong, right, _ = roc_curve(figures.truth[:, column], table[:, column])
            axes.plot(wrong, right, label=name, lw=1.4)
        axes.plot((0, 1), (0, 1), color="0.8", lw=1)
        axes.set(title=figures.task.label_names[column], xlabel="1 − specificity")
    places[0].set_ylabel("sensitivity")
    places[-1].legend(frameon=False, fontsize=7)
    return figure


def _calibration(figures: Figures) -> Figure:
    figure, (axes,) = _panels(1)
    for name, table in _shown(figures):
        said, held = table.reshape(-1), figures.truth.reshape(-1)
        bins = np.clip((said * BINS).astype(int), 0, BINS - 1)
        counts = np.bincount(bins, minlength=BINS)
        full = counts > 0
        axes.plot(
            (np.bincount(bins, said, BINS)[full] / counts[full]),
            (np.bincount(bins, held, BINS)[full] / counts[full]),
            marker="o", ms=3, lw=1.2, label=name,
        )  # fmt: skip
    axes.plot((0, 1), (0, 1), color="0.8", lw=1)
    axes.set(xlabel="probability said", ylabel="share that holds", title="calibration")
    axes.legend(frameon=False, fontsize=7)
    return figure


def _confusion(figures: Figures) -> Figure | None:
    if figures.task.kind is not TaskKind.SINGLE_LABEL:
        return None
    told = [pair for pair in _shown(figures) if pair[0] != systems.AVERAGE]
    figure, places = _panels(len(told))
    names = figures.task.label_names
    for axes, (name, table) in zip(places, told, strict=True):
        counts = confusion_matrix(
            figures.truth.argmax(axis=1), table.argmax(axis=1), labels=range(len(names))
        )
        axes.imshow(
            counts / counts.sum(axis=1, keepdims=True).clip(1), cmap="Blues", vmin=0, vmax=1
        )
        for (row, column), count in np.ndenumerate(counts):
            axes.text(column, row, str(count), ha="center", va="center", fontsize=7)
        axes.set(title=name, xlabel="named", xticks=range(len(names)), yticks=range(len(names)))
        axes.set_xticklabels(names, rotation=45, ha="right", fontsize=7)
        axes.set_yticklabels(names, fontsize=7)
    places[0].set_ylabel("holds")
    return figure


def _strata(figures: Figures) -> Figure | None:
    told = [one for one in figures.strata if one.system in SHOWN and one.system != trials.ALONE]
    if not told:
        return None
    figure, (axes,) = _panels(1, width=7)
    names = [name for name in SHOWN if any(one.system == name for one in told)]
    for place, name in enumerate(names):
        rows = [one for one in told if one.system == name]
        at = np.array([NAMES.index(one.stratum) for one in rows]) + place * 0.8 / len(names)
        middle = np.array([one.gain for one in rows])
        spread = np.array(
            [[one.gain - one.interval.low, one.interval.high - one.gain] for one in rows]
        )
        axes.bar(at, middle, 0.75 / len(names), yerr=spread.T.clip(0), label=name, capsize=2)
    axes.axhline(0, color="0.3", lw=0.8)
    axes.set(ylabel="accuracy gained over the generalist alone", xticks=np.arange(3) + 0.3)
    axes.set_xticklabels(NAMES)
    axes.legend(frameon=False, fontsize=7)
    return figure


def _arbitration(figures: Figures) -> Figure | None:
    if figures.arbitration is None:
        return None
    figure, (axes,) = _panels(1, width=7)
    for row, own in enumerate((True, False)):
        left = 0
        for way, name in WAYS.items():
            count = figures.arbitration.flow.get(way, 0)
            if way[0] is not own or not count:
                continue
            colour = ("C2" if way[1] else "C0") if way[2] else ("C1" if way[1] else "C3")
            axes.barh(row, count, left=left, color=colour, edgecolor="white")
            axes.text(
                left + count / 2, row, f"{name}\n{count}", ha="center", va="center", fontsize=6
            )
            left += count
    axes.set(yticks=(0, 1), xlabel="cases", title="from the first answer to the final one")
    axes.set_yticklabels(("first answer right", "first answer wrong"))
    axes.invert_yaxis()
    return figure


def _selective(figures: Figures) -> Figure:
    figure, (axes,) = _panels(1)
    rates = [one.review_rate for one in figures.selective]
    axes.plot(rates, [one.accuracy for one in figures.selective], marker="o")
    axes.set(
        xlabel="share of the least sure cases left to a person",
        ylabel="accuracy of GSCo on the others",
    )
    axes.grid(alpha=0.3)
    return figure


def _shown(figures: Figures) -> Iterator[tuple[str, Any]]:
    for name in SHOWN:
        if name in figures.systems.tables:
            yield name, figures.systems.tables[name]


def _panels(count: int, width: float = 3.4) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(width * count, 3.4), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, count)))


def _svg(figure: Figure) -> str:
    octets = io.StringIO()
    figure.savefig(octets, format="svg", metadata=dict.fromkeys(NO_METADATA))
    return octets.getvalue()
