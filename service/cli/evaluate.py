"""`gsco evaluate`: every system on the same labelled cases, through the product's own pipeline."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from service import calibration
from service.cli import output
from service.cli.choices import DataOption
from service.errors import Misconfigured
from service.settings import Settings
from specialists import task as tasks
from specialists.task import Task


def evaluate(
    context: typer.Context,
    task: Annotated[
        str, typer.Option("--task", "--cases", help="Task of the cases and reference cases.")
    ],
    data: DataOption,
    split: Annotated[str | None, typer.Option(help="Default: test, or val to calibrate.")] = None,
    systems: Annotated[
        str, typer.Option(help="Of moed-only,rad-only; all others are always told.")
    ] = "moed-only,rad-only",
    stress: Annotated[
        str, typer.Option(help="Deceptions: biased,random,contradictory (single-label tasks).")
    ] = "",
    leave_out: Annotated[
        str,
        typer.Option(help="Specialists: names, or how many of the least accurate."),
    ] = "",
    k: Annotated[int | None, typer.Option(min=1, max=50, help="Neighbours shown.")] = None,
    specialists_from: Annotated[
        str | None,
        typer.Option(help="Another task; the reference cases are those of DATA's train."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many cases, evenly chosen.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option(help="Learn label sets that hold the truth; use a validation split.")
    ] = False,
    coverage: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="How often the label set holds the truth.")
    ] = calibration.COVERAGE,
    out: Annotated[
        Path | None, typer.Option(help="Results folder; an interrupted run goes on there.")
    ] = None,
    labeller: Annotated[
        str, typer.Option(help="Finds findings in reports: phantom, a .toml, or labels in a .csv.")
    ] = "",
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Each specialist, votes, the generalist alone and GSCo on the same cases, with intervals.

    Nothing is stored among the diagnoses of patients.
    """
    from service.cli import evaluating  # torch is slow to import
    from service.evaluation import page, table

    settings: Settings = context.obj
    settings = settings.model_copy(update={"neighbours": k or settings.neighbours})
    found = tasks.find(settings.tasks_folder, task)
    asked = {
        "--stress": stress,
        "--leave-out": leave_out,
        "--specialists-from": specialists_from,
        "--calibrate": calibrate,
    }
    if not found.is_labelled:
        _refuse(asked, f"is not for {found.kind} tasks")
        _texts(settings, found, data, split or "test", labeller, limit, out, json=json)
        return
    _refuse({"--labeller": labeller}, "is for report tasks")
    if calibrate:
        changing = {
            "--k": k,
            **{name: asked[name] for name in ("--leave-out", "--specialists-from")},
        }
        _refuse(changing, "asks otherwise than the service does: not with --calibrate")
    evaluation, folder = evaluating.evaluate(
        settings,
        evaluating.Options(
            task=task,
            data=data,
            split=split or ("val" if calibrate else "test"),
            systems=_listed(systems),
            stresses=_listed(stress),
            leave_out=_listed(leave_out),
            specialists_from=specialists_from,
            limit=limit,
            out=out,
        ),
    )
    if calibrate:
        evaluating.calibrate(settings, evaluation, coverage)
    if json:
        output.print_json(table.as_json(evaluation))
    else:
        output.results.out(table.markdown(evaluation), highlight=False)
        output.messages.print(f"all of it: {folder.path / page.REPORT}")


def _refuse(options: Mapping[str, object], why: str) -> None:
    for name, value in options.items():
        if value:
            raise Misconfigured(f"{name} {why}")


def _texts(
    settings: Settings,
    task: Task,
    data: Path,
    split: str,
    labeller: str,
    limit: int | None,
    out: Path | None,
    *,
    json: bool,
) -> None:
    from service.cli import evaluating_texts
    from service.evaluation import text_figures

    found, folder = evaluating_texts.evaluate(settings, task, data, split, labeller, limit, out)
    if json:
        output.print_json(text_figures.as_json(found))
    else:
        output.results.out(text_figures.markdown(found), highlight=False)
        output.messages.print(f"all of it: {folder.path}")


def _listed(names: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in names.split(","))))
