"""`gsco specialists finetune`: specialists of a task, trained."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import choices, datasets, output
from service.cli.choices import BackbonesOption, DataOption, ScaleOption, TaskOption, WeightsOption
from service.settings import Settings
from specialists import catalogue
from specialists import task as tasks
from specialists.catalogue import Augmentation, Precision, Procedure, Scale

if TYPE_CHECKING:  # torch is slow to import
    from specialists.training.publish import Trained
    from specialists.training.trainer import Epoch


def finetune(
    context: typer.Context,
    task: TaskOption,
    data: DataOption,
    scale: ScaleOption = Scale.NANO,
    backbones: BackbonesOption = "",
    procedure: Annotated[
        Procedure, typer.Option(help="linear-probe leaves the pretrained trunk as it is.")
    ] = Procedure.END_TO_END,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    patience: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0)] = None,
    balanced: Annotated[
        bool | None, typer.Option("--balanced/--unbalanced", help="Rare labels weigh more.")
    ] = None,
    augment: Annotated[
        float | None,
        typer.Option(min=0, help="Strength of the augmentation; 0: none; default: the recipe's."),
    ] = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Mirror too: wrong where the side matters.")
    ] = False,
    precision: Annotated[
        Precision | None, typer.Option(help="auto: bfloat16 where the hardware has it.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    seeds: Annotated[
        int, typer.Option(min=1, help="Train so many times and keep the best on validation.")
    ] = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Backbones trained at once; default: one a core.")
    ] = None,
    weights: WeightsOption = None,
    pretrained: Annotated[
        bool | None,
        typer.Option(
            "--pretrained/--from-scratch",
            help="Begin from weights that have learnt to see (default): full-size backbones from "
            "the catalogue's in this machine's hub cache, nano ones from the shipped specialists "
            "of synthetic chests, where there is one; or from random numbers.",
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="What the training data allows.")] = "not stated",
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Train the specialists of a task; run again after an interruption, it goes on from there."""
    from specialists.training import dataset
    from specialists.training.finetune import finetune as train

    settings: Settings = context.obj
    found = tasks.find(settings.tasks_folder, task)
    names = choices.named(backbones) or catalogue.PANEL
    files = choices.weights_of(weights or [], names)
    files = choices.pretrained_of(found.name, names, scale, files, pretrained)
    read = datasets.read(settings, data, found)
    dataset.demand_every_label(read)
    with output.progress() as bar:
        rows = {name: bar.add_task(name, total=None) for name in names}

        def show(epoch: "Epoch") -> None:
            which = f" seed {epoch.seed}" if seeds > 1 else ""
            bar.update(
                rows[epoch.backbone],
                completed=epoch.number,
                total=epoch.of,
                description=f"{epoch.backbone}{which} validation loss {epoch.validation_loss:.3f}",
            )

        trained = train(
            found,
            read,
            names,
            scale,
            settings.specialists_folder / found.name,
            procedure=procedure,
            seed=seed,
            seeds=seeds,
            epochs=epochs,
            patience=patience,
            batch_size=batch_size,
            learning_rate=learning_rate,
            balanced=balanced,
            precision=precision,
            augmentation=_augmentation(scale, augment, flip=flip),
            weights=files,
            licence=licence,
            device=settings.device,
            workers=workers or os.cpu_count() or 1,
            on_progress=show,
        )
    output.print_rows(f"{found.name}, validation", [_trained(one) for one in trained], json=json)


def _augmentation(scale: Scale, strength: float | None, *, flip: bool) -> Augmentation | None:
    """What was asked for; None for the recipe's own."""
    if strength is None and not flip:
        return None
    if strength is None:
        return replace(catalogue.recipe_of(scale).augmentation, flip=True)
    return replace(catalogue.augmentation_of(scale).scaled(strength), flip=flip)


def _trained(trained: "Trained") -> dict[str, Any]:
    return {
        "backbone": trained.backbone,
        "seconds": round(trained.seconds, 1),
        "skipped": trained.skipped,
        **trained.manifest.validation,
    }
