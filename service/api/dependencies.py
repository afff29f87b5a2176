"""What the routes are given: the parts of the service, passed in by the composition root."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Protocol

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from retrieval.neighbour import MissingRetriever, Query, ReferenceCase
from retrieval.records import Then
from service import ports
from service.api.admission import Admission
from service.api.probe import Probe
from service.api.tasks import TaskFolder
from service.api.turns import Turns
from service.audit.event import Event
from service.domain import Diagnosis
from service.identity.gate import Gate, Keys
from service.identity.rates import Rates
from service.identity.sign_in import SignIn
from service.intake.deidentify import DicomReferences
from service.intake.result import IntakeResult
from service.intake.viewable import Frame
from service.jobs.cases import CaseJobs
from service.jobs.job import Work
from service.jobs.office import Office
from service.jobs.queue import Queue
from service.metrics import Metrics
from service.pacs.client import DicomwebClient
from service.pacs.outbox import Report
from service.pipeline import Pipeline
from service.review import Review, Reviewed, Wanted, WeekOfTask
from service.settings import Settings
from specialists.prediction import Explanation, MissingSpecialist, Pixels
from specialists.task import Task


class LoadedSpecialist(Protocol):
    """What is told of a specialist that answers."""

    @property
    def name(self) -> str: ...
    @property
    def scale(self) -> str: ...
    @property
    def weights_sha256(self) -> str: ...
    @property
    def validation(self) -> Mapping[str, float | None]: ...
    @property
    def refused(self) -> str | None: ...


class LoadedPanel(Protocol):
    """The specialists of one task, those that answer and those that cannot."""

    @property
    def task(self) -> str: ...
    @property
    def specialists(self) -> tuple[LoadedSpecialist, ...]: ...
    @property
    def missing(self) -> tuple[MissingSpecialist, ...]: ...
    @property
    def in_memory(self) -> bool: ...


class Panel(ports.Specialists, Protocol):
    """The specialists as a running service needs them."""

    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def load(self, task: Task) -> object: ...
    async def explain(
        self, pixels: Pixels, task: Task, specialist: str, label: str | None = None
    ) -> Explanation: ...
    def loaded(self) -> Sequence[LoadedPanel]: ...


class Intake(Protocol):
    """Bytes from outside → an image, in a process with limits."""

    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def decode(self, data: bytes, *, frame: int | None = None) -> IntakeResult: ...
    async def identify(self, data: bytes) -> DicomReferences | None: ...
    async def view(self, data: bytes, *, frame: int | None = None) -> Frame: ...


class Store(ports.Store, Protocol):
    """The database as the worklist, the reviews and the list of reference cases need it."""

    async def page(self, wanted: Wanted, limit: int, after: str | None) -> tuple[Reviewed, ...]: ...
    async def review(self, review: Review) -> None: ...
    async def reviews(self, diagnosis_id: str) -> tuple[Review, ...]: ...
    async def weeks(
        self, count: int, today: date, task: str | None, *, by_model: bool
    ) -> tuple[WeekOfTask, ...]: ...
    async def cases(
        self, task: str, limit: int, after: str | None
    ) -> tuple[ReferenceCase, ...]: ...
    async def thumbnail(self, case_id: str) -> bytes | None: ...


class Retriever(ports.Retriever, Protocol):
    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def put(
        self, case: ReferenceCase, queries: tuple[Query, ...], picture: bytes, then: Then
    ) -> str: ...
    async def remove(self, case_id: str, then: Then) -> bool: ...
    async def unsearchable(
        self, task: str, encoders: Mapping[str, str]
    ) -> tuple[MissingRetriever, ...]: ...


class Generalist(ports.Generalist, Protocol):
    async def start(self) -> None: ...
    async def close(self) -> None: ...


class Trail(Protocol):
    """The audit, for what no other change to the database goes with."""

    async def record(self, event: Event) -> None: ...


Deliver = Callable[[Diagnosis, IntakeResult], Awaitable[None]]
"""Takes over the diagnosis of an image that a PACS holds, to answer that PACS; durable when it
returns. The image's header names the patient: it is for the answer alone. The same diagnosis may
come again, when its image is sent again."""

Prepare = Callable[[str, IntakeResult], Awaitable[tuple[Work, ...]]]
"""The same for a diagnosis that a job will make, by its id: what is to follow the job."""


Arrived = Callable[[str], Awaitable[tuple[Report, ...]]]
"""The reports of a diagnosis that a PACS has; returns when all that were to be sent are there, and
raises DeliveryFailed where one was given up."""


async def nowhere(diagnosis: Diagnosis, received: IntakeResult) -> None:
    """Diagnoses stay where they are stored."""
    del diagnosis, received


async def nothing(result: str, received: IntakeResult) -> tuple[Work, ...]:
    """Nobody waits for an answer."""
    del result, received
    return ()


async def unsent(result: str) -> tuple[Report, ...]:
    """Nothing was to be sent."""
    del result
    return ()


@dataclass(frozen=True)
class Parts:
    """Everything that a service is made of. The pipeline works over the same four parts."""

    pipeline: Pipeline
    specialists: Panel
    retriever: Retriever
    generalist: Generalist
    store: Store
    intake: Intake
    queue: Queue
    keys: Keys
    trail: Trail
    deliver: Deliver = nowhere
    prepare: Prepare = nothing
    arrived: Arrived = unsent


@dataclass(frozen=True)
class Serving:
    """The parts, and what one application keeps about its requests."""

    settings: Settings
    parts: Parts
    tasks: TaskFolder
    admission: Admission
    receiving: Admission
    metrics: Metrics
    generalist: Probe
    office: Office
    listening: Admission
    gate: Gate
    rates: Rates
    sources: Mapping[str, DicomwebClient] = field(default_factory=dict)
    sign_in: SignIn | None = None
    turns: Turns = field(default_factory=Turns)
    """Of images that a PACS sends, each by the id of its diagnosis."""

    @property
    def jobs(self) -> CaseJobs:
        return self.office.jobs

    def panels(self) -> dict[str, LoadedPanel]:
        """The panels known so far, by task."""
        return {panel.task: panel for panel in self.parts.specialists.loaded()}


async def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


async def refuse_unknown_options(request: Request) -> None:
    """A query option that a route does not have is an error: it would be silently ignored."""
    route: APIRoute = request.scope["route"]
    known = {option.alias for option in route.dependant.query_params}
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        raise RequestValidationError(
            [{"type": "extra_forbidden", "loc": ("query", name), "msg": ""} for name in unknown]
        )


ServingDep = Annotated[Serving, Depends(_serving)]
KnownOptions = Depends(refuse_unknown_options)
