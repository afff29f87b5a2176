"""What `gsco evaluate` measured: the tables and plots in the home folder's `evaluations/`."""

import asyncio
from pathlib import Path

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api import examples, problems
from service.api.access import needs
from service.api.dependencies import KnownOptions, ServingDep
from service.errors import NotFound
from service.identity.caller import Scope

MOST_EVALUATIONS, MOST_FILES = 100, 50
MOST_BYTES = 8 * 2**20
MEDIA_TYPES = {
    ".md": "text/markdown; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
PATTERNS = ("table.md", "metrics.json", "plots/*.svg")
"""What is shown of a results folder: figures only, never the records of its cases."""
AS_A_FILE = {"Content-Security-Policy": "default-src 'none'; sandbox"}
"""A browser that opens a plot by itself runs nothing of it."""

router = APIRouter(
    prefix="/v1/evaluations", tags=["evaluations"], dependencies=[needs(Scope.READ), KnownOptions]
)


class EvaluationResponse(BaseModel):
    name: str
    files: list[str] = Field(description="at `/v1/evaluations/{name}/{file}`")


class EvaluationsResponse(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.EVALUATIONS]})

    evaluations: list[EvaluationResponse]


@router.get("", summary="List the evaluations", responses=problems.responses(422, 500))
async def list_evaluations(serving: ServingDep) -> EvaluationsResponse:
    """The latest first."""
    found = await asyncio.to_thread(_evaluations, serving.settings.evaluations_folder)
    return EvaluationsResponse(
        evaluations=[
            EvaluationResponse(name=folder.name, files=list(files))
            for folder, files in found.items()
        ]
    )


@router.get(
    "/{name}/{file:path}",
    summary="Fetch a table or plot",
    response_class=Response,
    responses={
        200: {
            "content": {
                kind.split(";")[0]: {"schema": {"type": "string"}} for kind in MEDIA_TYPES.values()
            }
        },
        **problems.responses(404, 422, 500),
    },
)
async def get_evaluation_file(name: str, file: str, serving: ServingDep) -> Response:
    """The file as it lies in the home folder."""
    found = await asyncio.to_thread(_evaluations, serving.settings.evaluations_folder)
    # Compared with what there is, never joined to a path: a name cannot lead elsewhere.
    files = next((files for folder, files in found.items() if folder.name == name), {})
    if file not in files:
        raise NotFound(f"no file {file[:64]!r} of evaluation {name[:64]!r}")
    content = await asyncio.to_thread(files[file].read_bytes)
    kind = MEDIA_TYPES[files[file].suffix]
    return Response(content, media_type=kind, headers=AS_A_FILE)


def _evaluations(folder: Path) -> dict[Path, dict[str, Path]]:
    """Every results folder with what is shown of it, by name."""
    found = {one: _files(one) for one in folder.glob("*") if one.is_dir() and not one.is_symlink()}
    latest = sorted((one for one in found if found[one]), key=_changed, reverse=True)
    return {one: found[one] for one in latest[:MOST_EVALUATIONS]}


def _files(folder: Path) -> dict[str, Path]:
    paths = (path for pattern in PATTERNS for path in sorted(folder.glob(pattern)))
    plain = [path for path in paths if _is_plain(path, folder)]
    return {path.relative_to(folder).as_posix(): path for path in plain[:MOST_FILES]}


def _is_plain(path: Path, folder: Path) -> bool:
    """No links, nor below one: they may lead out of the folder."""
    links = path.is_symlink() or (path.parent != folder and path.parent.is_symlink())
    return path.is_file() and not links and path.stat().st_size <= MOST_BYTES


def _changed(folder: Path) -> float:
    return folder.stat().st_mtime
