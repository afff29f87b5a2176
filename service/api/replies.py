"""What the ways of asking share: which task is meant, and what makes a case of a request."""

import time
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from service import spans
from service.api.access import caller_of
from service.api.dependencies import Serving
from service.audit.event import KINDS, Action, Event
from service.counting import count
from service.domain import Case, Result
from service.errors import InvalidInput
from service.intake.result import IntakeResult
from specialists.errors import UnknownTask
from specialists.task import Task, TaskKind

ADDRESSES = {
    TaskKind.SINGLE_LABEL: "/v1/diagnoses",
    TaskKind.MULTI_LABEL: "/v1/diagnoses",
    TaskKind.REPORT: "/v1/reports",
    TaskKind.QUESTION: "/v1/answers",
}
"""Where a task of each kind is asked."""

FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")  # the latter lacks the file

Made = TypeVar("Made", bound=Result)


async def task_asked_at(serving: Serving, address: str, name: str) -> Task:
    """A task by name; raises UnknownTask, and InvalidInput where its kind is asked elsewhere."""
    task = await serving.tasks.find(name)
    if ADDRESSES[task.kind] != address:
        raise InvalidInput(
            f"task {task.name!r} is a {task.kind} task: ask it at POST {ADDRESSES[task.kind]}"
        )
    return task


async def consulted(serving: Serving, task: Task) -> Task | None:
    """The task that a report or question task consults; raises UnknownTask where it is gone."""
    return await serving.tasks.find(task.consults) if task.consults else None


async def known(serving: Serving, name: str | None) -> Task | None:
    """A task as it is now, None where it no longer exists."""
    try:
        return await serving.tasks.find(name) if name else None
    except UnknownTask:
        return None


async def read(request: Request, serving: Serving, kind: type[Made], id: str) -> Made:
    """A stored result; that it was read is recorded before anybody sees it. Raises NotFound."""
    found = await serving.parts.store.get(kind, id)
    await record(request, serving, Action.READ, KINDS[kind], id)
    return found


async def record(
    request: Request, serving: Serving, action: Action, kind: str, id: str, **details: Any
) -> None:
    """Tells the audit what this request's caller did."""
    event = Event(
        action,
        caller_of(request).name,
        kind,
        id,
        request_id=request.state.request_id,
        details=details,
    )
    await serving.parts.trail.record(event)


async def decoded(
    serving: Serving, file: bytes, frame: int | None = None
) -> tuple[IntakeResult, float]:
    """What intake makes of a file, and the seconds it took; raises what intake raises."""
    started = time.perf_counter()
    with spans.span("intake"):
        result = await serving.parts.intake.decode(file, frame=frame)
    return result, time.perf_counter() - started


def counted(serving: Serving, made: Made, intake_seconds: float) -> Made:
    """A result, after it was added to the figures."""
    count(serving.metrics, made, intake=round(intake_seconds, 4))
    return made


async def refuse_repeated_fields(request: Request, *, except_for: str = "") -> None:
    """Two files or two tasks: one of them would be silently ignored."""
    names = [name for name, _ in (await request.form()).multi_items() if name != except_for]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise RequestValidationError(
            [
                {"type": "repeated", "loc": ("body", name), "msg": "was sent more than once"}
                for name in repeated
            ]
        )


async def multipart_only(request: Request) -> None:
    """A body of another kind is refused as such, not for the fields it seems to lack."""
    if not request.headers.get("content-type", "").startswith(FORMS):
        raise HTTPException(415, "The body must be multipart/form-data.")


def case_of(id: str, task: Task, decoded: IntakeResult, group: str | None, **more: Any) -> Case:
    """The case of a request; the caller's group wins over the one that intake found."""
    said = {"modality": said_by(decoded), "instance": decoded.instance, **more}
    return Case(id, task, decoded.image, group or decoded.group, **said)


def said_by(decoded: IntakeResult) -> str | None:
    """The modality that a DICOM file claims."""
    return decoded.attributes.modality if decoded.attributes else None
