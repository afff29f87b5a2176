"""Stand-ins for the parts of the service: real behaviour, scripted answers, no models.

Every fake takes `failure` (raised instead of answering) and `delay_seconds`, and remembers in
`asked` what it was asked. `calls`, where given, is a list shared by several fakes in which they
note "start generalist" or "close store", for stories about the order of things.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from builders import (
    PANEL,
    a_neighbour,
    a_picture,
    an_identity,
    an_image,
    sha256_of,
    some_attributes,
)

from retrieval.neighbour import MissingRetriever, Neighbour, Query, ReferenceCase, Retrieval
from retrieval.records import Then
from service.domain import Completion, Diagnosis, GeneralistIdentity, Instance, Prompt, Result
from service.errors import NotFound
from service.intake.deidentify import DicomReferences
from service.intake.result import IntakeResult
from specialists.errors import SpecialistUnavailable, UnknownBackbone, UnknownLabel
from specialists.prediction import (
    Consultation,
    Embedding,
    Explanation,
    Hear,
    MissingSpecialist,
    Pixels,
    Segmentation,
    SpecialistPrediction,
    Vector,
    unheard,
)
from specialists.task import Task

FREE_TEXT = "Findings: The lungs are clear. Impression: No acute disease."


@dataclass
class FakePart:
    """What all fakes share: being started and closed, being slow, failing."""

    failure: Exception | None = None
    delay_seconds: float = 0.0
    start_failure: Exception | None = None
    calls: list[str] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)

    async def start(self) -> None:
        self.calls.append(f"start {self._name}")
        if self.start_failure is not None:
            raise self.start_failure

    async def close(self) -> None:
        self.calls.append(f"close {self._name}")

    async def _act(self, asked: Any) -> None:
        self.asked.append(asked)
        await asyncio.sleep(self.delay_seconds)
        if self.failure is not None:
            raise self.failure

    @property
    def _name(self) -> str:
        return type(self).__name__.removeprefix("Fake").lower()


@dataclass(frozen=True)
class FakeLoadedSpecialist:
    name: str
    scale: str
    weights_sha256: str
    validation: dict[str, float | None]
    refused: str | None = None


@dataclass(frozen=True)
class FakePanel:
    task: str
    specialists: tuple[FakeLoadedSpecialist, ...]
    missing: tuple[MissingSpecialist, ...]
    in_memory: bool = True


@dataclass
class FakeSpecialists(FakePart):
    """A panel of one mind: every specialist gives the last label 0.8, unless told otherwise.

    `probabilities` gives all specialists, or by name some of them, another answer; those in
    `missing` have a reason instead of an answer. `segmentations` are what is outlined. Between
    one prediction and the next lie `between_seconds`.
    """

    names: Sequence[str] = PANEL
    probabilities: tuple[float, ...] | dict[str, tuple[float, ...]] | None = None
    missing: dict[str, str] = field(default_factory=dict)
    segmentations: tuple[Segmentation, ...] = ()
    between_seconds: float = 0.0
    load_failure: Exception | None = None
    load_seconds: float = 0.0
    panels: dict[str, FakePanel] = field(default_factory=dict)

    async def load(self, task: Task) -> FakePanel:
        self.calls.append(f"load {task.name}")
        await asyncio.sleep(self.load_seconds)
        if self.load_failure is not None:
            raise self.load_failure
        self.panels[task.name] = FakePanel(
            task.name,
            tuple(_loaded(name) for name in self.names if name not in self.missing),
            tuple(MissingSpecialist(name, reason) for name, reason in self.missing.items()),
        )
        return self.panels[task.name]

    def loaded(self) -> tuple[FakePanel, ...]:
        return tuple(self.panels.values())

    async def consult(self, pixels: Pixels, task: Task, hear: Hear = unheard) -> Consultation:
        await self._act((pixels, task))
        answering = [name for name in self.names if name not in self.missing]
        predictions = tuple(self._prediction(name, task) for name in answering)
        for prediction in predictions:
            hear(prediction)
            await asyncio.sleep(self.between_seconds)
        return Consultation(
            task.name,
            predictions,
            tuple(Embedding(name, _weights(name), _embed(name, pixels)) for name in answering),
            tuple(MissingSpecialist(name, reason) for name, reason in self.missing.items()),
            self.segmentations,
        )

    async def explain(
        self, pixels: Pixels, task: Task, specialist: str, label: str | None = None
    ) -> Explanation:
        """Heat in the upper left corner, for the last label unless told otherwise."""
        await self._act((pixels, task, specialist, label))
        if specialist in self.missing:
            raise SpecialistUnavailable(f"specialist {specialist!r}: {self.missing[specialist]}")
        if specialist not in self.names:
            raise UnknownBackbone(f"no specialist {specialist!r}")
        if label not in {None, *task.label_names}:
            raise UnknownLabel(f"no label {label!r}")
        grid = np.zeros((2, 3), np.float32)
        grid[0, 0] = 1
        chosen = label or task.label_names[-1]
        return Explanation(specialist, _weights(specialist), chosen, 0.8, "layer4", grid)

    def _prediction(self, name: str, task: Task) -> SpecialistPrediction:
        scripted = self.probabilities
        if isinstance(scripted, dict):
            scripted = scripted.get(name)
        return SpecialistPrediction(
            name, scripted or favouring_last(task), _weights(name), 0.9, "float32"
        )


@dataclass
class FakeRetriever(FakePart):
    """Always the same neighbours, but never those of the case's own group.

    Cases that are put are in `held`, and nowhere else.
    """

    neighbours: tuple[Neighbour, ...] = field(default_factory=lambda: (a_neighbour(),))
    held: dict[str, ReferenceCase] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    async def put(
        self, case: ReferenceCase, queries: tuple[Query, ...], picture: bytes, then: Then
    ) -> str:
        await self._act((case, queries, picture, then))
        self.held[case.id] = case
        return case.id

    async def remove(self, case_id: str, then: Then) -> bool:
        await self._act((case_id, then))
        return self.held.pop(case_id, None) is not None

    async def search(
        self, task: str, queries: tuple[Query, ...], *, group: str | None, image_sha256: str
    ) -> Retrieval:
        await self._act((task, queries, group, image_sha256))
        others = tuple(
            neighbour
            for neighbour in self.neighbours
            if neighbour.case.group != group and neighbour.case.image_sha256 != image_sha256
        )
        ids = tuple(f"{task}/{query.retriever}" for query in queries)
        return Retrieval(others, ids, typicality=0.5)

    async def unsearchable(
        self, task: str, encoders: Mapping[str, str]
    ) -> tuple[MissingRetriever, ...]:
        return tuple(
            MissingRetriever(one, self.broken[one]) for one in encoders if one in self.broken
        )


@dataclass
class FakeGeneralist(FakePart):
    """Answers from a script, in order; afterwards, or without one, its first choice is likeliest.

    `asked` holds the prompts. `failure` also fails the check.
    """

    script: list[Completion] = field(default_factory=list)
    identity: GeneralistIdentity = field(default_factory=an_identity)

    async def answer(self, prompt: Prompt) -> Completion:
        await self._act(prompt)
        if self.script:
            return self.script.pop(0)
        if not prompt.choices:
            return Completion(FREE_TEXT)
        return completion(prompt.choices, prompt.choices[0])

    async def stream(self, prompt: Prompt) -> AsyncGenerator[str, None]:
        text = (await self.answer(prompt)).text
        for word in text.split(" "):
            yield f"{word} "

    async def check(self) -> None:
        if self.failure is not None:
            raise self.failure


@dataclass
class FakeStore(FakePart):
    """Results in a dictionary."""

    saved: dict[str, Any] = field(default_factory=dict)

    async def save(self, result: Result) -> None:
        await self._act(result)
        self.saved[result.id] = result

    async def get(self, kind: type[Any], id: str) -> Any:
        await self._act(id)
        if not isinstance(self.saved.get(id), kind):
            raise NotFound(f"no {kind.__name__.lower()} {id!r}")
        return self.saved[id]

    async def check(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def recent(
        self, limit: int = 50, before: str | None = None, task: str | None = None
    ) -> tuple[Diagnosis, ...]:
        newest = [d for d in reversed(self.saved.values()) if task in {None, d.task}]
        if before is not None:
            newest = newest[newest.index(await self.get(Diagnosis, before)) + 1 :]
        return tuple(newest[:limit])


@dataclass
class FakeIntake(FakePart):
    """Takes any bytes for a picture; the same bytes are the same picture."""

    group: str | None = None
    notes: tuple[str, ...] = ()
    modality: str | None = None
    instance: Instance | None = None
    header: dict[str, Any] | None = None

    async def decode(self, data: bytes, *, frame: int | None = None) -> IntakeResult:
        await self._act((len(data), frame))
        digest = hashlib.sha256(data).hexdigest()
        pixels = a_picture(seed=int(digest[:8], 16))
        image = an_image(pixels, sha256=digest, notes=self.notes)
        said = some_attributes(modality=self.modality)
        return IntakeResult(image, self.group, said, self.instance, self.header)

    async def identify(self, data: bytes) -> DicomReferences | None:
        return None


def completion(choices: Sequence[str], chosen: str, probability: float = 0.9) -> Completion:
    """An answer that gives one choice this probability, and the others equal parts of the rest."""
    rest = (1 - probability) / max(1, len(choices) - 1)
    return Completion(chosen, tuple(probability if c == chosen else rest for c in choices))


def favouring_last(task: Task) -> tuple[float, ...]:
    """Probability 0.8 for the last label, equal parts of the rest for the others."""
    return completion(task.label_names, task.label_names[-1], 0.8).probabilities


def _loaded(name: str) -> FakeLoadedSpecialist:
    return FakeLoadedSpecialist(name, "nano", _weights(name), {"accuracy": 0.9})


def _weights(specialist: str) -> str:
    return sha256_of(f"weights of {specialist}")


def _embed(specialist: str, pixels: Pixels) -> Vector:
    seed = hashlib.sha256(specialist.encode() + pixels.tobytes()).digest()[:8]
    vector = np.random.default_rng(list(seed)).normal(size=8).astype(np.float32)
    return vector / np.linalg.norm(vector)
