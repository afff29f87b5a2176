"""`gsco serve` and `gsco diagnose`."""

import asyncio
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
import uvicorn

from service import app as composition
from service.api.schemas import diagnosis_response
from service.cli import diagnosis_view, output
from service.domain import Case
from service.errors import UnreadableImage
from service.settings import Settings
from specialists import task as tasks
from specialists.task import Task

SHUTDOWN_SECONDS = 30


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535)] = None,
) -> None:
    """Serve the REST API; /openapi.json describes it."""
    settings: Settings = context.obj
    uvicorn.run(
        composition.create_app(settings),
        host=host or settings.host,
        port=settings.port if port is None else port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def diagnose(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A PNG, JPEG or DICOM file.")],
    task: Annotated[str, typer.Option(help="A task of the home folder.")],
    frame: Annotated[int | None, typer.Option(min=1, help="Of a multi-frame file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the diagnosis as JSON.")] = False,
) -> None:
    """Diagnose one file with the parts of the home folder; stored like any other diagnosis."""
    settings: Settings = context.obj
    found = tasks.find(settings.tasks_folder, task)
    data = read_file(file)
    document = asyncio.run(_diagnose(settings, data, found, frame))
    if json:
        output.print_json(document)
    else:
        diagnosis_view.show(document)


def read_file(path: Path) -> bytes:
    """The bytes of an image file; raises UnreadableImage with one sentence."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"cannot read {path.name!r}: {error.strerror}") from error


async def _diagnose(
    settings: Settings, data: bytes, task: Task, frame: int | None
) -> dict[str, Any]:
    async with composition.running_parts(settings) as parts:
        decoded = await parts.intake.decode(data, frame=frame)
        case = Case(str(uuid4()), task, decoded.image, decoded.group)
        diagnosis = await parts.pipeline.diagnose(case)
    return diagnosis_response(diagnosis, task).model_dump(mode="json")
