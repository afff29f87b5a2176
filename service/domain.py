"""The words of a diagnosis: frozen values, no I/O."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from retrieval.neighbour import Neighbour
from specialists.prediction import Pixels, SpecialistPrediction
from specialists.task import Task

INTENDED_USE = (
    "Decision support for research and evaluation, to be read by a qualified person; "
    "never a diagnosis by itself."
)


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """Decoded pixels and where they come from.

    `sha256` is that of the bytes received, `pixels_sha256` names what is shown: two frames of one
    file share the first and differ in the second. `notes` say in one sentence each what intake
    had to choose, such as the frame that was used.
    """

    pixels: Pixels  # (height, width, 3) uint8 RGB
    sha256: str
    media_type: str
    notes: tuple[str, ...] = ()
    pixels_sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels_sha256", pixels_sha256(self.pixels))


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One request: an image and the task it is to be looked at for.

    `group` names the patient or study by a pseudonym, so that retrieval does not return the
    patient's own earlier images.
    """

    id: str
    task: Task
    image: Image
    group: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What the generalist is asked: an image, a text, and the answers allowed (none: free text)."""

    image: Image
    text: str
    choices: tuple[str, ...] = ()
    max_tokens: int = 512


@dataclass(frozen=True, slots=True)
class Completion:
    """What the generalist answered; `probabilities` follow the order of the prompt's choices."""

    text: str
    probabilities: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class GeneralistIdentity:
    """Which generalist answers: engine, model, the sha256 of its weights where known, sampling."""

    engine: str
    model: str
    weights_sha256: str
    sampling: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A part that should have contributed and did not, and why in one sentence."""

    part: str
    reason: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the generalist weighs: the specialists' predictions (MoED) and similar cases (RAD)."""

    moed: tuple[SpecialistPrediction, ...] = ()
    rad: tuple[Neighbour, ...] = ()
    missing: tuple[Missing, ...] = ()
    index_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """Labels and the probability of every label, in the task's order."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Everything needed to say later how a diagnosis came about."""

    input_sha256: str
    code_version: str
    preprocessing_version: str
    task_sha256: str
    weights_sha256: dict[str, str]
    index_ids: tuple[str, ...]
    prompt_template: str
    initial_prompt_sha256: str
    arbitration_prompt_sha256: str
    generalist: GeneralistIdentity


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The generalist's final answer with all it rests on; not a clinical diagnosis."""

    id: str
    created_at: datetime
    task: str
    label_names: tuple[str, ...]
    final: LabelledAnswer
    initial: LabelledAnswer
    evidence: Evidence
    agreement: float | None
    review_reasons: tuple[str, ...]
    provenance: Provenance
    notes: tuple[str, ...] = ()
    durations_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def needs_review(self) -> bool:
        return bool(self.review_reasons)

    @property
    def degraded(self) -> tuple[Missing, ...]:
        return self.evidence.missing


def pixels_sha256(pixels: Pixels) -> str:
    """Names an image by what it shows, whatever file it came in."""
    shape = "x".join(map(str, pixels.shape))
    return hashlib.sha256(shape.encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def predicted_labels(task: Task, prediction: SpecialistPrediction) -> tuple[str, ...]:
    """The label or labels a specialist names, by arg-max or by the task's thresholds."""
    return labels_of(task, prediction.probabilities)


def labels_of(task: Task, probabilities: tuple[float, ...]) -> tuple[str, ...]:
    """The label or labels that probabilities stand for, in the task's order.

    A multi-label task that finds nothing above its thresholds names its "nothing found" label.
    """
    names = task.label_names
    if task.kind != "multi-label":
        return (names[max(range(len(names)), key=probabilities.__getitem__)],)
    thresholds = task.thresholds or (0.5,) * len(names)
    above = zip(names, probabilities, thresholds, strict=True)
    found = tuple(n for n, p, t in above if p > t and n != task.nothing_found)
    if found or task.nothing_found is None:
        return found
    return (task.nothing_found,)


def vote(task: Task, predictions: tuple[SpecialistPrediction, ...]) -> tuple[str, ...] | None:
    """The answer most specialists give; the earlier label wins a tie, None without specialists."""
    if not predictions:
        return None
    counts = Counter(predicted_labels(task, prediction) for prediction in predictions)
    order = {name: place for place, name in enumerate(task.label_names)}
    return max(counts, key=lambda labels: (counts[labels], [-order[name] for name in labels]))


def agreement(
    task: Task, predictions: tuple[SpecialistPrediction, ...], labels: tuple[str, ...]
) -> float | None:
    """The share of the specialists that name exactly these labels; None without specialists."""
    if not predictions:
        return None
    return sum(predicted_labels(task, p) == labels for p in predictions) / len(predictions)
