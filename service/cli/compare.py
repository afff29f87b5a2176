"""`gsco compare`: which backbone is the better teacher on one's own few images."""

import json as documents
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import datasets, output
from service.cli.choices import DataOption, TaskOption, WeightsOption, named, weights_of
from service.settings import Settings
from specialists import catalogue
from specialists import task as tasks
from specialists.catalogue import Scale

if TYPE_CHECKING:  # torch is slow to import, and most verbs do without
    from service.evaluation.comparison import Advance


def compare(
    context: typer.Context,
    task: TaskOption,
    data: DataOption,
    backbones: Annotated[
        str, typer.Option(help="Names with commas between them; default: all of the scale.")
    ] = "",
    scale: Annotated[
        Scale, typer.Option(help="nano trains on a laptop, full wants a GPU.")
    ] = Scale.NANO,
    seeds: Annotated[int, typer.Option(min=1, help="How often each backbone is trained.")] = 3,
    fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the training patients.")
    ] = 0.1,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of every training; default: the scale's recipe.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Default: test, or val without one.")] = None,
    weights: WeightsOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Backbones trained at once.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Results folder; default: comparisons/ of the home folder.")
    ] = None,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Train backbones under one recipe on few patients and rank them, with intervals.

    Run again after an interruption, it goes on from there; with more backbones or seeds, only
    these are trained.
    """
    from service.evaluation import comparison, comparison_figures, comparison_table
    from service.evaluation.comparison_folder import ComparisonFolder

    settings: Settings = context.obj
    found = tasks.find(settings.tasks_folder, task)
    keys = named(backbones) or catalogue.at_scale(scale)
    files = weights_of(weights or [], keys)
    if not backbones:
        keys = tuple(key for key in keys if key in files or not catalogue.find(key).from_file)
    wish = comparison.Wish(keys, scale, seeds, fraction, epochs, split)
    read = datasets.read(settings, data, found)
    with output.progress() as bar:
        row = bar.add_task("comparing", total=None)
        plan = comparison.plan_of(found, read, wish)
        folder = out or settings.home / "comparisons" / f"{found.name}-{plan.name}"

        def show(advance: "Advance") -> None:
            who = f"{advance.epoch.backbone}, seed {advance.seed + 1} of {seeds}"
            bar.update(row, completed=advance.done, total=advance.of, description=who)

        compared = comparison.compare(
            found,
            read,
            wish,
            plan,
            folder,
            weights=files,
            device=settings.device,
            workers=workers,
            on_advance=show,
        )
    rows = comparison_figures.standings(found, compared)
    document = comparison_table.as_json(found, compared, rows)
    text = comparison_table.markdown(found, compared, rows)
    ComparisonFolder(folder).write("comparison.json", documents.dumps(document, indent=2) + "\n")
    ComparisonFolder(folder).write("comparison.md", text)
    output.messages.print(f"kept in {folder}", markup=False, highlight=False)
    if json:
        output.print_json(document)
    else:
        output.results.out(text, highlight=False)
