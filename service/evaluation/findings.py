"""Whether a report names the findings that its reference names.

A labeller reads texts and marks findings; which one is a matter of choice: rules for the small
vocabulary of the phantoms, or the marks that another program, such as CheXbert, wrote to a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from service.errors import InvalidInput
from service.evaluation.intervals import Marks


class Labeller(Protocol):
    """Reads reports: the same text always gets the same marks."""

    @property
    def name(self) -> str: ...

    @property
    def findings(self) -> tuple[str, ...]: ...

    def marks(self, texts: Sequence[str]) -> Marks:
        """(texts, findings): what each text says is there."""
        ...


@dataclass(frozen=True, slots=True)
class FindingScore:
    """One finding: how many references and how many generated reports name it, and the F1.

    `f1` is None where nobody names it: it says nothing of the system.
    """

    finding: str
    in_references: int
    in_generated: int
    f1: float | None


@dataclass(frozen=True, slots=True, eq=False)
class FindingScores:
    """One system's reports. As in sklearn, a finding that nobody names counts 0 in macro-F1."""

    system: str
    labeller: str
    micro_f1: float
    macro_f1: float
    findings: tuple[FindingScore, ...]
    truth: Marks  # (cases, findings) of the references
    named: Marks  # (cases, findings) of the generated reports

    def resampled(self, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Both figures of each resample, for the weights of `intervals.resamples`."""
        hits, said, there = (
            weights @ marks for marks in (self.truth & self.named, self.named, self.truth)
        )
        return {
            "finding_micro_f1": _f1(hits.sum(axis=1), (said + there).sum(axis=1)),
            "finding_macro_f1": _f1(hits, said + there).mean(axis=1),
        }


def finding_scores(
    system: str, labeller: Labeller, references: Sequence[str], generated: Sequence[str]
) -> FindingScores:
    """Micro-, macro- and per-finding F1; raises InvalidInput where there are no texts."""
    if not references or len(references) != len(generated):
        raise InvalidInput(
            f"{len(generated)} reports cannot be compared with {len(references)} references"
        )
    truth, named = labeller.marks(references), labeller.marks(generated)
    findings = tuple(map(_score, labeller.findings, truth.T, named.T))
    return FindingScores(
        system=system,
        labeller=labeller.name,
        micro_f1=float(f1_score(truth.ravel(), named.ravel(), zero_division=0)),
        macro_f1=float(np.mean([finding.f1 or 0.0 for finding in findings])),
        findings=findings,
        truth=truth,
        named=named,
    )


def _score(finding: str, truth: NDArray[np.bool_], named: NDArray[np.bool_]) -> FindingScore:
    there, said = int(truth.sum()), int(named.sum())
    f1 = float(f1_score(truth, named)) if there + said else None
    return FindingScore(finding, there, said, f1)


def _f1(hits: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)
