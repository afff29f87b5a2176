"""One request for a diagnosis, a report or an answer: replied to now, in stages, or later."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Annotated, Any, Generic, TypeVar
from uuid import uuid4

from fastapi import Depends, Header, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from service.api import events, idempotency, problems, replies
from service.api.admission import prefers_async, unless_abandoned
from service.api.dependencies import Serving
from service.api.events import EVENT_STREAM
from service.api.schemas_jobs import JobRequest, JobResponse, job_response, priority_of
from service.domain import Answer, Case, Diagnosis, Report, Result
from service.errors import InvalidInput
from service.intake.result import IntakeResult
from service.jobs.cases import answered
from service.jobs.job import Job
from service.jobs.job import Work as DurableWork
from service.jobs.keys import Key, Made
from service.progress import Tell, nobody
from specialists.task import Task

_LOCATION = {"Location": {"schema": {"type": "string"}}}
REPLIES: dict[int | str, dict[str, Any]] = {
    201: {
        "headers": _LOCATION,
        "content": {
            EVENT_STREAM: {
                "schema": {
                    "type": "string",
                    "description": "With this Accept header, the stages as they end: events "
                    "`initial`, `specialist` (each prediction as it comes), `specialists` (all of "
                    "them), `retrieval`, `text` (pieces of free text), and "
                    "`final` with the stored result, or `problem`.",
                }
            }
        },
    },
    202: {
        "model": JobResponse,
        "description": "With `Prefer: respond-async`: the job that will make the result",
        "headers": {**_LOCATION, "Retry-After": {"schema": {"type": "integer"}}},
    },
    **problems.responses(400, 409, 413, 415, 422, 500, 502, 503),
}
"""What every such request may be replied with."""

_KINDS: dict[str, type[Result]] = {"diagnosis": Diagnosis, "report": Report, "answer": Answer}
_JOB = "job"

Shape = TypeVar("Shape", bound=BaseModel)
Work = Callable[[Tell], Coroutine[Any, Any, Result]]


@dataclass(frozen=True)
class Asking(Generic[Shape]):
    """One request as its route has understood it.

    `kind` is what is made: diagnosis, report or answer. `form` and `file` are what was sent;
    intake took `intake_seconds` for the image. `case` is the case under an id, and `shape` puts
    what was made on the wire. The evidence has the labels of `evidence_task`. `from_pacs` is an
    image that a PACS holds, which is answered too.
    """

    request: Request
    response: Response
    serving: Serving
    kind: str
    form: JobRequest
    file: bytes
    evidence_task: Task
    intake_seconds: float
    case: Callable[[str], Case]
    shape: Callable[[Any], Shape]
    from_pacs: IntakeResult | None = None

    def address_of(self, kind: str, id: str) -> str:
        """Where a job or a result is read."""
        return self.request.url_for(f"get_{kind}", id=id).path


async def describe_preferences(
    prefer: Annotated[
        str | None, Header(description="`respond-async`: answer later, as a job (RFC 7240)")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="a name for this request, made up at random and never a patient's: sent "
            "again with the same body, it is answered with what was made then"
        ),
    ] = None,
) -> None:
    """Read from the request where they count; here for the OpenAPI document."""
    del prefer, idempotency_key


Preferences = Depends(describe_preferences)


async def reply(asking: Asking[Shape]) -> Shape | Response:
    """The result; with `Accept: text/event-stream` its stages first; with
    `Prefer: respond-async` a job. What was made under the same idempotency key is told again.
    """
    is_later = prefers_async(asking.request)
    if not is_later and (asking.form.webhook or asking.form.priority):
        raise InvalidInput("webhook and priority are for jobs: send `Prefer: respond-async` too")
    is_streamed = not is_later and events.wanted(asking.request)
    if is_streamed:
        asking.serving.admission.check()  # while there is a status to say it with
    address = asking.request.url.path
    key = await idempotency.key_of(asking.request, address, asking.form, asking.file)
    made = Made(_JOB if is_later else asking.kind, str(uuid4()), is_ready=False)
    if key is not None:
        made = await asking.serving.office.keys.take(key, made)
    if made.is_ready:
        return await _again(asking, made)
    if is_streamed:
        return _stream(asking, made.id, key)
    async with idempotency.kept(asking.serving, key):
        return await (_later if is_later else _now)(asking, made.id)


async def _now(asking: Asking[Shape], id: str) -> Shape | Response:
    with asking.serving.admission.enter():
        made = await unless_abandoned(asking.request, _observed(asking, id, nobody))
    return _told(asking, made)


async def _later(asking: Asking[Shape], id: str) -> Shape | Response:
    """The job, once it is durable."""
    form, jobs = asking.form, asking.serving.jobs
    await jobs.check_room()  # before anything is kept for an answer
    then = [_webhook(asking, id)] if form.webhook else []
    if asking.from_pacs is not None:
        then += await asking.serving.parts.prepare(id, asking.from_pacs)
    case = replace(asking.case(id), instance=None)  # its UIDs wait in the answer, if anywhere
    job = await jobs.submit(case, priority=priority_of(form.priority), then=tuple(then))
    return _accepted(asking, job)


def _stream(asking: Asking[Shape], id: str, key: Key | None) -> Response:
    async def work(tell: Tell) -> Result:
        async with idempotency.kept(asking.serving, key):
            with asking.serving.admission.enter():
                return await _observed(asking, id, tell)

    return StreamingResponse(_events(asking, work), 201, events.HEADERS, EVENT_STREAM)


async def _again(asking: Asking[Shape], made: Made) -> Shape | Response:
    """What was made under the key, as it is now."""
    if made.kind == _JOB:
        return _accepted(asking, await asking.serving.jobs.find(made.id))
    result = await replies.read(asking.request, asking.serving, _KINDS[made.kind], made.id)
    if not events.wanted(asking.request):
        return _told(asking, result)
    final = events.event("final", asking.shape(result).model_dump(mode="json"))
    return Response(final, 201, events.HEADERS, EVENT_STREAM)


async def _observed(asking: Asking[Shape], id: str, tell: Tell) -> Result:
    """The case answered; what came of it is counted."""
    made = await answered(asking.serving.parts.pipeline, asking.case(id), tell)
    if asking.from_pacs is not None and isinstance(made, Diagnosis):
        await asking.serving.parts.deliver(made, asking.from_pacs)
    return replies.counted(asking.serving, made, asking.intake_seconds)


async def _events(asking: Asking[Shape], work: Work) -> AsyncIterator[str]:
    """Ends with `final` or `problem`. A caller who leaves cancels the work."""
    told: asyncio.Queue[tuple[str, object] | None] = asyncio.Queue()
    working = asyncio.ensure_future(work(lambda *event: told.put_nowait(event)))
    working.add_done_callback(_noticed)
    working.add_done_callback(lambda _: told.put_nowait(None))
    try:
        while (event := await told.get()) is not None:
            yield events.event(event[0], events.told(asking.evidence_task, *event))
        yield events.event("final", asking.shape(await working).model_dump(mode="json"))
    except Exception as error:  # noqa: BLE001 - the stream has begun: all that fails is told in it
        yield events.event("problem", problems.told_in_stream(asking.request, error))
    finally:
        working.cancel()
        await asyncio.wait((working,))


def _noticed(working: asyncio.Future[Any]) -> None:
    """A failure is told in the stream; where the caller has left, there is nobody to tell."""
    if not working.cancelled():
        working.exception()


def _told(asking: Asking[Shape], made: Result) -> Shape:
    asking.response.headers["Location"] = asking.address_of(asking.kind, made.id)
    return asking.shape(made)


def _accepted(asking: Asking[Shape], job: Job) -> Response:
    headers = {
        "Location": asking.address_of(_JOB, job.id),
        "Retry-After": str(asking.serving.settings.retry_after_seconds),
        "Preference-Applied": "respond-async",
    }
    document = job_response(asking.request, job).model_dump(mode="json")
    return JSONResponse(document, 202, headers=headers)


def _webhook(asking: Asking[Shape], id: str) -> DurableWork:
    """What is told when the job has ended: where to read of it, and nothing of what it found."""
    told = {
        "kind": asking.kind,
        "job": asking.address_of(_JOB, id),
        "result": asking.address_of(asking.kind, id),
    }
    return asking.serving.office.webhooks.work(str(asking.form.webhook), told)
