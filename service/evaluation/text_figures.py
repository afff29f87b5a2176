"""Figures of free text: each system's, with intervals, and GSCo's less each other's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import Misconfigured
from service.evaluation import intervals, texts, trials
from service.evaluation.findings import Labeller, finding_scores
from service.evaluation.folder import Measured
from service.evaluation.intervals import Interval
from service.evaluation.record import TextRecord
from service.evaluation.text_run import NEAREST
from specialists.task import Task, TaskKind

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TextScore:
    """One system's figures by name, each with its interval where it has one."""

    system: str
    figures: Mapping[str, float | None]
    intervals: Mapping[str, Interval]


@dataclass(frozen=True, eq=False)
class TextFigures:
    """What an evaluation of texts comes to; `less` are GSCo's figures less another system's."""

    measured: Measured
    cases: int
    scores: tuple[TextScore, ...]
    less: Mapping[str, Mapping[str, Interval]]
    broken: tuple[str, ...]


def figures(
    task: Task,
    measured: Measured,
    records: Sequence[TextRecord],
    broken: Sequence[str],
    labeller: Labeller | None,
) -> TextFigures:
    """All figures of the records; with a labeller, also of the findings that reports name."""
    if not records:
        raise Misconfigured("no case to evaluate")
    weights = intervals.resamples([one.patient for one in records])
    told = {name: _measures(task, name, records, labeller) for name in _systems(records)}
    drawn = {name: _resampled(measures, weights) for name, measures in told.items()}
    ours = drawn[trials.GSCO]
    return TextFigures(
        measured=measured,
        cases=len(records),
        scores=tuple(
            TextScore(
                name, _all(measures), {k: intervals.of_values(v) for k, v in _told(drawn[name])}
            )
            for name, measures in told.items()
        ),
        less={
            name: {k: intervals.of_values(ours[k] - v) for k, v in _told(values)}
            for name, values in drawn.items()
            if name != trials.GSCO
        },
        broken=tuple(broken),
    )


def as_json(found: TextFigures) -> dict[str, Any]:
    return {
        "measured": asdict(found.measured),
        "cases": found.cases,
        "broken": list(found.broken),
        "scores": [asdict(score) for score in found.scores],
        "gsco_less": {
            name: {k: asdict(i) for k, i in less.items()} for name, less in found.less.items()
        },
    }


def markdown(found: TextFigures) -> str:
    """One row per system, one column per figure; three decimals."""
    names = list(found.scores[0].figures)
    lines = [
        f"# {found.measured.task} on {found.measured.data}, split {found.measured.split}\n",
        f"{found.cases} cases.\n",
        *(f"Not read: {one}\n" for one in found.broken),
        *(f"> {note}\n" for note in found.measured.notes),
        "| system | " + " | ".join(names) + " |",
        "|---|" + "--:|" * len(names),
    ]
    for score in found.scores:
        cells = (_cell(score.figures[name], score.intervals.get(name)) for name in names)
        lines.append(f"| {score.system} | " + " | ".join(cells) + " |")
    lines += ["\nGSCo less the other, 95 %.\n", "| other | " + " | ".join(names) + " |"]
    lines.append("|---|" + "--:|" * len(names))
    for other, less in found.less.items():
        cells = (_signed(less.get(name)) for name in names)
        lines.append(f"| {other} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _systems(records: Sequence[TextRecord]) -> list[str]:
    names = (NEAREST, trials.ALONE, trials.GSCO)
    return [name for name in names if all(name in one.written for one in records)]


def _measures(
    task: Task, name: str, records: Sequence[TextRecord], labeller: Labeller | None
) -> list[Any]:
    references = [one.reference for one in records]
    written = [one.written[name] for one in records]
    if task.kind is not TaskKind.REPORT:
        return [texts.answer_scores(name, references, written, [one.choices for one in records])]
    found: list[Any] = [texts.report_scores(name, references, written)]
    return [*found, finding_scores(name, labeller, references, written)] if labeller else found


def _all(measures: Sequence[Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for one in measures:
        if hasattr(one, "figures"):
            found |= one.figures()
        else:
            found |= {"finding_micro_f1": one.micro_f1, "finding_macro_f1": one.macro_f1}
    return found


def _resampled(measures: Sequence[Any], weights: Values) -> dict[str, Values]:
    return {name: values for one in measures for name, values in one.resampled(weights).items()}


def _told(values: Mapping[str, Values]) -> Iterator[tuple[str, Values]]:
    return ((name, value) for name, value in values.items() if np.isfinite(value).any())


def _cell(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ({interval.low:.3f} to {interval.high:.3f})" if interval else "")


def _signed(interval: Interval | None) -> str:
    return f"{interval.low:+.3f} to {interval.high:+.3f}" if interval else "–"
