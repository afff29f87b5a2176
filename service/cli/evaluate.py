"""`gsco evaluate`: every system on the same labelled cases, through the product's own pipeline."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from service import app as composition
from service import calibration
from service.cli import output
from service.cli.specialists import DataOption, TaskOption
from service.domain import Case, Diagnosis, Image, Result, pixels_sha256, target_labels
from service.errors import Misconfigured, NotFound
from service.evaluation import run, table
from service.evaluation.run import LabelledCase
from service.ports import Kept
from service.settings import Settings
from specialists import task as tasks
from specialists.prediction import Pixels
from specialists.task import Task, TaskKind
from specialists.training import dataset
from specialists.training.split import Split


def evaluate(
    context: typer.Context,
    task: TaskOption,
    data: DataOption,
    split: Annotated[str | None, typer.Option(help="Default: test, or val to calibrate.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many cases, evenly chosen.")
    ] = None,
    biased: Annotated[
        bool, typer.Option(help="Also ask with every specialist forced to one wrong label.")
    ] = False,
    calibrate: Annotated[
        bool, typer.Option(help="Learn label sets that hold the truth; use a validation split.")
    ] = False,
    coverage: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="How often the label set holds the truth.")
    ] = calibration.COVERAGE,
    out: Annotated[Path | None, typer.Option(help="Also write the Markdown table here.")] = None,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Each specialist, votes, the generalist alone and GSCo on the same cases, with intervals.

    Nothing is stored among the diagnoses of patients.
    """
    settings: Settings = context.obj
    found = tasks.find(settings.tasks_folder, task)
    if biased and found.kind is not TaskKind.SINGLE_LABEL:
        raise Misconfigured("--biased is for single-label tasks")
    chosen = split or ("val" if calibrate else "test")
    cases = evenly(labelled_cases(found, dataset.read(data, found).split(chosen)), limit)
    diagnoses, against = asyncio.run(_diagnose_all(settings, cases, biased=biased))
    evaluation = run.evaluate(found, diagnoses, cases, against)
    if calibrate:
        learned = calibration.calibrate(diagnoses, run.truth_of(found, cases), coverage)
        path = calibration.write(settings.calibration_folder, learned)
        output.messages.print(
            f"label sets of task {task!r} calibrated on {len(cases)} cases: {path}"
        )
    document = table.markdown(evaluation)
    if out is not None:
        out.write_text(document, "utf-8")
    if json:
        output.print_json(table.as_json(evaluation))
    else:
        output.results.out(document, highlight=False)


def labelled_cases(task: Task, split: Split) -> list[LabelledCase]:
    """A case per image of the split, its group kept, so that nobody retrieves themselves."""
    return [
        LabelledCase(
            Case(f"{task.name}-{place}", task, _image(pixels), group), target_labels(task, target)
        )
        for place, (pixels, group, target) in enumerate(
            zip(split.images, split.groups, split.targets, strict=True)
        )
    ]


def evenly(cases: list[LabelledCase], limit: int | None) -> list[LabelledCase]:
    """At most `limit` of the cases, from the whole of them."""
    if limit is None or limit >= len(cases):
        return cases
    return [cases[place * len(cases) // limit] for place in range(limit)]


async def _diagnose_all(
    settings: Settings, cases: Sequence[LabelledCase], *, biased: bool
) -> tuple[list[Diagnosis], list[Diagnosis] | None]:
    """Diagnoses of all cases, and where asked also those with a panel of one wrong mind."""
    with output.progress() as bar:
        row = bar.add_task("diagnosing", total=len(cases) * (1 + biased))
        async with composition.running_parts(settings) as parts:
            pipeline = replace(parts.pipeline, store=Forgetful())
            diagnoses = await run.diagnose_all(pipeline, cases, lambda: bar.advance(row))
            if not biased:
                return diagnoses, None
            against = run.with_biased_panel(pipeline, cases)
            misled = await run.diagnose_all(against, cases, lambda: bar.advance(row))
            return diagnoses, misled


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
