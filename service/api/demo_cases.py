"""Example images of the home folder, for people who have none at hand: `examples/<task>/<file>`."""

import asyncio
from pathlib import Path

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from service.api import examples, problems
from service.api.access import needs
from service.api.dependencies import KnownOptions, ServingDep
from service.errors import NotFound
from service.identity.caller import Scope

MOST_EXAMPLES = 200
AS_A_FILE = {"Content-Disposition": "attachment", "Content-Security-Policy": "sandbox"}

router = APIRouter(
    prefix="/v1/examples", tags=["examples"], dependencies=[needs(Scope.READ), KnownOptions]
)


class ExampleResponse(BaseModel):
    task: str
    name: str


class ExamplesResponse(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.EXAMPLES]})

    examples: list[ExampleResponse]


@router.get("", summary="List the example images", responses=problems.responses(422, 500))
async def list_examples(serving: ServingDep) -> ExamplesResponse:
    """By task: phantoms in the home of `gsco demo`, elsewhere what the operator put there."""
    found = await asyncio.to_thread(_files, serving.settings.examples_folder)
    return ExamplesResponse(
        examples=[ExampleResponse(task=one.parent.name, name=one.name) for one in found]
    )


@router.get(
    "/{task}/{name}",
    summary="Fetch an example image",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string"}}}},
        **problems.responses(404, 422, 500),
    },
)
async def get_example(task: str, name: str, serving: ServingDep) -> Response:
    """The file as it lies in the home folder."""
    found = await asyncio.to_thread(_files, serving.settings.examples_folder)
    # Compared with what there is, never joined to a path: a name cannot lead elsewhere.
    wanted = next((one for one in found if (one.parent.name, one.name) == (task, name)), None)
    if wanted is None:
        raise NotFound(f"no example {name[:64]!r} of task {task[:64]!r}")
    data = await asyncio.to_thread(wanted.read_bytes)
    return Response(data, media_type="application/octet-stream", headers=AS_A_FILE)


def _files(folder: Path) -> list[Path]:
    found = (path for path in sorted(folder.glob("*/*")) if _is_plain(path))
    return list(found)[:MOST_EXAMPLES]


def _is_plain(path: Path) -> bool:
    """No links: they may lead out of the folder."""
    return path.is_file() and not path.is_symlink() and not path.name.startswith(".")
