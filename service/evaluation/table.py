"""Scores as Markdown and JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from service.evaluation.metrics import Score


def markdown(scores: Sequence[Score]) -> str:
    """One row per system, three decimals."""
    head = "| system | cases | accuracy | macro-F1 | AUC |\n|---|--:|--:|--:|--:|\n"
    return head + "".join(_row(score) for score in scores)


def as_json(scores: Sequence[Score]) -> list[dict[str, Any]]:
    return [asdict(score) for score in scores]


def _row(score: Score) -> str:
    auc = "–" if score.auc is None else f"{score.auc:.3f}"
    figures = f"{score.accuracy:.3f} | {score.macro_f1:.3f} | {auc}"
    return f"| {score.system} | {score.cases} | {figures} |\n"
