"""`gsco specialists segmentation`: specialists trained on masks, and measured."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import output
from service.cli.choices import TaskOption
from service.settings import Settings
from specialists import task as tasks
from specialists.segmentation import models

if TYPE_CHECKING:  # torch is slow to import
    from specialists.training.trainer import Epoch

app = typer.Typer(no_args_is_help=True, help="Specialists that outline the segment of a task.")

MasksOption = Annotated[
    Path, typer.Option("--data", help="A folder whose index.csv has split, image and mask.")
]
JsonOption = Annotated[bool, typer.Option("--json")]


@app.command()
def finetune(
    context: typer.Context,
    task: TaskOption,
    data: MasksOption,
    backbones: Annotated[
        str, typer.Option(help="Models with commas between them; default: those of the task.")
    ] = "",
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    patience: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=2)] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0)] = None,
    augment: Annotated[
        float, typer.Option(min=0, help="Strength of the recipe's augmentation; 0: none.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    licence: Annotated[str, typer.Option(help="What the training data allows.")] = "not stated",
    json: JsonOption = False,
) -> None:
    """Train them on masks; run again after an interruption, it goes on from there."""
    from specialists.segmentation import masks, training

    settings: Settings = context.obj
    found = tasks.find(settings.tasks_folder, task)
    keys = models.named(backbones) or models.models_of(found)
    given = {
        "epochs": epochs,
        "patience": patience,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
    }
    with output.progress() as bar:
        rows = {key: bar.add_task(key, total=None) for key in keys}

        def show(epoch: "Epoch") -> None:
            bar.update(
                rows[epoch.backbone],
                completed=epoch.number,
                total=epoch.of,
                description=f"{epoch.backbone} validation loss {epoch.validation_loss:.3f}",
            )

        trained = training.finetune(
            found,
            masks.read(data),
            keys,
            settings.specialists_folder / found.name,
            given=given,
            augment=augment,
            seed=seed,
            licence=licence,
            device=settings.device,
            on_progress=show,
        )
    figures = [
        {"backbone": one.backbone, "seconds": round(one.seconds, 1), "skipped": one.skipped}
        | dict(one.manifest.validation)
        for one in trained
    ]
    output.print_rows(f"{found.name}, validation", figures, json=json)


@app.command()
def evaluate(
    context: typer.Context,
    task: TaskOption,
    data: MasksOption,
    split: Annotated[str, typer.Option()] = "test",
    json: JsonOption = False,
) -> None:
    """Dice and intersection over union of the images that show the segment, and the rest.

    `left_alone` is the share of the other images on which nothing is outlined. `certainty` is the
    mean of what the specialist promised of its outlines, `reached` their mean Dice.
    """
    from specialists.segmentation import masks, measure

    settings: Settings = context.obj
    found = tasks.find(settings.tasks_folder, task)
    folder = settings.specialists_folder / found.name
    with output.progress() as bar:
        bar.add_task(f"evaluating on {data.name}", total=None)
        told = measure.evaluate(
            folder, found, masks.read(data).split(split), device=settings.device
        )
    for missing in told.missing:
        output.messages.print(f"{missing.specialist}: {missing.reason}", markup=False)
    rows = [
        {"system": one.specialist, **one.overlap.as_dict(), **one.honesty.as_dict()}
        for one in told.results
    ]
    output.print_rows(f"{found.name}, {split}", rows, json=json)
