"""The words of a diagnosis: frozen values, no I/O."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from retrieval.neighbour import Neighbour
from specialists.prediction import Pixels, Segmentation, SpecialistPrediction
from specialists.task import Task

INTENDED_USE = (
    "Decision support for research and evaluation, to be read by a qualified person; "
    "never a diagnosis by itself."
)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Image:
    """Decoded pixels and where they come from.

    `sha256` is that of the bytes received, `pixels_sha256` names what is shown: two frames of one
    file share the first and differ in the second. `notes` say in one sentence each what intake
    had to choose, such as the frame that was used; `cautions` why a person must look.
    """

    pixels: Pixels  # (height, width, 3) uint8 RGB
    sha256: str
    media_type: str
    notes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    pixels_sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels_sha256", pixels_sha256(self.pixels))


@dataclass(frozen=True, slots=True)
class Instance:
    """The DICOM instance, and the frame of it, that an image is: kept only to answer a PACS.

    `rows` and `columns` are as stored; an image whose pixels were oblong is shown with more of
    one of them. `pixel_spacing_mm` lies between rows and between columns, and is what the
    attribute `pixel_spacing_from` says: PixelSpacing in the patient, ImagerPixelSpacing at the
    detector. `sender` is who sent it: an AE title, or the name of a DICOMweb source.
    """

    study_instance_uid: str = field(repr=False)
    series_instance_uid: str = field(repr=False)
    sop_instance_uid: str = field(repr=False)
    sop_class_uid: str
    rows: int
    columns: int
    frame_number: int = 1
    number_of_frames: int = 1
    pixel_spacing_mm: tuple[float, float] | None = None
    pixel_spacing_from: str | None = None
    sender: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One request: an image and the task it is to be looked at for.

    `group` names the patient or study by a pseudonym, so that retrieval does not return the
    patient's own earlier images. A report or a question may consult the panel and the reference
    cases of another task, which has labels: `consulted`. `draft` is the report of a report
    specialist; `choices` are the permitted answers to a closed question. `modality` is what a
    DICOM file says of itself (PS3.3 section C.7.3.1.1.1), such as CR; `instance` is for those who
    write results for the PACS, and no part of the pipeline looks at it. `requested_by` names who
    asks: a key, an account or an AE title, never a patient.
    """

    id: str
    task: Task
    image: Image
    group: str | None = None
    consulted: Task | None = None
    question: str = ""
    choices: tuple[str, ...] = ()
    draft: str = ""
    modality: str | None = None
    instance: Instance | None = field(default=None, repr=False)
    requested_by: str = ""

    @property
    def evidence_task(self) -> Task:
        """The task whose specialists and reference cases give the evidence."""
        return self.consulted or self.task


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What the generalist is asked: an image, a text, and the answers allowed (none: free text).

    With `several`, an answer is any subset of the choices in their order, or `nothing`, which is
    one of them, alone.
    """

    image: Image
    text: str
    choices: tuple[str, ...] = ()
    max_tokens: int = 512
    several: bool = False
    nothing: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What the generalist answered; `probabilities` follow the order of the prompt's choices.

    They add up to 1, or with `several` are those of each choice to be part of the answer.
    """

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
    """What the generalist weighs: the specialists' predictions (MoED) and similar cases (RAD).

    `segmentations` say what specialists of that kind outline, for tasks that have a segment.
    `typicality` is the share of the reference cases that are less like the others than this case
    is like them: near 0 for an image unlike anything known.
    """

    moed: tuple[SpecialistPrediction, ...] = ()
    rad: tuple[Neighbour, ...] = ()
    missing: tuple[Missing, ...] = ()
    index_ids: tuple[str, ...] = ()
    typicality: float | None = None
    segmentations: tuple[Segmentation, ...] = ()


class Arbitration(StrEnum):
    """How the generalist's final answer came out of its first one and the evidence.

    No truth is known here: whether a correction was right, evaluation tells.
    """

    UNANIMOUS = "unanimous"  # first and final answer and most specialists agree
    UPHELD = "upheld"  # the first answer stands, though most specialists do not share it
    CORRECTED = "corrected"  # changed to what most specialists name
    SWAYED = "swayed"  # changed to what most specialists do not name
    UNAIDED = "unaided"  # no specialist answered


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
    requested_by: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The generalist's final answer with all it rests on; not a clinical diagnosis.

    Where the task is calibrated, `label_set` holds the truth with the probability `coverage`.
    """

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
    arbitration: Arbitration = Arbitration.UNAIDED
    label_set: tuple[str, ...] = ()
    coverage: float | None = None
    notes: tuple[str, ...] = ()
    durations_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def needs_review(self) -> bool:
        return bool(self.review_reasons)

    @property
    def degraded(self) -> tuple[Missing, ...]:
        return self.evidence.missing


@dataclass(frozen=True, slots=True)
class Report:
    """A report of the generalist, with Findings and Impression, and all it rests on; a draft."""

    id: str
    created_at: datetime
    task: str
    consulted: str | None
    label_names: tuple[str, ...]  # of the task consulted
    findings: str
    impression: str
    text: str
    initial_text: str
    evidence: Evidence
    review_reasons: tuple[str, ...]
    provenance: Provenance
    draft_sha256: str | None = None
    notes: tuple[str, ...] = ()
    durations_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def needs_review(self) -> bool:
        return bool(self.review_reasons)

    @property
    def degraded(self) -> tuple[Missing, ...]:
        return self.evidence.missing


@dataclass(frozen=True, slots=True)
class Answer:
    """The generalist's answer to a question about an image.

    `choices` and `probabilities` are parallel, and empty for an open question.
    """

    id: str
    created_at: datetime
    task: str
    consulted: str | None
    label_names: tuple[str, ...]  # of the task consulted
    question: str
    text: str
    initial_text: str
    choices: tuple[str, ...]
    probabilities: tuple[float, ...]
    evidence: Evidence
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


Result = Diagnosis | Report | Answer


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


def target_labels(task: Task, target: NDArray[np.int64]) -> tuple[str, ...]:
    """The labels a target of a data set stands for: a label's index, or one 0 or 1 per label."""
    names = task.label_names
    if np.ndim(target) == 0:
        return (names[int(target)],)
    found = tuple(name for name, holds in zip(names, target, strict=True) if holds)
    return found or tuple(filter(None, [task.nothing_found]))


def vote(task: Task, predictions: tuple[SpecialistPrediction, ...]) -> tuple[str, ...] | None:
    """The answer most specialists give; the earlier label wins a tie, None without specialists."""
    if not predictions:
        return None
    counts = Counter(predicted_labels(task, prediction) for prediction in predictions)
    order = {name: place for place, name in enumerate(task.label_names)}
    return max(counts, key=lambda labels: (counts[labels], [-order[name] for name in labels]))


def arbitration(
    task: Task,
    initial: LabelledAnswer,
    predictions: tuple[SpecialistPrediction, ...],
    final: LabelledAnswer,
) -> Arbitration:
    """How the final answer relates to the first one and to what most specialists name."""
    most = vote(task, predictions)
    if most is None:
        return Arbitration.UNAIDED
    if final.labels == initial.labels:
        return Arbitration.UNANIMOUS if final.labels == most else Arbitration.UPHELD
    return Arbitration.CORRECTED if final.labels == most else Arbitration.SWAYED


def agreement(
    task: Task, predictions: tuple[SpecialistPrediction, ...], labels: tuple[str, ...]
) -> float | None:
    """The share of the specialists that name exactly these labels; None without specialists."""
    if not predictions:
        return None
    return sum(predicted_labels(task, p) == labels for p in predictions) / len(predictions)
