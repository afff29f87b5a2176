"""`gsco evaluate`: every system on the same labelled cases, through the product's own pipeline."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from service import app as composition
from service.cli import output
from service.cli.specialists import DataOption, TaskOption
from service.domain import Case, Diagnosis, Image, Result, pixels_sha256
from service.errors import NotFound
from service.evaluation import run, table
from service.evaluation.run import LabelledCase
from service.ports import Kept
from service.settings import Settings
from specialists import task as tasks
from specialists.prediction import Pixels
from specialists.task import Task
from specialists.training import dataset
from specialists.training.split import Split


def evaluate(
    context: typer.Context,
    task: TaskOption,
    data: DataOption,
    split: Annotated[str, typer.Option()] = "test",
    out: Annotated[Path | None, typer.Option(help="Also write the Markdown table here.")] = None,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Each specialist, votes, the generalist alone and GSCo: accuracy, macro-F1, AUC.

    Nothing is stored among the diagnoses of patients.
    """
    settings: Settings = context.obj
    found = tasks.find(settings.tasks_folder, task)
    cases = labelled_cases(found, dataset.read(data, found).split(split))
    scores = run.scores(found, asyncio.run(_diagnose_all(settings, cases)), cases)
    document = table.markdown(scores)
    if out is not None:
        out.write_text(document, "utf-8")
    if json:
        output.print_json(table.as_json(scores))
    else:
        output.results.out(document, highlight=False)


def labelled_cases(task: Task, split: Split) -> list[LabelledCase]:
    """A case per image of the split, its group kept, so that nobody retrieves themselves."""
    return [
        LabelledCase(Case(f"{task.name}-{place}", task, _image(pixels), group), int(target))
        for place, (pixels, group, target) in enumerate(
            zip(split.images, split.groups, split.targets, strict=True)
        )
    ]


async def _diagnose_all(settings: Settings, cases: Sequence[LabelledCase]) -> list[Diagnosis]:
    with output.progress() as bar:
        row = bar.add_task("diagnosing", total=len(cases))
        async with composition.running_parts(settings) as parts:
            pipeline = replace(parts.pipeline, store=Forgetful())
            return await run.diagnose_all(pipeline, cases, lambda: bar.advance(row))


class Forgetful:
    """A store for cases that are nobody's."""

    async def save(self, result: Result) -> None:
        del result

    async def get(self, kind: type[Kept], id: str) -> Kept:
        raise NotFound(f"no {kind.__name__.lower()} {id!r}")

    async def check(self) -> None:
        return None


def _image(pixels: Pixels) -> Image:
    return Image(pixels, pixels_sha256(pixels), "application/octet-stream")
