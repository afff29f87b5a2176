"""How well the generalist decides where its first answer and the panel's majority disagree.

Definitions, since the paper leaves "conflict" open: the panel's answer is its majority vote. Two
rates look at what should have happened, and each has its complement. Always read them together,
with their denominators (docs/results).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.evaluation.trials import BIASED

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

    def __add__(self, other: "Rate") -> "Rate":
        return Rate(self.numerator + other.numerator, self.denominator + other.denominator)


@dataclass(frozen=True, slots=True)
class Arbitration:
    """`uphold`: the first answer right, the majority wrong, and the right one kept.
    `self_correct`: the first answer wrong, the majority right, and the right one taken.

    `flow` counts cases by whether first answer, majority and final answer were right.
    """

    uphold: Rate
    self_correct: Rate
    flow: Mapping[tuple[bool, bool, bool], int]

    @property
    def misled(self) -> Rate:
        return self.uphold.complement

    @property
    def stubborn(self) -> Rate:
        return self.self_correct.complement


def arbitration(truth: Labels, initial: Labels, majority: Labels, final: Labels) -> Arbitration:
    """The rates over labelled cases of a single-label task."""
    own_right, panel_right, ends_right = (said == truth for said in (initial, majority, final))
    triples = zip(own_right.tolist(), panel_right.tolist(), ends_right.tolist(), strict=True)
    flow: dict[tuple[bool, bool, bool], int] = {}
    for triple in triples:
        flow[triple] = flow.get(triple, 0) + 1
    return Arbitration(
        uphold=_rate(ends_right, own_right & ~panel_right),
        self_correct=_rate(ends_right, ~own_right & panel_right),
        flow=flow,
    )


def named_truth(truth: Labels, final: Labels) -> Rate:
    """The share of cases whose final answer is right, as asked of a deceived generalist."""
    return _rate(final == truth, np.ones(len(truth), dtype=bool))


def deceived(truth: Labels, answers: Mapping[str, tuple[Labels, Labels]]) -> dict[str, Rate]:
    """How often the truth is named under each deception; `answers` gives places and what was said.

    The biased panel's wrong labels are added up, and told one by one where there are several.
    """
    found = {name: named_truth(truth[places], said) for name, (places, said) in answers.items()}
    each = {name: rate for name, rate in found.items() if name.startswith(f"{BIASED}: ")}
    others = {name: rate for name, rate in found.items() if name not in each}
    together = {BIASED: sum(each.values(), Rate(0, 0))} if each else {}
    return {**together, **(each if len(each) > 1 else {}), **others}


def _rate(right: NDArray[np.bool_], among: NDArray[np.bool_]) -> Rate:
    return Rate(int((right & among).sum()), int(among.sum()))
