"""What can be asked and who answers: tasks and their specialists."""

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from service.api import examples, problems
from service.api.access import needs
from service.api.dependencies import KnownOptions, LoadedPanel, LoadedSpecialist, ServingDep
from service.api.schemas import TaskResponse, TasksResponse, task_response
from service.api.shapes import Sha256
from service.errors import NotFound
from service.identity.caller import Scope
from specialists.errors import InvalidSpecialist

LONGEST_CARD = 20_000

router = APIRouter(prefix="/v1", dependencies=[needs(Scope.READ), KnownOptions])


class SpecialistResponse(BaseModel):
    specialist: str
    scale: str
    weights_sha256: Sha256
    validation: dict[str, float | None]
    refused: str | None = Field(
        None, description="why the newer one in its folder does not take its place"
    )


class MissingSpecialistResponse(BaseModel):
    specialist: str
    reason: str


class PanelResponse(BaseModel):
    """The specialists of a task: those that answer, and those that should and cannot."""

    task: str
    loading: bool
    in_memory: bool = Field(description="if not, they are read when the task is asked")
    specialists: list[SpecialistResponse]
    missing: list[MissingSpecialistResponse]


class SpecialistsResponse(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.SPECIALISTS]})

    tasks: list[PanelResponse]


class SpecialistDetailResponse(BaseModel):
    """What a specialist's manifest says, and its card for people."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SPECIALIST]})

    task: str
    specialist: str
    kind: str
    labels: list[str]
    scale: str
    parameters: int
    embedding_dimension: int
    preprocessing: str
    input_size: int
    recipe: dict[str, Any] = Field(description="how it was trained")
    data_fingerprint: str = Field(description="of the data that it was trained on")
    validation: dict[str, float | None]
    temperature: float = Field(description="of its calibrated probabilities")
    licence: str
    weights_sha256: Sha256
    card: str = Field(description="Markdown, as text")


@router.get(
    "/tasks", tags=["tasks"], summary="List the tasks", responses=problems.responses(422, 500)
)
async def list_tasks(serving: ServingDep) -> TasksResponse:
    """What can be asked of an image, with the labels that may answer."""
    tasks = await serving.tasks.all()
    return TasksResponse(tasks=[task_response(task) for task in tasks.values()])


@router.get(
    "/tasks/{name}",
    tags=["tasks"],
    summary="Read a task",
    responses=problems.responses(404, 422, 500),
)
async def get_task(name: str, serving: ServingDep) -> TaskResponse:
    """One task with its labels in order."""
    tasks = await serving.tasks.all()
    if name not in tasks:
        raise NotFound(f"no task {name[:64]!r}")
    return task_response(tasks[name])


@router.get(
    "/specialists",
    tags=["specialists"],
    summary="List the specialists of every task",
    responses=problems.responses(422, 500),
)
async def list_specialists(serving: ServingDep) -> SpecialistsResponse:
    """Who answers for each task with labels, and who is missing and why.

    Specialists that are added, replaced or removed in the home folder show here within seconds.
    """
    tasks = await serving.tasks.all()
    panels, loading = serving.panels(), serving.tasks.loading
    names = [task.name for task in tasks.values() if task.is_labelled]
    return SpecialistsResponse(
        tasks=[_panel(name, name in loading, panels.get(name)) for name in names]
    )


@router.get(
    "/specialists/{task}/{backbone}",
    tags=["specialists"],
    summary="Read a specialist's card",
    responses=problems.responses(404, 422, 500),
)
async def get_specialist(task: str, backbone: str, serving: ServingDep) -> SpecialistDetailResponse:
    """As its folder says it now."""
    # Compared with what there is, never joined to a path before: a name cannot lead elsewhere.
    panel = serving.panels().get(task)
    if panel is None or backbone not in {one.name for one in panel.specialists}:
        raise NotFound(f"no specialist {backbone[:64]!r} answers for task {task[:64]!r}")
    folder = serving.settings.specialists_folder / panel.task / backbone
    return await asyncio.to_thread(_detail, folder)


def _detail(folder: Path) -> SpecialistDetailResponse:
    from specialists import loader  # torch is slow to import

    try:
        manifest = loader.read_manifest(folder)
        card = (folder / loader.CARD).read_text("utf-8", errors="replace")
    except (InvalidSpecialist, FileNotFoundError):
        raise NotFound(f"the folder of specialist {folder.name!r} is incomplete") from None
    return SpecialistDetailResponse(
        task=manifest.task,
        specialist=manifest.backbone,
        kind=manifest.kind,
        labels=list(manifest.labels),
        scale=manifest.scale,
        parameters=manifest.parameters,
        embedding_dimension=manifest.embedding_dimension,
        preprocessing=manifest.preprocessing.version,
        input_size=manifest.preprocessing.input_size,
        recipe=dict(manifest.recipe),
        data_fingerprint=manifest.data_fingerprint,
        validation=dict(manifest.validation),
        temperature=manifest.temperature,
        licence=manifest.licence,
        weights_sha256=manifest.weights_sha256,
        card=card[:LONGEST_CARD],
    )


def _panel(task: str, loading: bool, panel: LoadedPanel | None) -> PanelResponse:
    return PanelResponse(
        task=task,
        loading=loading,
        in_memory=panel is not None and panel.in_memory,
        specialists=[_specialist(specialist) for specialist in panel.specialists] if panel else [],
        missing=[
            MissingSpecialistResponse(specialist=missing.specialist, reason=missing.reason)
            for missing in (panel.missing if panel else ())
        ],
    )


def _specialist(specialist: LoadedSpecialist) -> SpecialistResponse:
    return SpecialistResponse(
        specialist=specialist.name,
        scale=specialist.scale,
        weights_sha256=specialist.weights_sha256,
        validation=dict(specialist.validation),
        refused=specialist.refused,
    )
