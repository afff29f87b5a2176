"""`gsco serve`, and asking once: `gsco diagnose`, `gsco report`, `gsco ask`."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import uuid4

import typer
import uvicorn
from pydantic import TypeAdapter, ValidationError

from service import composition
from service.api.dependencies import Parts
from service.api.replies import said_by
from service.api.schemas import GROUP, diagnosis_response
from service.api.schemas_text import Choices, Draft, Question, answer_response, report_response
from service.app import create_app
from service.cli import diagnosis_view, output, result_files, text_view
from service.cli.result_files import Look
from service.domain import Answer, Case, Diagnosis, Report, Result
from service.errors import InvalidInput, Misconfigured, UnreadableImage
from service.identity.caller import local_name
from service.identity.configured import refuse_exposure
from service.settings import Settings
from specialists import task as tasks
from specialists.task import Task, TaskKind

Made = TypeVar("Made", bound=Result)
Group = Annotated[str | None, GROUP]

SHUTDOWN_SECONDS = 30
VERBS = {
    TaskKind.SINGLE_LABEL: "diagnose",
    TaskKind.MULTI_LABEL: "diagnose",
    TaskKind.REPORT: "report",
    TaskKind.QUESTION: "ask",
}

FileArgument = Annotated[Path, typer.Argument(help="A PNG, JPEG or DICOM file.")]
TaskOption = Annotated[str, typer.Option(help="A task of the home folder.")]
FrameOption = Annotated[int | None, typer.Option(min=1, help="Of a multi-frame file.")]
GroupOption = Annotated[
    str | None,
    typer.Option(
        help="A pseudonym of the patient or study, never an identifier: reference cases of the "
        "same group are left out. Of a DICOM file it is known, where there is a key."
    ),
]
ResultsOption = Annotated[
    Path | None,
    typer.Option(help="Also write DICOM SR and captures, FHIR and HL7 v2 into this folder."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535)] = None,
) -> None:
    """Serve the REST API; /openapi.json describes it."""
    settings: Settings = context.obj
    address = settings.host if host is None else host
    refuse_exposure(settings, address)
    uvicorn.run(
        create_app(settings),
        host=address,
        port=settings.port if port is None else port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def diagnose(
    context: typer.Context,
    file: FileArgument,
    task: TaskOption,
    frame: FrameOption = None,
    group: GroupOption = None,
    results: ResultsOption = None,
    json: JsonOption = False,
) -> None:
    """Diagnose one file with the parts of the home folder; stored like any other diagnosis."""
    settings: Settings = context.obj
    found = _task_of(settings, task, "diagnose")

    async def work(parts: Parts, look: Look) -> Diagnosis:
        diagnosis = await parts.pipeline.diagnose(look.case)
        if results is not None:
            await result_files.write(parts, look, diagnosis, results)
        return diagnosis

    made = asyncio.run(_run(settings, read_file(file), found, frame, group, work))
    document = diagnosis_response(made, found).model_dump(mode="json")
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


def report(
    context: typer.Context,
    file: FileArgument,
    task: TaskOption,
    draft: Annotated[
        Path | None, typer.Option(help="A text file: the draft of a report specialist.")
    ] = None,
    frame: FrameOption = None,
    group: GroupOption = None,
    results: ResultsOption = None,
    json: JsonOption = False,
) -> None:
    """Draft a report on one file, with the evidence of the task that is consulted."""
    settings: Settings = context.obj
    found = _task_of(settings, task, "report")
    other = _consulted(settings, found)
    more = {"consulted": other, "draft": _read_draft(draft) if draft else ""}

    async def work(parts: Parts, look: Look) -> Report:
        made = await parts.pipeline.report(look.case)
        if results is not None:
            await result_files.write(parts, look, made, results)
        return made

    made = asyncio.run(_run(settings, read_file(file), found, frame, group, work, **more))
    document = report_response(made, other).model_dump(mode="json")
    if json:
        output.print_json(document)
    else:
        text_view.show_report(document)


def ask(
    context: typer.Context,
    file: FileArgument,
    task: TaskOption,
    question: Annotated[str, typer.Option(help="What is asked about the image.")],
    choice: Annotated[
        list[str] | None, typer.Option(help="A permitted answer; may be repeated.")
    ] = None,
    frame: FrameOption = None,
    group: GroupOption = None,
    json: JsonOption = False,
) -> None:
    """Answer a question about one file, freely or by one of the given choices."""
    settings: Settings = context.obj
    found = _task_of(settings, task, "ask")
    other = _consulted(settings, found)
    more = {
        "consulted": other,
        "question": _accepted("--question", Question, question),
        "choices": tuple(_accepted("--choice", Choices, choice or [])),
    }

    async def work(parts: Parts, look: Look) -> Answer:
        return await parts.pipeline.answer(look.case)

    made = asyncio.run(_run(settings, read_file(file), found, frame, group, work, **more))
    document = answer_response(made, other).model_dump(mode="json")
    if json:
        output.print_json(document)
    else:
        text_view.show_answer(document)


def _consulted(settings: Settings, task: Task) -> Task | None:
    return tasks.find(settings.tasks_folder, task.consults) if task.consults else None


def _task_of(settings: Settings, name: str, verb: str) -> Task:
    found = tasks.find(settings.tasks_folder, name)
    if VERBS[found.kind] != verb:
        raise Misconfigured(f"task {name!r} is a {found.kind} task: use `gsco {VERBS[found.kind]}`")
    return found


def _read_draft(path: Path) -> str:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the draft {path.name!r} as text") from error
    accepted: str = _accepted("--draft", Draft, text.strip())
    return accepted


def _accepted(option: str, kind: Any, given: object) -> Any:
    """What REST would accept; raises Misconfigured with the first thing it would refuse."""
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise Misconfigured(f"{option}: {reason}") from None


async def _run(
    settings: Settings,
    data: bytes,
    task: Task,
    frame: int | None,
    group: str | None,
    work: Callable[[Parts, Look], Awaitable[Made]],
    **more: Any,
) -> Made:
    of = _accepted("--group", Group, group)
    async with composition.running_parts(settings) as parts:
        decoded = await parts.intake.decode(data, frame=frame)
        claimed = said_by(decoded)
        case = Case(
            str(uuid4()),
            task,
            decoded.image,
            of or decoded.group,
            modality=claimed,
            requested_by=local_name(),
            **more,
        )
        return await work(parts, Look(case, data, decoded))
