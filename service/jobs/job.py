"""The words of durable work: what is to be done, how often it is tried, and how it stands."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any
from uuid import NAMESPACE_OID, uuid4, uuid5


class State(StrEnum):
    """Where a job stands; it ends once, in one of the last three."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        return self not in {State.QUEUED, State.RUNNING}


class Priority(IntEnum):
    """As in DICOM's unified worklist (PS3.3 C.30.1): a higher one always goes first."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2


@dataclass(frozen=True, slots=True)
class Retry:
    """How often work is tried, and the waits between: each twice the last, up to the longest.

    What is nobody's fault, such as a server that is away, is not counted and waited out for
    `patience_seconds` after the work was put into the queue.
    """

    attempts: int = 8
    first_seconds: float = 5.0
    longest_seconds: float = 3600.0
    patience_seconds: float = 24 * 3600.0

    def wait_seconds(self, failures: int) -> float:
        """The wait after so many failures, 1 or more."""
        doubled = self.first_seconds * 2.0 ** min(failures - 1, 30)
        return float(min(doubled, self.longest_seconds))


@dataclass(frozen=True, slots=True)
class Work:
    """Something to be done: `name` says by which handler, `argument` is its JSON.

    When it has ended, however it did, each of `then` is put into the queue, with how it ended
    added to its argument as `ended`. Only workers of `place` do it, where that is given: the
    spool that holds its `size_bytes` of image. `key` tells what follows the same work apart,
    where its number would not.
    """

    name: str
    argument: dict[str, Any]
    retry: Retry = Retry()
    priority: Priority = Priority.MEDIUM
    then: tuple["Work", ...] = ()
    place: str | None = None
    size_bytes: int = 0
    key: str = ""
    id: str = field(default_factory=lambda: str(uuid4()))

    def __post_init__(self) -> None:
        if any(follower.then for follower in self.then):
            raise ValueError("what follows work has no followers")

    def id_of_follower(self, number: int) -> str:
        """The id of what is done then: always the same, so that it is done once."""
        return id_of_follower(self.id, self.then[number].key or str(number))


def id_of_follower(id: str, key: str) -> str:
    """The id of what follows the work of an id, under a key that tells it from the rest."""
    return str(uuid5(NAMESPACE_OID, f"gsco:{id}:{key}"))


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the last attempt failed: the name of an error, and its sentence where it is ours."""

    error: str
    detail: str


@dataclass(frozen=True, slots=True)
class Job:
    """Work in the queue, as it stood when it was read.

    `owner` is the worker that runs it, in its `attempts`-th start.
    """

    work: Work
    state: State
    created_at: datetime
    due_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    owner: str | None = None
    attempts: int = 0
    failures: int = 0
    interruptions: int = 0
    problem: Problem | None = None

    @property
    def id(self) -> str:
        return self.work.id

    @property
    def name(self) -> str:
        return self.work.name
