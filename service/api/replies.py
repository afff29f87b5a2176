"""What the three ways of asking share: taking the case in, and replying at once or in stages."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from service.api import problems
from service.api.admission import unless_abandoned
from service.api.dependencies import Serving
from service.api.shapes import neighbour_shape, prediction_shape, probabilities_shape
from service.domain import Case, Completion, LabelledAnswer, Result
from service.errors import InvalidInput
from service.intake.result import IntakeResult
from service.progress import Tell, nobody
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
EVENT_STREAM = "text/event-stream"
STREAMED: dict[int | str, dict[str, Any]] = {
    201: {
        "headers": {"Location": {"schema": {"type": "string"}}},
        "content": {
            EVENT_STREAM: {
                "schema": {
                    "type": "string",
                    "description": "With this Accept header, the stages as they end: events "
                    "`initial`, `specialists`, `retrieval`, `text` (pieces of free text), and "
                    "`final` with the stored result, or `problem`.",
                }
            }
        },
    }
}

Made = TypeVar("Made", bound=Result)
Shape = TypeVar("Shape", bound=BaseModel)
Work = Callable[[Tell], Coroutine[Any, Any, Made]]


@dataclass(frozen=True)
class Asking:
    """One request: who serves it, and the task whose labels its evidence has."""

    request: Request
    serving: Serving
    evidence_task: Task


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


async def observed(
    serving: Serving,
    file: bytes,
    frame: int | None,
    make: Callable[[IntakeResult], Awaitable[Made]],
) -> Made:
    """The file decoded and given to `make`; what came of it is counted."""
    started = time.perf_counter()
    decoded = await serving.parts.intake.decode(file, frame=frame)
    intake_seconds = time.perf_counter() - started
    return counted(serving, await make(decoded), intake_seconds)


def counted(serving: Serving, made: Made, intake_seconds: float) -> Made:
    """A result, after it was added to the figures."""
    serving.metrics.observe_diagnosis(
        made.task,
        needs_review=made.needs_review,
        durations_seconds={"intake": intake_seconds, **made.durations_seconds},
        missing=tuple(missing.part for missing in made.degraded),
    )
    return made


async def reply(
    asking: Asking,
    response: Response,
    work: Work[Made],
    shape: Callable[[Made], Shape],
    route: str,
) -> Shape | StreamingResponse:
    """The result as JSON, or with `Accept: text/event-stream` the stages and then the result."""
    if EVENT_STREAM in asking.request.headers.get("accept", ""):
        asking.serving.admission.check()  # while there is a status to say it with
        events = _events(asking, work, shape)
        return StreamingResponse(events, 201, {"Cache-Control": "no-store"}, EVENT_STREAM)
    with asking.serving.admission.enter():
        made = await unless_abandoned(asking.request, work(nobody))
    response.headers["Location"] = asking.request.url_for(route, id=made.id).path
    return shape(made)


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


def multipart_only(request: Request) -> None:
    """A body of another kind is refused as such, not for the fields it seems to lack."""
    if not request.headers.get("content-type", "").startswith(FORMS):
        raise HTTPException(415, "The body must be multipart/form-data.")


async def _events(
    asking: Asking, work: Work[Made], shape: Callable[[Made], Shape]
) -> AsyncIterator[str]:
    """Ends with `final` or `problem`. A caller who leaves cancels the work."""
    told: asyncio.Queue[tuple[str, object] | None] = asyncio.Queue()
    working: asyncio.Future[Made] | None = None
    try:
        with asking.serving.admission.enter():
            working = asyncio.ensure_future(work(lambda *event: told.put_nowait(event)))
            working.add_done_callback(_noticed)
            working.add_done_callback(lambda _: told.put_nowait(None))
            while (event := await told.get()) is not None:
                yield _event(event[0], _told(asking.evidence_task, *event))
            yield _event("final", shape(await working).model_dump(mode="json"))
    except Exception as error:  # noqa: BLE001 - the stream has begun: all that fails is told in it
        yield _event("problem", problems.told_in_stream(asking.request, error))
    finally:
        if working is not None:
            working.cancel()
            await asyncio.wait((working,))


def _noticed(working: asyncio.Future[Any]) -> None:
    """A failure is told in the stream; where the caller has left, there is nobody to tell."""
    if not working.cancelled():
        working.exception()


def _event(name: str, document: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(document, ensure_ascii=False)}\n\n"


def _told(task: Task, stage: str, value: Any) -> Any:
    if stage == "specialists":
        return [prediction_shape(task.label_names, p, task).model_dump() for p in value]
    if stage == "retrieval":
        return [neighbour_shape(neighbour).model_dump() for neighbour in value]
    if isinstance(value, LabelledAnswer):
        shares = probabilities_shape(task.label_names, value.probabilities)
        return {"labels": value.labels, "probabilities": [one.model_dump() for one in shares]}
    return {"text": value.text if isinstance(value, Completion) else value}


def case_of(id: str, task: Task, decoded: IntakeResult, group: str | None, **more: Any) -> Case:
    """The case of a request; the caller's group wins over the one that intake found."""
    said = {"modality": said_by(decoded), "instance": decoded.instance, **more}
    return Case(id, task, decoded.image, group or decoded.group, **said)


def said_by(decoded: IntakeResult) -> str | None:
    """The modality that a DICOM file claims."""
    return decoded.attributes.modality if decoded.attributes else None
