"""Whether the service lives, whether it can diagnose, and its figures."""

import asyncio
from contextlib import suppress

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import SQLAlchemyError

from service.api import examples, problems
from service.api.access import PUBLIC, needs
from service.api.dependencies import Serving, ServingDep
from service.api.readiness import CHECK_SECONDS, PartResponse, Status, check_all
from service.identity.caller import Scope
from service.metrics import METRICS_MEDIA_TYPE

READY_SHARE = {Status.READY: 1.0, Status.DEGRADED: 0.5, Status.UNREADY: 0.0}
"""How ready a part is, as a figure."""

router = APIRouter(tags=["operations"])


class ReadyResponse(BaseModel):
    """Ready, or degraded: it diagnoses, but something is missing and will be named."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.READINESS]})

    status: Status
    parts: list[PartResponse]


class LiveResponse(BaseModel):
    status: str = "alive"


@router.get("/livez", summary="Is the process alive?", dependencies=[PUBLIC])
async def live() -> LiveResponse:
    """Answers as long as the event loop turns; looks at no part."""
    return LiveResponse()


@router.get(
    "/readyz",
    summary="Can the service diagnose?",
    response_model=ReadyResponse,
    dependencies=[PUBLIC],
    responses=problems.responses(500, 503),
)
async def ready(request: Request, serving: ServingDep) -> ReadyResponse | Response:
    """Every part by itself; 503 with the same list where one prevents diagnoses."""
    parts = await check_all(serving)
    unready = [part.part for part in parts if part.status is Status.UNREADY]
    if unready:
        listed = [part.model_dump(mode="json") for part in parts]
        detail = f"Not ready: {', '.join(unready)}."
        return problems.respond(request, problems.NOT_READY, detail, parts=listed)
    all_ready = all(part.status is Status.READY for part in parts)
    return ReadyResponse(status=Status.READY if all_ready else Status.DEGRADED, parts=parts)


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    dependencies=[needs(Scope.METRICS)],
)
async def metrics(serving: ServingDep) -> Response:
    """The Prometheus text format; of jobs what is known, where the database does not answer."""
    parts, _ = await asyncio.gather(check_all(serving), _count_jobs(serving))
    serving.metrics.show_parts({part.part: READY_SHARE[part.status] for part in parts})
    return Response(serving.metrics.render(), media_type=METRICS_MEDIA_TYPE)


async def _count_jobs(serving: Serving) -> None:
    """A database that hangs must not take all other figures with it."""
    with suppress(SQLAlchemyError, TimeoutError):
        async with asyncio.timeout(CHECK_SECONDS):
            await serving.jobs.count()
