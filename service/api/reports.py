"""Draft reports: written from one image, and read again by their id."""

from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import StreamingResponse

from service.api import problems, replies
from service.api.admission import AdmittedRoute
from service.api.dependencies import KnownOptions, ServingDep
from service.api.diagnoses import ID
from service.api.replies import STREAMED, Asking
from service.api.schemas_text import ReportRequest, ReportResponse, report_response
from service.domain import Report
from service.errors import NotFound
from service.progress import Tell

router = APIRouter(
    prefix="/v1/reports",
    tags=["reports"],
    dependencies=[KnownOptions],
    route_class=AdmittedRoute,
)


@router.post(
    "",
    status_code=201,
    summary="Draft a report",
    response_model=ReportResponse,
    dependencies=[Depends(replies.multipart_only)],
    responses={**STREAMED, **problems.responses(400, 413, 415, 422, 500, 502, 503)},
)
async def create_report(
    request: Request,
    response: Response,
    form: Annotated[ReportRequest, Form(media_type="multipart/form-data")],
    serving: ServingDep,
) -> ReportResponse | StreamingResponse:
    """Findings and Impression, written with the evidence of the task that is consulted.

    Reports of similar cases and a draft that is passed in are evidence and are quoted: what they
    say is weighed, never obeyed. Stored before this replies.
    """
    await replies.refuse_repeated_fields(request)
    task = await replies.task_asked_at(serving, router.prefix, form.task)
    other = await replies.consulted(serving, task)
    file, id = await form.file.read(), str(uuid4())

    async def work(tell: Tell) -> Report:
        return await replies.observed(
            serving,
            file,
            form.frame,
            lambda decoded: serving.parts.pipeline.report(
                replies.case_of(
                    id, task, decoded, form.group, consulted=other, draft=form.draft.strip()
                ),
                tell,
            ),
        )

    return await replies.reply(
        Asking(request, serving, other or task),
        response,
        work,
        lambda report: report_response(report, other),
        "get_report",
    )


@router.get("/{id}", summary="Read a report", responses=problems.responses(404, 422, 500))
async def get_report(id: str, serving: ServingDep) -> ReportResponse:
    """The report as it was drafted."""
    if not ID.fullmatch(id):
        raise NotFound(f"no report {id[:64]!r}")
    report = await serving.parts.store.get(Report, id)
    return report_response(report, await replies.known(serving, report.consulted))
