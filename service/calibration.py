"""Label sets that hold the truth with an asked probability: split conformal prediction.

From the validation split, once: how large the probability of the true label was. The threshold
that all but a small share of those reach, corrected for the finite number of cases, then decides
which labels a new case keeps (LAC; Sadinle, Lei and Wasserman, 2019). The promise holds for cases
like those of the validation split, and only while task, weights, template and generalist are the
same: a calibration names them all and is not applied to others.

With several labels, each label has a threshold of its own, which the asked share of the cases
where it holds reaches.
"""

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.domain import Diagnosis, Provenance
from service.errors import InvalidInput
from specialists.task import Task, TaskKind

COVERAGE = 0.9
FEWEST_CASES = 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The least probability at which each label is kept, and what that was learned from."""

    task: str
    label_names: tuple[str, ...]
    thresholds: tuple[float, ...]
    coverage: float
    cases: int
    created: str  # ISO 8601, UTC
    valid_for: dict[str, str]

    def does_not_fit(self, provenance: Provenance) -> str | None:
        """Why it says nothing about a diagnosis of this provenance; None where it does."""
        ours = conditions(provenance)
        changed = sorted(
            k for k in {*ours, *self.valid_for} if ours.get(k) != self.valid_for.get(k)
        )
        return f"calibrated with another {', '.join(changed[:3])}" if changed else None


def conditions(provenance: Provenance) -> dict[str, str]:
    """What the probabilities of a diagnosis depend on besides its image.

    Not in which numbers specialists computed: ways that agree may take each other's place.
    """
    generalist = provenance.generalist
    return {
        "task": provenance.task_sha256,
        "generalist": f"{generalist.model} {generalist.weights_sha256}",
        "prompt template": provenance.prompt_template,
        **{f"specialist {name}": sha256 for name, sha256 in provenance.weights_sha256.items()},
    }


def calibrate(
    task: Task,
    probabilities: NDArray[np.float64],
    truth: NDArray[np.bool_],
    valid_for: dict[str, str],
    coverage: float = COVERAGE,
) -> Calibration:
    """From the final probabilities of validation cases and what holds, both (cases, labels).

    `valid_for` are the `conditions` under which all of them were diagnosed. Raises InvalidInput
    for too few cases.
    """
    count = len(probabilities)
    if count < FEWEST_CASES:
        raise InvalidInput(f"{count} cases are too few to calibrate: {FEWEST_CASES}")
    if task.kind is TaskKind.SINGLE_LABEL:
        thresholds = (_threshold(probabilities[truth], coverage),) * truth.shape[1]
    else:
        thresholds = tuple(
            _threshold(probabilities[truth[:, label], label], coverage)
            for label in range(truth.shape[1])
        )
    return Calibration(
        task=task.name,
        label_names=task.label_names,
        thresholds=thresholds,
        coverage=coverage,
        cases=count,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        valid_for=valid_for,
    )


def label_set(calibration: Calibration, probabilities: Sequence[float]) -> tuple[str, ...]:
    """The labels kept, in the task's order; at least the likeliest."""
    named = zip(calibration.label_names, probabilities, calibration.thresholds, strict=True)
    kept = tuple(name for name, p, threshold in named if p >= threshold)
    likeliest = max(range(len(probabilities)), key=probabilities.__getitem__)
    return kept or (calibration.label_names[likeliest],)


def applied(
    calibration: Calibration, diagnosis: Diagnosis, is_close_call: Callable[[str], bool]
) -> Diagnosis:
    """The diagnosis with its label set; more than one label asks for review.

    The set says better than a fixed bound which answers are close calls, so reasons of that
    kind give way to it.
    """
    held = label_set(calibration, diagnosis.final.probabilities)
    reasons = tuple(one for one in diagnosis.review_reasons if not is_close_call(one))
    if set(held) != set(diagnosis.final.labels):
        reasons = (f"the label set holds {' or '.join(held)}", *reasons)
    return replace(diagnosis, label_set=held, coverage=calibration.coverage, review_reasons=reasons)


def write(folder: Path, calibration: Calibration) -> Path:
    """Keeps it as `<folder>/<task>.json`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{calibration.task}.json"
    fresh = path.with_suffix(".part")
    fresh.write_text(json.dumps(asdict(calibration), indent=2) + "\n", "utf-8")
    return fresh.replace(path)


def read(folder: Path, task: str) -> Calibration | None:
    """A task's calibration; None where there is none, or with a warning where it is damaged."""
    path = folder / f"{task}.json"
    try:
        fields = json.loads(path.read_text("utf-8"))
        names, thresholds = tuple(fields["label_names"]), tuple(map(float, fields["thresholds"]))
        found = Calibration(**{**fields, "label_names": names, "thresholds": thresholds})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        logger.warning("the calibration %s cannot be read and is not used", path.name)
        return None
    return found if len(names) == len(thresholds) else None


def _threshold(probabilities: NDArray[np.float64], coverage: float) -> float:
    """The probability that all but a share of 1 - coverage of the true labels reach."""
    count = len(probabilities)
    # The finite-sample correction; (1 - 0.9) * 30 is a little less than 3 in floating point.
    rank = math.floor(round((1 - coverage) * (count + 1), 9))
    return float(np.sort(probabilities)[rank - 1]) if rank >= 1 else 0.0
