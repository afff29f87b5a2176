"""Evidence that is sometimes missing, biased or beside the point, so that trust is learned.

A generalist that only ever met a good panel would learn to echo it. The panels are real
(`panels.py`); what happens to them here, besides nothing, is one of the kinds of `EvidenceMix`.
"""

from dataclasses import astuple, dataclass, fields, replace

import numpy as np

from service.domain import Evidence
from service.generalist.training.panels import Material
from specialists.prediction import SpecialistPrediction
from specialists.task import Task


@dataclass(frozen=True, slots=True)
class EvidenceMix:
    """How often each kind of evidence occurs in training; the shares add up to one."""

    faithful: float  # as specialists and reference cases really said
    none: float
    panel_only: float
    neighbours_only: float
    thinned: float  # some specialists and neighbours are missing
    biased: float  # every specialist names one label, whatever the image shows
    beside: float  # the panel looked at another case
    misfiled: float  # the neighbours are those of another case

    def __post_init__(self) -> None:
        if abs(sum(astuple(self)) - 1) > 1e-6:
            raise ValueError("the shares of an evidence mix add up to one")

    def draw(self, material: Material, case: int, rng: np.random.Generator) -> Evidence:
        """Evidence about one case, of a random kind."""
        kind = fields(self)[rng.choice(len(fields(self)), p=astuple(self))].name
        own = material.evidence(case)
        other = material.evidence(int(rng.integers(len(material))))
        if kind == "none":
            return Evidence()
        if kind == "panel_only":
            return Evidence(own.moed)
        if kind == "neighbours_only":
            return replace(own, moed=())
        if kind == "thinned":
            return _thinned(own, rng)
        if kind == "biased":
            return biased(own, material.task, int(rng.integers(len(material.task.labels))))
        if kind == "beside":
            return replace(own, moed=other.moed)
        if kind == "misfiled":
            return replace(own, rad=other.rad, typicality=other.typicality)
        return own


def biased(evidence: Evidence, task: Task, label: int) -> Evidence:
    """Every specialist names the label with the probability it had for its own answer."""
    return replace(evidence, moed=tuple(forced(one, task, label) for one in evidence.moed))


def forced(prediction: SpecialistPrediction, task: Task, label: int) -> SpecialistPrediction:
    """The prediction with the likeliest label's probability and the given one's exchanged."""
    said = list(prediction.probabilities)
    likeliest = max(range(len(task.labels)), key=said.__getitem__)
    said[label], said[likeliest] = said[likeliest], said[label]
    return replace(prediction, probabilities=tuple(said))


def _thinned(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    share = rng.uniform(0.2, 0.8)
    return replace(
        evidence,
        moed=tuple(one for one in evidence.moed if rng.random() < share),
        rad=tuple(one for one in evidence.rad if rng.random() < share),
    )
