"""Whether the service lives, whether it can diagnose, and its figures."""

import asyncio
import base64
from collections.abc import Awaitable
from contextlib import suppress
from enum import StrEnum

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import SQLAlchemyError

from service.api import examples, problems
from service.api.access import PUBLIC, needs
from service.api.dependencies import Intake, LoadedPanel, Serving, ServingDep
from service.errors import GscoError, Overloaded
from service.identity.caller import Scope
from service.telemetry import METRICS_MEDIA_TYPE

CHECK_SECONDS = 5.0
_GREY_PNG = base64.b64decode(  # 16 × 16 pixels, the least that intake takes
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAAEUlEQVR42mNsYEAFTAwjWgAAmZAAoFDIQrAAAAAA"
    "SUVORK5CYII="
)

log = structlog.stdlib.get_logger(__name__)
router = APIRouter(tags=["operations"])


class Status(StrEnum):
    READY = "ready"
    DEGRADED = "degraded"
    UNREADY = "unready"


class PartResponse(BaseModel):
    part: str
    status: Status
    reason: str | None = None


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
    parts = await _check_all(serving)
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
    with suppress(SQLAlchemyError):
        await serving.jobs.count()
    return Response(serving.metrics.render(), media_type=METRICS_MEDIA_TYPE)


async def _check_all(serving: Serving) -> list[PartResponse]:
    parts = serving.parts
    checked = await asyncio.gather(
        _check("database", parts.store.check()),
        _check("generalist", parts.generalist.check()),
        _check("intake", _decode(parts.intake)),
    )
    return [*checked, await _jobs(serving), *await _tasks(serving)]


async def _jobs(serving: Serving) -> PartResponse:
    """Without jobs cases are still answered at once."""
    part = await _check("jobs", serving.office.check())
    if part.status is Status.UNREADY:
        return part.model_copy(update={"status": Status.DEGRADED})
    return part


async def _decode(intake: Intake) -> None:
    """A decode from end to end; an intake that is busy is not broken."""
    with suppress(Overloaded):
        await intake.decode(_GREY_PNG)


async def _check(part: str, check: Awaitable[None]) -> PartResponse:
    """A part that does not answer in time is as good as down; foreign errors are not quoted."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check
    except GscoError as error:
        return PartResponse(part=part, status=Status.UNREADY, reason=str(error))
    except TimeoutError:
        reason = f"no answer within {CHECK_SECONDS:g} seconds"
        return PartResponse(part=part, status=Status.UNREADY, reason=reason)
    except Exception as error:  # whatever a part raises, the others are reported
        log.exception("check failed", part=part)
        return PartResponse(part=part, status=Status.UNREADY, reason=type(error).__name__)
    return PartResponse(part=part, status=Status.READY)


async def _tasks(serving: Serving) -> list[PartResponse]:
    tasks = await serving.tasks.all()
    names = [task.name for task in tasks.values() if task.is_labelled]  # others consult these
    panels, loading = serving.panels(), serving.tasks.loading
    broken = [
        PartResponse(part=f"task file {file}", status=Status.DEGRADED, reason=reason)
        for file, reason in serving.tasks.broken.items()
    ]
    if not tasks:
        broken.append(PartResponse(part="tasks", status=Status.DEGRADED, reason="there are none"))
    # Unready only until there is any panel: a task added later must not take the others down.
    while_loading = Status.DEGRADED if panels else Status.UNREADY
    shown = (
        PartResponse(part=f"specialists of {name}", status=while_loading, reason="being loaded")
        if name in loading
        else _panel(name, panels.get(name))
        for name in names
    )
    return [*shown, *broken]


def _panel(task: str, panel: LoadedPanel | None) -> PartResponse:
    part = f"specialists of {task}"
    if panel is None:
        return PartResponse(part=part, status=Status.DEGRADED, reason="none are loaded")
    if not panel.missing:
        return _complete(part, panel)
    total = len(panel.specialists) + len(panel.missing)
    names = ", ".join(missing.specialist for missing in panel.missing)
    reason = f"{len(panel.specialists)} of {total} answer; missing: {names}"
    return PartResponse(part=part, status=Status.DEGRADED, reason=reason)


def _complete(part: str, panel: LoadedPanel) -> PartResponse:
    """Everyone answers, perhaps with weights that somebody meant to replace."""
    refused = ", ".join(one.name for one in panel.specialists if one.refused)
    if not refused:
        return PartResponse(part=part, status=Status.READY)
    reason = f"what was put in place of these is refused: {refused}"
    return PartResponse(part=part, status=Status.DEGRADED, reason=reason)
