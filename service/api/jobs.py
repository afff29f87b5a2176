"""Jobs: how they stand, their stages as they happen, and their end before its time."""

import time
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from service.api import events, problems, replies
from service.api.access import needs
from service.api.answers import read_answer
from service.api.dependencies import KnownOptions, Serving, ServingDep
from service.api.diagnoses import ID, read_diagnosis
from service.api.events import EVENT_STREAM
from service.api.reports import read_report
from service.api.schemas_jobs import JobResponse, job_response
from service.errors import NotFound
from service.identity.caller import Scope
from service.jobs.job import Job, State
from service.jobs.stages import END, Listener, Stage
from specialists.task import Task

LOOK_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 15.0
_READ = {"diagnosis": read_diagnosis, "report": read_report, "answer": read_answer}

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], dependencies=[KnownOptions])


@router.get(
    "/{id}",
    summary="Read how a job stands",
    response_model=JobResponse,
    dependencies=[needs(Scope.READ)],
    responses={
        200: {
            "headers": {"Retry-After": {"schema": {"type": "integer"}}},
            "content": {
                EVENT_STREAM: {
                    "schema": {
                        "type": "string",
                        "description": "With this Accept header: an event `status` with the job "
                        "whenever it changed, the stages as they end where this process works on "
                        "it, and `final` with the result, once the job has succeeded.",
                    }
                }
            },
        },
        **problems.responses(404, 422, 500, 503),
    },
)
async def get_job(
    id: str, request: Request, response: Response, serving: ServingDep
) -> JobResponse | StreamingResponse:
    """`Retry-After` says when to look again; there is none once the job has ended."""
    job = await serving.jobs.find(_checked(id))
    if events.wanted(request):
        serving.listening.check()
        return StreamingResponse(_events(request, serving, job), 200, events.HEADERS, EVENT_STREAM)
    if not job.state.has_ended:
        response.headers["Retry-After"] = str(serving.settings.retry_after_seconds)
    return job_response(request, job)


@router.delete(
    "/{id}",
    summary="Cancel a job",
    dependencies=[needs(Scope.SUBMIT)],
    responses=problems.responses(404, 409, 422, 500, 503),
)
async def cancel_job(id: str, request: Request, serving: ServingDep) -> JobResponse:
    """It ends at once, waiting or running, and nothing is stored of it; too late is 409."""
    return job_response(request, await serving.jobs.cancel(_checked(id)))


def _checked(id: str) -> str:
    if not ID.fullmatch(id):
        raise NotFound(f"no job {id[:64]!r}")
    return id


async def _events(request: Request, serving: Serving, job: Job) -> AsyncIterator[str]:
    """Ends when the job has, with `final` where it has succeeded; or with `problem`."""
    try:
        with serving.listening.enter():
            async for event in _course(request, serving, job):
                yield event
    except Exception as error:  # noqa: BLE001 - the stream has begun: all that fails is told in it
        yield events.event("problem", problems.told_in_stream(request, error))


async def _course(request: Request, serving: Serving, job: Job) -> AsyncIterator[str]:
    listener, task = Listener(serving.jobs.stages, job.id), await _evidence_task(serving, job)
    yield _status(request, job)
    looked = spoken = time.monotonic()
    while not job.state.has_ended:
        await listener.wait(LOOK_SECONDS)
        news = listener.news()
        for event in _told(news, task):
            spoken = time.monotonic()
            yield event
        if END in news or time.monotonic() - looked >= LOOK_SECONDS:
            before, job = job, await serving.jobs.find(job.id)
            looked = time.monotonic()
            if job != before:
                yield _status(request, job)
        if time.monotonic() - spoken >= KEEP_ALIVE_SECONDS:
            spoken = time.monotonic()
            yield events.KEEP_ALIVE
    if job.state is State.SUCCEEDED:
        made = await _READ[job.name](request, serving, job.id)
        yield events.event("final", made.model_dump(mode="json"))


def _told(news: list[Stage], task: Task | None) -> list[str]:
    """Stages on the wire; none of a task that is gone, whose labels nobody knows."""
    if task is None:
        return []
    return [
        events.event(stage, events.told(task, stage, value))
        for stage, value in news
        if (stage, value) != END
    ]


def _status(request: Request, job: Job) -> str:
    return events.event("status", job_response(request, job).model_dump(mode="json"))


async def _evidence_task(serving: Serving, job: Job) -> Task | None:
    task = await replies.known(serving, job.work.argument["task"])
    return task and (await replies.known(serving, task.consults) or task)
