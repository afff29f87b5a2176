"""`gsco specialists`: training, evaluating and listing the panel."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import choices, datasets, exchanging, finetuning, output, segmenting
from service.cli.choices import DataOption, TaskOption, WeightsOption
from service.errors import Misconfigured
from service.settings import Settings
from specialists import catalogue
from specialists import task as tasks
from specialists.catalogue import Scale
from specialists.errors import InvalidSpecialist
from specialists.segmentation import models

if TYPE_CHECKING:  # torch is slow to import, and most verbs do without
    from specialists.loader import Specialist
    from specialists.training.dataset import Dataset
    from specialists.training.pretrained import Pretrained
    from specialists.training.procedures import Outcome

FIGURES = ("accuracy", "auc", "dice")

app = typer.Typer(no_args_is_help=True, help="Specialists: backbones fine-tuned for a task.")
app.command("finetune")(finetuning.finetune)
app.add_typer(segmenting.app, name="segmentation")
app.command("add")(exchanging.add)
app.command("export")(exchanging.export)
app.command("remove")(exchanging.remove)
app.command("import-gsco")(exchanging.import_gsco)


class Trunk(StrEnum):
    """Whose embeddings probes look at."""

    OWN = "own"
    PRETRAINED = "pretrained"


@app.command()
def evaluate(
    context: typer.Context,
    task: TaskOption,
    data: DataOption,
    split: Annotated[str, typer.Option()] = "test",
    probes: Annotated[
        Trunk | None,
        typer.Option(
            help="Also a linear probe and a vote of the nearest training images, on embeddings of "
            "the specialists' own or of their pretrained backbones."
        ),
    ] = None,
    weights: WeightsOption = None,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Every specialist, their majority vote and their mean probability on one split."""
    from specialists.training.evaluate import evaluate as measure

    settings: Settings = context.obj
    found = tasks.find(settings.tasks_folder, task)
    read = datasets.read(settings, data, found)
    chosen = read.split(split)
    folder = settings.specialists_folder / found.name
    with output.progress() as bar:
        bar.add_task(f"evaluating on {data.name}", total=None)
        result = measure(folder, found, chosen, device=settings.device)
        beside = _beside(settings, read, split, probes, weights or []) if probes else []
    scores = {one.specialist: one.metrics for one in result.results}
    scores |= {f"{one.specialist}, {one.procedure}": one.metrics for one in beside}
    scores |= {
        "majority vote": result.majority_vote,
        "probability average": result.probability_average,
    }
    rows = [{"system": name, **asdict(metrics)} for name, metrics in scores.items()]
    output.print_rows(f"{found.name}, {split}", rows, json=json)


def _beside(
    settings: Settings, read: "Dataset", split: str, trunk: Trunk, weights: list[str]
) -> "list[Outcome]":
    from specialists.training import evaluate, pretrained, procedures

    folder = settings.specialists_folder / read.task.name
    members, _ = evaluate.load_panel(folder, read.task, device=settings.device)
    if trunk is Trunk.OWN:
        return procedures.beside(members, read, split)
    names = tuple(one.name for one in members)
    files = choices.weights_of(weights, names)
    begins: dict[str, Pretrained] = {}
    for one in members:
        scale, labels = one.manifest.scale, len(read.task.labels)
        given = choices.pretrained_of(read.task.name, (one.name,), scale, files, True)
        chosen = pretrained.choose([one.name], scale, labels, given)
        if one.name not in files and scale is Scale.NANO:
            _demand_beginning(one, chosen[one.name])
        begins |= chosen
    return procedures.beside(members, read, split, begins)


def _demand_beginning(specialist: "Specialist", shipped: "Pretrained") -> None:
    """The shipped weights are its pretrained backbone only where it began from them."""
    if specialist.manifest.recipe.get("begun_from_sha256") != shipped.sha256:
        raise Misconfigured(
            f"{specialist.name} did not begin from the shipped weights: name what to compare it "
            f"with, --weights {specialist.name}=FILE"
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
        if task.is_labelled  # others consult one of these
        for backbone in (*catalogue.panel_of(task), *models.models_of(task))
    ]
    output.print_rows("Specialists", rows, json=json)


def _listed(folder: Path, task: str) -> dict[str, Any]:
    from specialists import loader

    row: dict[str, Any] = {"task": task, "backbone": folder.name}
    try:
        manifest = loader.read_manifest(folder)
    except InvalidSpecialist as error:
        return {**row, "scale": None, **dict.fromkeys(FIGURES), "state": str(error)}
    figures = {name: manifest.validation.get(name) for name in FIGURES}
    return {**row, "scale": manifest.scale, **figures, "state": manifest.weights_sha256[:12]}
