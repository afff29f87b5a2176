"""From a kind, a truth and a seed to an image: the same arguments always draw the same phantom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from service.demo import chest, chest_findings, chest_report, dermoscopy, fundus
from service.demo.canvas import Canvas, Plane
from service.demo.scanner import HOSPITAL_A, Scanner, acquire

CHEST_LABELS = ("normal", "pneumonia", "effusion", "nodule")
FINDINGS_LABELS = ("no finding", "pneumonia", "effusion", "nodule")  # several may hold at once
DERMOSCOPY_LABELS = dermoscopy.LABELS
FUNDUS_LABELS = fundus.LABELS

SMALLEST = 16  # pixels; below, nothing can be recognised


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic image and the truth about it."""

    pixels: NDArray[np.uint8]  # (size, size) grey, or (size, size, 3) colour
    labels: tuple[str, ...]  # several, or ("no finding",), for the kind "findings"
    report: str  # "Findings: … Impression: …" of a chest, else ""
    seed: int
    kind: str

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """(size, size, 3), grey phantoms in three equal channels."""
        grey = self.pixels.ndim == 2
        return np.repeat(self.pixels[..., None], 3, axis=2) if grey else self.pixels


@dataclass(frozen=True, eq=False)
class Streams:
    """Independent randomness, so that the truth or the scanner leaves everything else alone."""

    body: np.random.Generator
    found: np.random.Generator
    words: np.random.Generator
    device: np.random.Generator


Painter = Callable[[tuple[str, ...], Streams, int, float], tuple[Plane, str]]


@dataclass(frozen=True)
class Kind:
    """One sort of phantom."""

    number: int  # part of every seed: never reuse one
    labels: tuple[str, ...]
    cycle: tuple[tuple[str, ...], ...]  # the truths of a balanced series
    paint: Painter
    colour: bool = False

    @property
    def multi_label(self) -> bool:
        return any(len(truth) > 1 for truth in self.cycle)


def draw(
    kind: str, labels: Sequence[str], seed: int, size: int = 96, scanner: Scanner = HOSPITAL_A
) -> Phantom:
    """One phantom of a kind with the given truth.

    The same seed is the same patient whatever the labels, the size and the scanner.
    Raises ValueError for an unknown kind, labels outside it, a negative seed or a size under 16.
    """
    drawn = kind_named(kind)
    truth = _truth(kind, labels)
    _check(seed, size)
    streams = Streams(*(np.random.default_rng((drawn.number, seed, part)) for part in range(4)))
    picture, report = drawn.paint(truth, streams, size, scanner.field_of_view)
    return Phantom(acquire(picture, scanner, streams.device), truth, report, seed, kind)


def series(
    kind: str, count: int, seed: int, size: int = 96, scanner: Scanner = HOSPITAL_A
) -> Iterator[Phantom]:
    """`count` phantoms with balanced labels; the n-th is the same however many are asked for.

    Raises ValueError as `draw` does, and for a negative count, at the call.
    """
    kind_named(kind)
    _check(seed, size)
    if count < 0:
        refuse(f"a series cannot have {count} phantoms: count must be 0 or more")
    truths = islice(_truths(kind, seed), count)
    return (
        draw(kind, truth, derived_seed(kind, seed, place), size, scanner)
        for place, truth in enumerate(truths)
    )


def kind_named(kind: str) -> Kind:
    """The kind of that name, or a ValueError that names those there are."""
    if kind not in KINDS:
        refuse(f"no phantom kind {kind!r}: choose one of {', '.join(KINDS)}")
    return KINDS[kind]


def derived_seed(kind: str, seed: int, place: int) -> int:
    """A seed of its own for one place in a series; 53 bits, so that JSON keeps it exact."""
    mixed = np.random.SeedSequence((kind_named(kind).number, seed, place))
    return int(mixed.generate_state(1, np.uint64)[0]) >> 11


def _truths(kind: str, seed: int) -> Iterator[tuple[str, ...]]:
    """Every truth of the kind once per round, each round in an order of its own."""
    known = kind_named(kind)
    rng = np.random.default_rng((known.number, seed))
    while True:
        for place in rng.permutation(len(known.cycle)):
            yield known.cycle[place]


def _truth(kind: str, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels in the kind's own order, once they are known to make sense together."""
    known = kind_named(kind)
    asked = (labels,) if isinstance(labels, str) else tuple(labels)
    for label in asked:
        if label not in known.labels:
            refuse(f"no label {label!r} in kind {kind!r}: choose from {', '.join(known.labels)}")
    truth = tuple(label for label in known.labels if label in asked)
    if not truth:
        refuse(f"a phantom of kind {kind!r} needs a label: choose from {', '.join(known.labels)}")
    if len(truth) > 1 and not known.multi_label:
        refuse(f"a phantom of kind {kind!r} has exactly one label, not {', '.join(truth)}")
    if len(truth) > 1 and known.labels[0] in truth:
        refuse(f"{known.labels[0]!r} excludes every other label, but came with {truth[1]!r}")
    return truth


def _check(seed: int, size: int) -> None:
    if size < SMALLEST:
        refuse(f"a phantom of {size} pixels is too small: size must be {SMALLEST} or more")
    if seed < 0:
        refuse(f"seed {seed} is negative: it must be 0 or more")


def refuse(reason: str) -> None:
    raise ValueError(reason)


_FINDERS: dict[str, Callable[..., chest_findings.Finding]] = {
    "pneumonia": chest_findings.pneumonia,
    "effusion": chest_findings.effusion,
    "nodule": chest_findings.nodule,
}


def _chest(
    truth: tuple[str, ...], streams: Streams, size: int, field_of_view: float
) -> tuple[Plane, str]:
    person = chest.patient(streams.body)
    present = [label for label in truth if label in _FINDERS]
    findings = tuple(_FINDERS[label](person, streams.found) for label in present)
    thorax = chest.Thorax(Canvas(size, field_of_view, person.pose), person)
    air = chest_findings.air(thorax, findings, streams.found)
    picture = chest.shadow(thorax, air, streams.body)
    picture = picture + chest_findings.densities(thorax, findings)
    return picture, chest_report.report(person, findings, streams.words)


def _dermoscopy(
    truth: tuple[str, ...], streams: Streams, size: int, field_of_view: float
) -> tuple[Plane, str]:
    return dermoscopy.scene(truth[0], streams.body, streams.found, size, field_of_view), ""


def _fundus(
    truth: tuple[str, ...], streams: Streams, size: int, field_of_view: float
) -> tuple[Plane, str]:
    return fundus.scene(truth[0], streams.body, streams.found, size, field_of_view), ""


def _one_each(labels: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple((label,) for label in labels)


# Alone, in pairs and all together: each finding is in four phantoms of ten, three show none.
_COMBINATIONS = (
    ("no finding",),
    ("no finding",),
    ("no finding",),
    ("pneumonia",),
    ("effusion",),
    ("nodule",),
    ("pneumonia", "effusion"),
    ("pneumonia", "nodule"),
    ("effusion", "nodule"),
    ("pneumonia", "effusion", "nodule"),
)

KINDS = {
    "chest": Kind(1, CHEST_LABELS, _one_each(CHEST_LABELS), _chest),
    "findings": Kind(2, FINDINGS_LABELS, _COMBINATIONS, _chest),
    "dermoscopy": Kind(3, DERMOSCOPY_LABELS, _one_each(DERMOSCOPY_LABELS), _dermoscopy, True),
    "fundus": Kind(4, FUNDUS_LABELS, _one_each(FUNDUS_LABELS), _fundus, True),
}
