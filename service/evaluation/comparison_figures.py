"""Runs → figures with intervals: how good each backbone is, and how much less than the best.

A figure is the mean over seeds. Its interval resamples patients, the same ones for every backbone
and seed; the spread over seeds is told beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.evaluation import metrics
from service.evaluation.comparison import Comparison
from service.evaluation.comparison_folder import Run
from service.evaluation.intervals import (
    Interval,
    Marks,
    Weights,
    aucs,
    macro_f1s,
    means,
    of_values,
    resamples,
)
from specialists.catalogue import find
from specialists.task import Task
from specialists.training.split import marked

METRICS = ("accuracy", "macro_f1", "auc")

Values = NDArray[np.float64]  # (resamples,)


@dataclass(frozen=True, slots=True)
class Figure:
    """The mean over seeds, its interval over patients, and every seed's own."""

    mean: float
    interval: Interval
    seeds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """One backbone. A figure is None where it is not defined on these cases.

    `less_best` are the intervals of its figures less those of the best; none of the best's own.
    """

    backbone: str
    name: str
    weights: str | None
    weights_sha256: str | None
    figures: Mapping[str, Figure | None]
    less_best: Mapping[str, Interval | None]
    parameters: int
    training_seconds: float  # mean over seeds
    milliseconds_per_image: float  # the same


def standings(task: Task, comparison: Comparison) -> list[Standing]:
    """Every backbone by macro-F1, the best first; equals in the order they were named in."""
    truth = marked(task, comparison.targets)
    weights = resamples(comparison.groups)
    runs = {
        key: [run for run in comparison.runs if run.backbone == key] for key in comparison.backbones
    }
    drawn = {key: _resampled(task, truth, own, weights) for key, own in runs.items()}
    rows = [_standing(task, truth, runs[key], drawn[key]) for key in runs]
    rows.sort(key=lambda row: -_known(row.figures["macro_f1"]).mean)
    return [_beside(row, drawn, rows[0].backbone) for row in rows]


def _resampled(
    task: Task, truth: Marks, runs: Sequence[Run], weights: Weights
) -> dict[str, Values]:
    """Each metric's mean over seeds, on every resample."""
    said = [np.asarray(run.probabilities) for run in runs]
    named = [metrics.marks(task, one) for one in said]
    columns = metrics.told_columns(task, truth)
    by_seed = {
        "accuracy": [means(metrics.right(task, truth, one), weights) for one in named],
        "macro_f1": [macro_f1s(truth, one, weights) for one in named],
        "auc": [aucs(truth, one, columns, weights) for one in said] if columns else [],
    }
    return {metric: np.mean(values, axis=0) for metric, values in by_seed.items() if values}


def _standing(
    task: Task, truth: Marks, runs: Sequence[Run], drawn: Mapping[str, Values]
) -> Standing:
    first = runs[0]
    scores = [
        metrics.score(task, run.backbone, truth, np.asarray(run.probabilities)) for run in runs
    ]
    return Standing(
        backbone=first.backbone,
        name=find(first.backbone).name,
        weights=first.weights,
        weights_sha256=first.weights_sha256,
        figures={
            name: _figure([getattr(one, name) for one in scores], drawn[name])
            if name in drawn
            else None
            for name in METRICS
        },
        less_best={},
        parameters=first.parameters,
        training_seconds=float(np.mean([run.training_seconds for run in runs])),
        milliseconds_per_image=float(np.mean([run.milliseconds_per_image for run in runs])),
    )


def _figure(values: Sequence[float], drawn: Values) -> Figure | None:
    interval = _interval(drawn)
    return Figure(float(np.mean(values)), interval, tuple(values)) if interval else None


def _beside(row: Standing, drawn: Mapping[str, Mapping[str, Values]], best: str) -> Standing:
    if row.backbone == best:
        return row
    ours, theirs = drawn[row.backbone], drawn[best]
    return replace(row, less_best={name: _interval(ours[name] - theirs[name]) for name in ours})


def _interval(drawn: Values) -> Interval | None:
    """None where no resample has a value."""
    return of_values(drawn) if np.isfinite(drawn).any() else None


def _known(figure: Figure | None) -> Figure:
    if figure is None:
        raise AssertionError("macro-F1 is always defined")
    return figure
