"""An evaluation as Markdown and JSON."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from service.evaluation.arbitration import Rate
from service.evaluation.figures import Figures
from service.evaluation.intervals import Interval
from service.evaluation.metrics import Score
from service.evaluation.strata import NAMES

RATES = {
    "uphold": "upheld (first answer right, majority wrong)",
    "misled": "misled",
    "self_correct": "self-corrected (first answer wrong, majority right)",
    "stubborn": "stubborn",
}


def markdown(figures: Figures) -> str:
    """What was measured, then one table per question; three decimals."""
    return "".join(_lines(figures))


def as_json(figures: Figures) -> dict[str, Any]:
    """Everything in the tables, unrounded."""
    return {
        "measured": asdict(figures.measured),
        "cases": len(figures.truth),
        "broken": [{"id": one.id, "reason": one.broken} for one in figures.broken],
        "incomplete_evidence": figures.incomplete,
        "warnings": list(figures.warnings),
        "best_single": figures.systems.best_single,
        "scores": [asdict(score) for score in figures.scores],
        "gsco_less": {
            one.system: {"macro_f1": asdict(one.macro_f1_less), "p_value": one.p_value}
            for one in figures.comparisons
        },
        "arbitration": {name: _as_json(rate) for name, rate in rates(figures).items()},
        "deceived": {name: _as_json(rate) for name, rate in figures.deceived.items()},
        "strata": [asdict(gain) for gain in figures.strata],
        "selective": [asdict(one) for one in figures.selective],
        "review": {
            "flagged": _as_json(figures.review.flagged),
            "right_when_not_flagged": _as_json(figures.review.right_when_not_flagged),
        },
        "label_sets": asdict(figures.label_sets) if figures.label_sets else None,
    }


def rates(figures: Figures) -> dict[str, Rate]:
    found = figures.arbitration
    return {name: getattr(found, name) for name in RATES} if found else {}


def _as_json(rate: Rate) -> dict[str, Any]:
    return {**asdict(rate), "share": rate.share}


def _lines(figures: Figures) -> Iterator[str]:
    yield from _head(figures)
    yield _table(
        ("system", "cases", "accuracy (95 %)", "macro-F1 (95 %)", "AUC (95 %)", "ECE"),
        (_scored(score) for score in figures.scores),
    )
    if figures.systems.best_single:
        yield f"\nBest single on validation: {figures.systems.best_single}.\n"
    yield "\nGSCo against each: macro-F1 of GSCo less the other's; p of a paired permutation test "
    yield "of accuracy by patients, corrected after Holm.\n\n"
    yield _table(
        ("other", "95 %", "p"),
        (
            (one.system, _signed(one.macro_f1_less), f"{one.p_value:.3f}")
            for one in figures.comparisons
        ),
    )
    if found := rates(figures):
        yield "\n"
        rows = ((RATES[name], *_shared(rate)) for name, rate in found.items())
        yield _table(("arbitration", "share", "cases"), rows)
    if figures.deceived:
        yield "\n"
        rows = ((name, *_shared(rate)) for name, rate in figures.deceived.items())
        yield _table(("truth named although the evidence is", "share", "cases"), rows)
    if figures.strata:
        yield "\nAccuracy by how divided the panel is, and the gain over the generalist alone.\n\n"
        yield from _strata(figures)
    yield from _review(figures)


def _head(figures: Figures) -> Iterator[str]:
    of = figures.measured
    yield f"# {of.task} on {of.data}, split {of.split}\n\n"
    yield f"{len(figures.truth)} cases; {of.neighbours} neighbours"
    yield f"; without {', '.join(of.left_out)}" if of.left_out else ""
    yield f"; specialists of {of.specialists_from}" if of.specialists_from != of.task else ""
    yield ".\n"
    for one in figures.broken:
        yield f"\nNot read: {one.id}: {one.broken}\n"
    if figures.incomplete:
        yield f"\nIncomplete evidence in {figures.incomplete} cases.\n"
    for note in of.notes:
        yield f"\n{note}\n"
    for warning in figures.warnings:
        yield f"\n> {warning}\n"
    yield "\n"


def _scored(score: Score) -> tuple[str, ...]:
    return (
        score.system,
        str(score.cases),
        _spread(score.accuracy, score.accuracy_interval),
        _spread(score.macro_f1, score.macro_f1_interval),
        _spread(score.auc, score.auc_interval),
        f"{score.calibration_error:.3f}",
    )


def _strata(figures: Figures) -> Iterator[str]:
    by_system: dict[str, dict[str, str]] = {}
    for one in figures.strata:
        shown = f"{one.accuracy:.3f} ({_signed(one.interval)})"
        by_system.setdefault(one.system, {})[one.stratum] = shown
    told = [name for name in NAMES if any(name in row for row in by_system.values())]
    yield _table(
        ("system", *told),
        ((name, *(row.get(stratum, "–") for stratum in told)) for name, row in by_system.items()),
    )


def _review(figures: Figures) -> Iterator[str]:
    yield "\n"
    yield _table(
        ("share of the least sure cases left to a person", "accuracy of GSCo on the others"),
        ((f"{one.review_rate:.0%}", f"{one.accuracy:.3f}") for one in figures.selective),
    )
    flagged, right = figures.review.flagged, figures.review.right_when_not_flagged
    yield f"\nReview was asked for in {_share(flagged)} of the cases"
    yield f" ({flagged.numerator} of {flagged.denominator}); of the others "
    yield f"{_share(right)} were right ({right.numerator} of {right.denominator}).\n"
    if sets := figures.label_sets:
        yield f"\nLabel sets for a coverage of {sets.coverage:.0%}: hold the truth in "
        yield f"{_share(sets.held)} ({sets.held.numerator} of {sets.held.denominator}), "
        yield f"{sets.mean_size:.2f} labels on average.\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---", *("--:" for _ in head[1:])), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _spread(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "–"
    shown = f" ({interval.low:.3f} to {interval.high:.3f})" if interval else ""
    return f"{value:.3f}{shown}"


def _signed(interval: Interval) -> str:
    return f"{interval.low:+.3f} to {interval.high:+.3f}"


def _shared(rate: Rate) -> tuple[str, str]:
    return _share(rate), f"{rate.numerator} of {rate.denominator}"


def _share(rate: Rate) -> str:
    return "–" if rate.share is None else f"{rate.share:.2f}"
