"""Jobs on the wire, and what a request may say of the job that it becomes."""

from datetime import datetime
from typing import Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from service.api import examples, problems
from service.jobs.job import Job, Priority, Problem, State
from service.jobs.webhooks import LONGEST_URL

PriorityName = Literal["low", "medium", "high"]


class JobRequest(BaseModel):
    """What a request may say of the job that it becomes with `Prefer: respond-async`."""

    model_config = ConfigDict(extra="forbid")

    webhook: str | None = Field(
        None,
        max_length=LONGEST_URL,
        description="of a job: where its end is told, by a signed POST (Standard Webhooks); only "
        "addresses that the operator allows",
    )
    priority: PriorityName | None = Field(
        None, description="of a job: a higher one always goes first; medium unless said"
    )


class JobProblem(BaseModel):
    """Why a job failed, or why its last attempt did."""

    type: str
    title: str
    detail: str


class JobResponse(BaseModel):
    """A case that is answered later; its result has the same id."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.JOB]})

    id: str
    status: State
    kind: str = Field(description="what it makes: diagnosis, report or answer")
    task: str
    priority: PriorityName
    submitted_at: datetime
    started_at: datetime | None = Field(description="of the last attempt")
    ended_at: datetime | None
    attempts: int
    result: str | None = Field(description="the address of what was made, once it is")
    problem: JobProblem | None


def priority_of(name: PriorityName | None) -> Priority:
    return Priority[name.upper()] if name else Priority.MEDIUM


def job_response(request: Request, job: Job) -> JobResponse:
    """A job on the wire."""
    is_made = job.state is State.SUCCEEDED
    return JobResponse(
        id=job.id,
        status=job.state,
        kind=job.name,
        task=job.work.argument["task"],
        priority=_name(job.work.priority),
        submitted_at=job.created_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
        attempts=job.attempts,
        result=request.url_for(f"get_{job.name}", id=job.id).path if is_made else None,
        problem=_problem(job.problem) if job.problem else None,
    )


def _name(priority: Priority) -> PriorityName:
    names: dict[Priority, PriorityName] = {
        Priority.LOW: "low",
        Priority.MEDIUM: "medium",
        Priority.HIGH: "high",
    }
    return names[priority]


def _problem(problem: Problem) -> JobProblem:
    kind = problems.kind_named(problem.error)
    detail = problem.detail or "An unexpected error; the log explains it under the job's id."
    return JobProblem(type=kind.type, title=kind.title, detail=detail)
