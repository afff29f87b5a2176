"""Simulated evidence: panels and neighbours that are sometimes right, sometimes not.

A generalist that only ever met a good panel would learn to echo it. During training the panel is
therefore also absent, biased to one label, random, or collapsed as under another scanner, and its
quality varies from case to case, so that trust has to be learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PANEL_SIZE = 10
NEIGHBOURS = 10


@dataclass(frozen=True, slots=True)
class SimulatedEvidence:
    """Label indices, one per neighbour and one per specialist; empty where a part is absent."""

    retrieved: tuple[int, ...]
    predicted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EvidenceMix:
    """How often each kind of evidence occurs in training; the shares add up to one."""

    faithful: float = 0.56
    panel_only: float = 0.08
    neighbours_only: float = 0.08
    biased: float = 0.10
    collapsed: float = 0.10
    random: float = 0.08

    def __post_init__(self) -> None:
        if abs(sum(self._shares()) - 1) > 1e-6:
            raise ValueError("the shares of an evidence mix add up to one")

    def _shares(self) -> tuple[float, ...]:
        return (
            self.faithful,
            self.panel_only,
            self.neighbours_only,
            self.biased,
            self.collapsed,
            self.random,
        )

    def draw(self, rng: np.random.Generator, truth: int, labels: int) -> SimulatedEvidence:
        """Evidence for one case whose true label is the index `truth` of `labels`."""
        kind = rng.choice(6, p=self._shares())
        hard = rng.random() < 0.5
        panel = _sighted(rng, truth, labels, PANEL_SIZE, accuracy=_accuracy(rng), hard=hard)
        neighbours = _sighted(rng, truth, labels, NEIGHBOURS, accuracy=_accuracy(rng), hard=hard)
        wrong_or_right = int(rng.integers(labels))
        return (
            SimulatedEvidence(neighbours, panel),
            SimulatedEvidence((), panel),
            SimulatedEvidence(neighbours, ()),
            SimulatedEvidence(neighbours, (wrong_or_right,) * len(panel)),
            SimulatedEvidence(neighbours, _mostly(rng, wrong_or_right, labels)),
            SimulatedEvidence(_random(rng, labels, NEIGHBOURS), _random(rng, labels, PANEL_SIZE)),
        )[kind]


def _accuracy(rng: np.random.Generator) -> float:
    """Mean 0.86, seldom below 0.6: what nano specialists reach on their own hospital."""
    return float(rng.beta(8, 1.3))


def _sighted(
    rng: np.random.Generator, truth: int, labels: int, count: int, *, accuracy: float, hard: bool
) -> tuple[int, ...]:
    """Votes that err together: in a misleading case most voters see the same wrong label."""
    misled = rng.random() > accuracy if hard else rng.random() > min(1, accuracy + 0.08)
    centre = _other(rng, truth, labels) if misled else truth
    followers = rng.beta(6, 2) if misled else rng.beta(9, 1.2)
    return _votes(rng, centre, labels, count, share=float(followers))


def _votes(
    rng: np.random.Generator, centre: int, labels: int, count: int, *, share: float
) -> tuple[int, ...]:
    follows = rng.random(count) < share
    return tuple(centre if yes else _other(rng, centre, labels) for yes in follows)


def _mostly(rng: np.random.Generator, label: int, labels: int) -> tuple[int, ...]:
    """A panel collapsed to one label whatever the image shows, as under domain shift."""
    return _votes(rng, label, labels, PANEL_SIZE, share=0.9)


def _random(rng: np.random.Generator, labels: int, count: int) -> tuple[int, ...]:
    return tuple(int(label) for label in rng.integers(labels, size=count))


def _other(rng: np.random.Generator, label: int, labels: int) -> int:
    return int((label + rng.integers(1, labels)) % labels)


def names(indices: Sequence[int], label_names: Sequence[str]) -> list[tuple[str, ...]]:
    """Label indices as the one-label answers that the prompt writes in a row."""
    return [(label_names[index],) for index in indices]
