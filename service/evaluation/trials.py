"""Evidence other than it was, to see what the generalist makes of it."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.domain import Evidence
from service.generalist.training.evidence import biased
from specialists.task import Task, TaskKind

ALONE, MOED_ONLY, RAD_ONLY, GSCO = "generalist alone", "MoED only", "RAD only", "GSCo"
BIASED, RANDOM, CONTRADICTORY = STRESSES = ("biased", "random", "contradictory")

Change = Callable[[Evidence], Evidence]


@dataclass(frozen=True, slots=True)
class Trial:
    """One more arbitration of a case: its name in results, and the evidence it is told."""

    name: str
    evidence: Evidence


def ablations(systems: Sequence[str], evidence: Evidence) -> Iterator[Trial]:
    """One of the two kinds of evidence alone."""
    if MOED_ONLY in systems:
        yield Trial(MOED_ONLY, replace(evidence, rad=(), typicality=None))
    if RAD_ONLY in systems:
        yield Trial(RAD_ONLY, replace(evidence, moed=()))


def stresses(
    chosen: Sequence[str], task: Task, id: str, truth: tuple[str, ...], evidence: Evidence
) -> Iterator[Trial]:
    """Evidence that deceives, of a single-label task.

    biased: every specialist names one wrong label, once per wrong label (`biased: label`).
    random: every specialist's probabilities and every neighbour's label are drawn anew.
    contradictory: all specialists name one label and all neighbours bear another; one of the two
    is the truth, in half of the cases that of the panel.
    """
    if not chosen or task.kind is not TaskKind.SINGLE_LABEL:
        return
    names = task.label_names
    right = names.index(truth[0])
    wrong = [label for label in range(len(names)) if label != right]
    rng = np.random.default_rng(list(hashlib.sha256(id.encode()).digest()[:8]))
    if BIASED in chosen:
        for label in wrong:
            yield Trial(f"{BIASED}: {names[label]}", biased(evidence, task, label))
    if RANDOM in chosen:
        yield Trial(RANDOM, _random(evidence, names, rng))
    if CONTRADICTORY in chosen:
        other = int(rng.choice(wrong))
        panel, known = (right, other) if rng.random() < 0.5 else (other, right)
        yield Trial(CONTRADICTORY, _all_known(biased(evidence, task, panel), names[known]))


def _random(evidence: Evidence, names: Sequence[str], rng: np.random.Generator) -> Evidence:
    return replace(
        evidence,
        moed=tuple(
            replace(one, probabilities=tuple(rng.permutation(one.probabilities).tolist()))
            for one in evidence.moed
        ),
        rad=tuple(
            replace(one, case=replace(one.case, labels=(str(rng.choice(names)),)))
            for one in evidence.rad
        ),
    )


def _all_known(evidence: Evidence, label: str) -> Evidence:
    neighbours = (replace(one, case=replace(one.case, labels=(label,))) for one in evidence.rad)
    return replace(evidence, rad=tuple(neighbours))
