"""How well the generalist decides where its first answer and the panel's majority disagree.

Definitions, since the paper leaves "conflict" open: the panel's answer is its majority vote. Two
rates look at what should have happened, and each has its complement. Always read them together,
with their denominators (docs/results).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]  # (cases,) label indices


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of cases, kept as the two numbers it is made of."""

    numerator: int
    denominator: int

    @property
    def share(self) -> float | None:
        return self.numerator / self.denominator if self.denominator else None

    @property
    def complement(self) -> "Rate":
        return Rate(self.denominator - self.numerator, self.denominator)


@dataclass(frozen=True, slots=True)
class Arbitration:
    """`uphold`: the first answer right, the majority wrong, and the right one kept.
    `self_correct`: the first answer wrong, the majority right, and the right one taken."""

    uphold: Rate
    self_correct: Rate

    @property
    def misled(self) -> Rate:
        return self.uphold.complement

    @property
    def stubborn(self) -> Rate:
        return self.self_correct.complement


def arbitration(truth: Labels, initial: Labels, majority: Labels, final: Labels) -> Arbitration:
    """The rates over labelled cases of a single-label task."""
    own_right, panel_right = initial == truth, majority == truth
    return Arbitration(
        uphold=_rate(final == truth, own_right & ~panel_right),
        self_correct=_rate(final == truth, ~own_right & panel_right),
    )


def named_truth(truth: Labels, final: Labels) -> Rate:
    """The share of cases whose final answer is right, as asked of a biased panel."""
    return _rate(final == truth, np.ones(len(truth), dtype=bool))


def _rate(right: NDArray[np.bool_], among: NDArray[np.bool_]) -> Rate:
    return Rate(int((right & among).sum()), int(among.sum()))
