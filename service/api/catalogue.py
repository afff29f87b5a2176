"""What can be asked and who answers: tasks and their specialists."""

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from service.api import examples, problems
from service.api.access import needs
from service.api.dependencies import KnownOptions, LoadedPanel, LoadedSpecialist, ServingDep
from service.api.schemas import TaskResponse, TasksResponse, task_response
from service.api.shapes import Sha256
from service.errors import NotFound
from service.identity.caller import Scope

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
