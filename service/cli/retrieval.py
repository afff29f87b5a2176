"""`gsco retrieval`: reference cases and their indexes."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from retrieval.errors import IndexUnavailable
from service import composition
from service.cli import datasets, output, retrieval_checks
from service.cli.choices import DataOption, TaskOption
from service.cli.open_database import opened
from service.cli.serving import read_file
from service.errors import Misconfigured, NotFound
from service.intake.deidentify import pseudonym
from service.pipeline import queries_of
from service.settings import Settings
from specialists import task as tasks
from specialists.errors import InvalidSpecialist
from specialists.task import Task

IN_SHORT = ("task", "specialist", "cases", "indexed", "kind", "recall", "problem")

app = typer.Typer(no_args_is_help=True, help="Reference cases: known cases that resemble a query.")
app.command("verify")(retrieval_checks.verify)
app.command("assess")(retrieval_checks.assess)


@app.command()
def ingest(
    context: typer.Context,
    task: TaskOption,
    data: DataOption,
    split: Annotated[str, typer.Option(help="Never the one you evaluate on.")] = "train",
    source: Annotated[str, typer.Option(help="Where the cases come from.")] = "",
    licence: Annotated[str, typer.Option()] = "not stated",
    patient_ids: Annotated[
        bool,
        typer.Option(
            "--patient-ids",
            help="The data's groups are patient identifiers: keep their pseudonyms instead "
            "(needs GSCO_PSEUDONYM_KEY). Of DICOM files that is always done.",
        ),
    ] = False,
) -> None:
    """Store labelled images as reference cases, embedded by every specialist of the task.

    Indexes that were built already take them in at once. Texts in a column `report` of the
    folder's index.csv come along: report tasks quote those of similar cases.
    """
    from service import reference_cases

    settings: Settings = context.obj
    found = _labelled(settings, task)
    pseudonym = _pseudonym_of_groups(settings, data, patient_ids=patient_ids)
    engine = context.with_resource(opened(settings))
    chosen = datasets.read(settings, data, found).split(split)
    built = (settings.indexes_folder / found.name).is_dir()
    with output.progress() as bar:
        row = bar.add_task("embedding by specialist", total=None)
        stored = reference_cases.ingest_split(
            engine,
            settings.specialists_folder,
            found,
            chosen,
            reference_cases.Origin(source or data.name, licence),
            lambda done, total: bar.update(row, completed=done, total=total),
            pseudonym,
            settings.indexes_folder if built else None,
            reference_cases.reports_of(data),
        )
    then = "the indexes hold them" if built else "now: gsco retrieval build"
    output.messages.print(f"stored {stored} reference cases of {found.name}; {then}")


@app.command()
def build(
    context: typer.Context,
    task: TaskOption,
    force: Annotated[
        bool, typer.Option("--force", help="Make every index anew: repairs what verify finds.")
    ] = False,
) -> None:
    """Bring the index of every specialist in step with the stored reference cases."""
    from service import reference_cases

    settings: Settings = context.obj
    found = _labelled(settings, task)
    engine = context.with_resource(opened(settings))
    with output.progress() as bar:
        bar.add_task("building indexes", total=None)
        names = reference_cases.build(
            engine, settings.specialists_folder, settings.indexes_folder, found, force=force
        )
    output.messages.print(f"{len(names)} indexes of {found.name} are up to date")


@app.command()
def search(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A PNG, JPEG or DICOM file.")],
    task: TaskOption,
    source: Annotated[
        list[str] | None, typer.Option(help="Only cases of this source (site); may be repeated.")
    ] = None,
    licence: Annotated[
        list[str] | None, typer.Option(help="Only cases of this licence; may be repeated.")
    ] = None,
    modality: Annotated[
        list[str] | None, typer.Option(help="Only cases of this modality; may be repeated.")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(help="Only cases added since this day (UTC).")
    ] = None,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """The reference cases that resemble an image, as the generalist would be shown them.

    Options narrow what the settings allow, and never widen it.
    """
    settings = _narrowed(context.obj, source, licence, modality, since)
    found = _labelled(settings, task)
    rows = asyncio.run(_search(settings, read_file(file), found))
    if json:
        output.print_json(rows)
        return
    cells = [[output.shown(value) for value in row.values()] for row in rows]
    output.print_table("Similar cases", ["case", "labels", "similarity", "found by"], cells)


@app.command()
def remove(context: typer.Context, case_ids: list[str]) -> None:
    """Remove reference cases from the database and from every index."""
    from retrieval import ingest as rows

    settings: Settings = context.obj
    engine = context.with_resource(opened(settings))
    removed = rows.remove(engine, settings.indexes_folder, case_ids)
    if not removed:
        raise NotFound("no reference case of these ids: nothing is removed")
    output.messages.print(f"removed {removed} of {len(case_ids)} reference cases")


@app.command()
def stats(context: typer.Context, json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """What every index holds; with --json also which encoder it is of, and how it was made."""
    from dataclasses import asdict

    from retrieval.statistics import stats as measure

    settings: Settings = context.obj
    engine = context.with_resource(opened(settings))
    rows: list[dict[str, Any]] = [asdict(one) for one in measure(engine, settings.indexes_folder)]
    told = rows if json else [{name: row[name] for name in IN_SHORT} for row in rows]
    output.print_rows("Indexes", told, json=json)


def _labelled(settings: Settings, name: str) -> Task:
    """A task that has reference cases; raises Misconfigured with the one that another consults."""
    found = tasks.find(settings.tasks_folder, name)
    if not found.is_labelled:
        served = f": those of {found.consults!r} serve it" if found.consults else ""
        raise Misconfigured(f"a {found.kind} task has no reference cases of its own{served}")
    return found


def _narrowed(
    settings: Settings,
    source: list[str] | None,
    licence: list[str] | None,
    modality: list[str] | None,
    since: datetime | None,
) -> Settings:
    asked = {"sources": source, "licences": licence, "modalities": modality}
    update: dict[str, Any] = {
        f"retrieval_{name}": _allowed(name, values, getattr(settings, f"retrieval_{name}"))
        for name, values in asked.items()
        if values
    }
    if since is not None:
        day = since.replace(tzinfo=UTC)
        update["retrieval_since"] = max(day, settings.retrieval_since or day)
    return settings.model_copy(update=update)


def _allowed(name: str, asked: list[str], allowed: tuple[str, ...]) -> tuple[str, ...]:
    refused = [value for value in asked if allowed and value not in allowed]
    if refused:
        raise Misconfigured(
            f"{refused[0]!r} is not among the {name} that GSCO_RETRIEVAL_{name.upper()} allows"
        )
    return tuple(asked)


def _pseudonym_of_groups(
    settings: Settings, data: Path, *, patient_ids: bool
) -> Callable[[str], str | None]:
    """What is kept of a group. Those of DICOM files are pseudonyms when they are read."""
    key, are_dicom = settings.pseudonym_key.get_secret_value().encode(), datasets.holds_dicom(data)
    if are_dicom and not key:
        raise Misconfigured(
            "DICOM files need the secret GSCO_PSEUDONYM_KEY: without it nobody could tell that a "
            "reference case and an image are of the same patient"
        )
    if not patient_ids or are_dicom:
        return str
    if not key:
        raise Misconfigured("--patient-ids needs the secret GSCO_PSEUDONYM_KEY")
    return partial(pseudonym, key)


async def _search(settings: Settings, data: bytes, task: Task) -> list[dict[str, Any]]:
    async with composition.running_parts(settings) as parts:
        decoded = await parts.intake.decode(data)
        consultation = await parts.specialists.consult(decoded.image.pixels, task)
        if not consultation.embeddings:
            raise InvalidSpecialist(f"no specialist for task {task.name!r} answers")
        found = await parts.retriever.search(
            task.name,
            queries_of(consultation),
            group=decoded.group,
            image_sha256=decoded.image.pixels_sha256,
        )
    if found.missing and not found.neighbours:
        raise IndexUnavailable(f"no index of {task.name!r} answers: {found.missing[0].reason}")
    return [
        {
            "case": neighbour.case.id,
            "labels": " and ".join(neighbour.case.labels),
            "similarity": neighbour.similarity,
            "retrievers": ", ".join(neighbour.retrievers),
        }
        for neighbour in found.neighbours
    ]
