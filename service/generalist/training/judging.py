"""How well a checkpoint arbitrates on validation cases, as they are and from a strange scanner.

The best checkpoint is the one that is right most often there, with the panel as it is and with
the panel forced to one wrong label; longer training alone would drift towards echoing the panel.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from service.domain import Evidence, LabelledAnswer, labels_of, vote
from service.generalist.template import Template
from service.generalist.training import batches, examples
from service.generalist.training.arbitrating import Reader
from service.generalist.training.evidence import biased
from service.generalist.training.panels import Material
from specialists.task import Task, TaskKind

AT_ONCE = 48
BIASED_WEIGHT = 0.25


@dataclass(frozen=True, slots=True)
class Judgement:
    """Macro-F1 on one task's validation cases, half of them shifted."""

    task: str
    cases: int
    alone: float
    vote: float
    final: float
    biased: float

    @property
    def score(self) -> float:
        return (1 - BIASED_WEIGHT) * self.final + BIASED_WEIGHT * self.biased


def judge(reader: Reader, template: Template, material: Material) -> Judgement:
    """The generalist alone, the panel's vote, the arbitration, and that of a biased panel."""
    evidence = [material.evidence(case) for case in range(len(material))]
    alone = _answered(reader, template, material, None, None)
    looks = [LabelledAnswer((), said) for said in alone]
    final = _answered(reader, template, material, evidence, looks)
    forced = [
        biased(one, material.task, _wrong(material, case)) for case, one in enumerate(evidence)
    ]
    misled = _answered(reader, template, material, forced, looks)
    task, truth = material.task, material.targets
    votes = [vote(task, one.moed) or () for one in evidence]
    return Judgement(
        task=task.name,
        cases=len(material),
        alone=_macro_f1(task, truth, [labels_of(task, said) for said in alone]),
        vote=_macro_f1(task, truth, votes),
        final=_macro_f1(task, truth, [labels_of(task, said) for said in final]),
        biased=_macro_f1(task, truth, [labels_of(task, said) for said in misled]),
    )


def overall(judgements: Sequence[Judgement]) -> float:
    """By which checkpoints are compared: the mean over tasks."""
    return float(np.mean([one.score for one in judgements]))


def as_documents(judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    return [asdict(one) for one in judgements]


@torch.inference_mode()
def _answered(
    reader: Reader,
    template: Template,
    material: Material,
    evidence: Sequence[Evidence] | None,
    looks: Sequence[LabelledAnswer] | None,
) -> list[tuple[float, ...]]:
    found: list[tuple[float, ...]] = []
    for start in range(0, len(material), AT_ONCE):
        cases = range(start, min(start + AT_ONCE, len(material)))
        with batches.at_half_precision(reader.model):
            features = reader.features([material.images[case] for case in cases])
        asked = [
            examples.diagnosis(
                template,
                material.task,
                case - start,
                (),
                evidence[case] if evidence else None,
                looks[case] if looks else None,
            )
            for case in cases
        ]
        found += reader.read(features, asked, [material.task] * len(asked))
    return found


def _wrong(material: Material, case: int) -> int:
    """A label that does not hold, another one from case to case."""
    wrong = np.flatnonzero(material.targets[case] == 0)
    return int(wrong[case % len(wrong)])


def _macro_f1(task: Task, truth: NDArray[np.float32], labels: Sequence[tuple[str, ...]]) -> float:
    marks = np.array([[name in said for name in task.label_names] for said in labels])
    if task.kind is TaskKind.MULTI_LABEL:
        return float(f1_score(truth > 0, marks, average="macro", zero_division=0))
    return float(f1_score(truth.argmax(1), marks.argmax(1), average="macro", zero_division=0))
