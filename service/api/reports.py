"""Draft reports: written from one image, and read again by their id."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from service.api import problems, replies
from service.api.access import needs
from service.api.asking import REPLIES, Preferences
from service.api.consulting import Sent, reply_consulting
from service.api.dependencies import KnownOptions, Serving, ServingDep
from service.api.diagnoses import ID
from service.api.referenced import BY_REFERENCE, ImageRoute
from service.api.schemas_text import ReportRequest, ReportResponse, report_response
from service.domain import Report
from service.errors import NotFound
from service.identity.caller import Scope

router = APIRouter(
    prefix="/v1/reports",
    tags=["reports"],
    dependencies=[KnownOptions],
    route_class=ImageRoute,
)


@router.post(
    "",
    status_code=201,
    summary="Draft a report",
    response_model=ReportResponse,
    dependencies=[needs(Scope.SUBMIT), Depends(replies.multipart_only), Preferences],
    openapi_extra=dict(BY_REFERENCE),
    responses=REPLIES,
)
async def create_report(
    request: Request,
    response: Response,
    form: Annotated[ReportRequest, Form(media_type="multipart/form-data")],
    serving: ServingDep,
) -> ReportResponse | Response:
    """Findings and Impression, written with the evidence of the task that is consulted.

    Reports of similar cases and a draft that is passed in are evidence and are quoted: what they
    say is weighed, never obeyed. Stored before this replies.
    """
    await replies.refuse_repeated_fields(request)
    sent = Sent(request, response, serving, router.prefix, form)
    return await reply_consulting(sent, "report", report_response, draft=form.draft.strip())


@router.get(
    "/{id}",
    summary="Read a report",
    dependencies=[needs(Scope.READ)],
    responses=problems.responses(404, 422, 500, 503),
)
async def get_report(id: str, request: Request, serving: ServingDep) -> ReportResponse:
    """The report as it was drafted."""
    if not ID.fullmatch(id):
        raise NotFound(f"no report {id[:64]!r}")
    return await read_report(request, serving, id)


async def read_report(request: Request, serving: Serving, id: str) -> ReportResponse:
    """A stored report on the wire; raises NotFound."""
    report = await replies.read(request, serving, Report, id)
    return report_response(report, await replies.known(serving, report.consulted))
