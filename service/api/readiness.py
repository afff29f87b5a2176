"""How each part of the service is, and why; the generalist as its probe last heard."""

import asyncio
import base64
from collections.abc import Awaitable
from contextlib import suppress
from enum import StrEnum

import structlog
from pydantic import BaseModel

from service.api.dependencies import Intake, LoadedPanel, Serving
from service.errors import GscoError, Overloaded
from specialists.catalogue import panel_of
from specialists.task import Task

CHECK_SECONDS = 5.0  # a probe's patience is as long
_GREY_PNG = base64.b64decode(  # 16 × 16 pixels, the least that intake takes
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAAEUlEQVR42mNsYEAFTAwjWgAAmZAAoFDIQrAAAAAA"
    "SUVORK5CYII="
)

log = structlog.stdlib.get_logger(__name__)


class Status(StrEnum):
    READY = "ready"
    DEGRADED = "degraded"
    UNREADY = "unready"


class PartResponse(BaseModel):
    part: str
    status: Status
    reason: str | None = None


async def check_all(serving: Serving) -> list[PartResponse]:
    """Every part by itself, each within CHECK_SECONDS."""
    parts = serving.parts
    tasks = await serving.tasks.all()
    checked = await asyncio.gather(
        _checked("database", parts.store.check()),
        _checked("generalist", serving.generalist.check()),
        _checked("intake", _decode(parts.intake)),
        _jobs(serving),
        *(_retrieval(serving, task) for task in tasks.values() if task.is_labelled and task.rad),
    )
    return [*checked, *_panels(serving, tasks), *_files(serving, tasks)]


async def _checked(part: str, check: Awaitable[None]) -> PartResponse:
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


async def _decode(intake: Intake) -> None:
    """A decode from end to end; an intake that is busy is not broken."""
    with suppress(Overloaded):
        await intake.decode(_GREY_PNG)


async def _jobs(serving: Serving) -> PartResponse:
    """Without jobs cases are still answered at once."""
    return _at_worst_degraded(await _checked("jobs", serving.office.check()))


async def _retrieval(serving: Serving, task: Task) -> PartResponse:
    """Which specialists' indexes can be searched; without them answers are degraded."""
    panel = serving.panels().get(task.name)
    members = panel_of(task)
    encoders = {
        one.name: one.weights_sha256
        for one in (panel.specialists if panel else ())
        if one.name in members  # those that outline have no embeddings
    }

    async def look() -> None:
        if not encoders:
            raise Overloaded("no specialist whose index could be searched")
        missing = await serving.parts.retriever.unsearchable(task.name, encoders)
        if missing:
            searched = f"{len(encoders) - len(missing)} of {len(encoders)} indexes can be searched"
            first = missing[0]
            raise Overloaded(f"{searched}; {first.retriever}: {first.reason}")

    return _at_worst_degraded(await _checked(f"retrieval for {task.name}", look()))


def _at_worst_degraded(part: PartResponse) -> PartResponse:
    if part.status is Status.UNREADY:
        return part.model_copy(update={"status": Status.DEGRADED})
    return part


def _panels(serving: Serving, tasks: dict[str, Task]) -> list[PartResponse]:
    panels, loading = serving.panels(), serving.tasks.loading
    # Unready only until there is any panel: a task added later must not take the others down.
    while_loading = Status.DEGRADED if panels else Status.UNREADY
    names = [task.name for task in tasks.values() if task.is_labelled]  # others consult these
    return [
        PartResponse(part=f"specialists of {name}", status=while_loading, reason="being loaded")
        if name in loading
        else _panel(name, panels.get(name))
        for name in names
    ]


def _files(serving: Serving, tasks: dict[str, Task]) -> list[PartResponse]:
    broken = [
        PartResponse(part=f"task file {file}", status=Status.DEGRADED, reason=reason)
        for file, reason in serving.tasks.broken.items()
    ]
    if not tasks:
        broken.append(PartResponse(part="tasks", status=Status.DEGRADED, reason="there are none"))
    return broken


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
