"""`gsco specialists`: training, evaluating and listing the panel."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import exchanging, output
from service.errors import Misconfigured
from service.settings import Settings
from specialists import catalogue
from specialists import task as tasks
from specialists.catalogue import Scale
from specialists.errors import InvalidSpecialist

if TYPE_CHECKING:  # torch is slow to import, and most verbs do without
    from specialists.training.finetune import Trained
    from specialists.training.trainer import Epoch

app = typer.Typer(no_args_is_help=True, help="Specialists: backbones fine-tuned for a task.")
app.command("add")(exchanging.add)
app.command("export")(exchanging.export)
app.command("remove")(exchanging.remove)
app.command("import-gsco")(exchanging.import_gsco)

TaskOption = Annotated[str, typer.Option("--task", help="A task of the home folder.")]
DataOption = Annotated[Path, typer.Option("--data", help="A MedMNIST .npz, or a folder of images.")]
WeightsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="BACKBONE=FILE",
        help="A .safetensors file that a backbone begins from; may be repeated.",
    ),
]
BackbonesOption = Annotated[
    str, typer.Option(help="Names with commas between them; default: the ten of the paper.")
]


@app.command()
def finetune(
    context: typer.Context,
    task: TaskOption,
    data: DataOption,
    scale: Annotated[
        Scale, typer.Option(help="nano trains on a laptop, full wants a GPU.")
    ] = Scale.NANO,
    backbones: BackbonesOption = "",
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    patience: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0)] = None,
    augment: Annotated[
        float, typer.Option(min=0, help="Strength of the recipe's augmentation; 0: none.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Backbones trained at once; default: one a core.")
    ] = None,
    weights: WeightsOption = None,
    licence: Annotated[str, typer.Option(help="What the training data allows.")] = "not stated",
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Train the specialists of a task; run again after an interruption, it goes on from there."""
    from specialists.training import dataset
    from specialists.training.finetune import finetune as train

    settings: Settings = context.obj
    found = tasks.find(settings.tasks_folder, task)
    names = named(backbones) or catalogue.PANEL
    files = weights_of(weights or [], names)
    with output.progress() as bar:
        reading = bar.add_task(f"reading {data.name}", total=None)
        read = dataset.read(data, found)
        bar.remove_task(reading)
        rows = {name: bar.add_task(name, total=None) for name in names}

        def show(epoch: "Epoch") -> None:
            bar.update(
                rows[epoch.backbone],
                completed=epoch.number,
                total=epoch.of,
                description=f"{epoch.backbone} validation loss {epoch.validation_loss:.3f}",
            )

        trained = train(
            found,
            read,
            names,
            scale,
            settings.specialists_folder / found.name,
            seed=seed,
            epochs=epochs,
            patience=patience,
            batch_size=batch_size,
            learning_rate=learning_rate,
            augmentation=catalogue.recipe_of(scale).augmentation.scaled(augment),
            weights=files,
            licence=licence,
            device=settings.device,
            workers=workers or os.cpu_count() or 1,
            on_progress=show,
        )
    _show(f"{found.name}, validation", [_trained(one) for one in trained], json=json)


@app.command()
def evaluate(
    context: typer.Context,
    task: TaskOption,
    data: DataOption,
    split: Annotated[str, typer.Option()] = "test",
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Every specialist, their majority vote and their mean probability on one split."""
    from specialists.training import dataset
    from specialists.training.evaluate import evaluate as measure

    settings: Settings = context.obj
    found = tasks.find(settings.tasks_folder, task)
    with output.progress() as bar:
        bar.add_task(f"evaluating on {data.name}", total=None)
        chosen = dataset.read(data, found).split(split)
        result = measure(settings.specialists_folder / found.name, found, chosen)
    scores = {one.specialist: one.metrics for one in result.results}
    scores |= {
        "majority vote": result.majority_vote,
        "probability average": result.probability_average,
    }
    _show(
        f"{found.name}, {split}", [{"system": k, **asdict(v)} for k, v in scores.items()], json=json
    )


@app.command("list")
def list_specialists(
    context: typer.Context, json: Annotated[bool, typer.Option("--json")] = False
) -> None:
    """The specialists of the home folder by task, and what is missing of each panel."""
    settings: Settings = context.obj
    rows = [
        _listed(settings.specialists_folder / task.name / backbone, task.name)
        for task in tasks.read_all(settings.tasks_folder).values()
        for backbone in catalogue.panel_of(task)
    ]
    _show("Specialists", rows, json=json)


def _listed(folder: Path, task: str) -> dict[str, Any]:
    from specialists import loader

    row: dict[str, Any] = {"task": task, "backbone": folder.name}
    try:
        manifest = loader.read_manifest(folder)
    except InvalidSpecialist as error:
        return {**row, "scale": None, "accuracy": None, "auc": None, "state": str(error)}
    figures = {name: manifest.validation.get(name) for name in ("accuracy", "auc")}
    return {**row, "scale": manifest.scale, **figures, "state": manifest.weights_sha256[:12]}


def named(text: str) -> tuple[str, ...]:
    """The backbones of a list with commas, each once; raises UnknownBackbone."""
    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    return tuple(catalogue.find(name).key for name in names)


def weights_of(texts: list[str], backbones: tuple[str, ...]) -> dict[str, Path]:
    """BACKBONE=FILE, or FILE alone for the only backbone; raises Misconfigured, UnknownBackbone."""
    files: dict[str, Path] = {}
    for text in texts:
        key, equals, file = text.partition("=")
        if not equals and len(backbones) != 1:
            raise Misconfigured(f"--weights {text}: for which backbone? write BACKBONE=FILE")
        name, file = (catalogue.find(key).key, file) if equals else (backbones[0], text)
        if name in files:
            raise Misconfigured(f"--weights names {name!r} twice")
        files[name] = Path(file).expanduser()
    return files


def _trained(trained: "Trained") -> dict[str, Any]:
    return {
        "backbone": trained.backbone,
        "seconds": round(trained.seconds, 1),
        "skipped": trained.skipped,
        **trained.manifest.validation,
    }


def _show(title: str, rows: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        output.print_json(rows)
    elif rows:
        output.print_table(
            title, list(rows[0]), [[output.shown(value) for value in row.values()] for row in rows]
        )
