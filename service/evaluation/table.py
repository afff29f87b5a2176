"""An evaluation as Markdown and JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from service.evaluation.arbitration import Rate
from service.evaluation.intervals import Interval
from service.evaluation.metrics import Score
from service.evaluation.run import OURS, Evaluation


def markdown(evaluation: Evaluation) -> str:
    """One row per system, then GSCo against each, then how it arbitrated; three decimals."""
    return "".join(_lines(evaluation))


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything in the tables, unrounded."""
    found = evaluation.arbitration
    rates = (
        {
            "uphold": found.uphold,
            "misled": found.misled,
            "self_correct": found.self_correct,
            "stubborn": found.stubborn,
        }
        if found
        else {}
    )
    if evaluation.biased:
        rates["biased_panel_truth_named"] = evaluation.biased
    return {
        "scores": [asdict(score) for score in evaluation.scores],
        "best_single": evaluation.best_single,
        "macro_f1_of_gsco_less": {name: asdict(i) for name, i in evaluation.less.items()},
        "arbitration": {name: {**asdict(r), "share": r.share} for name, r in rates.items()},
    }


def _lines(evaluation: Evaluation) -> Iterator[str]:
    yield "| system | cases | accuracy | macro-F1 (95 %) | AUC |\n|---|--:|--:|--:|--:|\n"
    yield from (_row(score) for score in evaluation.scores)
    if evaluation.best_single:
        yield f"\nBest single on validation: {evaluation.best_single}.\n"
    yield f"\n| macro-F1 of {OURS} less that of | 95 % |\n|---|--:|\n"
    for name, interval in evaluation.less.items():
        yield f"| {name} | {interval.low:+.3f} to {interval.high:+.3f} |\n"
    if found := evaluation.arbitration:
        yield "\n| arbitration | share | cases |\n|---|--:|--:|\n"
        yield _rate("upheld (first answer right, majority wrong)", found.uphold)
        yield _rate("misled", found.misled)
        yield _rate("self-corrected (first answer wrong, majority right)", found.self_correct)
        yield _rate("stubborn", found.stubborn)
        if evaluation.biased:
            yield _rate("truth named against a panel of one wrong mind", evaluation.biased)


def _row(score: Score) -> str:
    auc = "–" if score.auc is None else f"{score.auc:.3f}"
    spread = _spread(score.macro_f1_interval)
    figures = f"{score.accuracy:.3f} | {score.macro_f1:.3f}{spread} | {auc}"
    return f"| {score.system} | {score.cases} | {figures} |\n"


def _spread(interval: Interval | None) -> str:
    return f" ({interval.low:.3f} to {interval.high:.3f})" if interval else ""


def _rate(name: str, rate: Rate) -> str:
    share = "–" if rate.share is None else f"{rate.share:.2f}"
    return f"| {name} | {share} | {rate.numerator} of {rate.denominator} |\n"
