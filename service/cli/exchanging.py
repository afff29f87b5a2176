"""`gsco specialists add|export|remove|import-gsco`: specialists from and for elsewhere."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import output
from service.settings import Settings
from specialists import catalogue
from specialists import task as tasks
from specialists.errors import SpecialistRefused
from specialists.segmentation import models

if TYPE_CHECKING:  # torch is slow to import
    from specialists.exchange.incoming import Added

TaskOption = Annotated[str, typer.Option("--task", help="A task of the home folder.")]
BackboneOption = Annotated[str, typer.Option("--backbone", help="A backbone of the catalogue.")]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Replace the specialist that is there.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def add(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(help="A folder, a .tar, or a .safetensors file with --manifest.")
    ],
    manifest: Annotated[
        Path | None, typer.Option(help="Of a .safetensors file: its manifest.json.")
    ] = None,
    replace: ReplaceOption = False,
    json: JsonOption = False,
) -> None:
    """Take in a specialist trained elsewhere, once all it promises has been verified."""
    from specialists.exchange import incoming

    settings: Settings = context.obj
    find = partial(tasks.find, settings.tasks_folder)
    with output.progress() as bar:
        bar.add_task(f"verifying {source.name}", total=None)
        added = incoming.add(
            source, settings.specialists_folder, find, manifest=manifest, replace=replace
        )
    _tell(_added(added), json=json)


def export(
    context: typer.Context,
    task: TaskOption,
    backbone: BackboneOption,
    out: Annotated[Path, typer.Option(help="A new folder, or a new file that ends in .tar.")],
    licence: Annotated[
        str | None, typer.Option(help="In your words; default: the usual name it begins with.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a specialist to hand on, without whatever could name a patient, a path or a host."""
    from specialists.exchange import outgoing

    folder = _folder(context.obj, task, backbone)
    exported = outgoing.export(folder, out, licence=licence)
    said = exported.manifest
    row = {
        "out": str(exported.path),
        "weights_sha256": said.weights_sha256,
        "left behind": ", ".join(exported.dropped) or None,
    }
    _tell(row, json=json)
    output.messages.print(
        f"The task's name and labels go along: {said.task}; {', '.join(said.labels)}. "
        "See that they name nobody.",
        markup=False,
    )


def remove(context: typer.Context, task: TaskOption, backbone: BackboneOption) -> None:
    """Remove a specialist from the home folder."""
    from specialists.exchange import outgoing

    outgoing.remove(_folder(context.obj, task, backbone))
    output.messages.print(f"removed specialist {backbone} of task {task}")


def import_gsco(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="DATASET_224_endToEnd_ARCH_sSEED_best.pth")],
    task: TaskOption,
    backbone: Annotated[
        str | None, typer.Option(help="Where the file's name does not say it.")
    ] = None,
    licence: Annotated[str, typer.Option(help="What the training data allows.")] = "not stated",
    replace: ReplaceOption = False,
    json: JsonOption = False,
) -> None:
    """Take in a checkpoint that GSCo published; a limited process of its own opens it.

    The task's labels must be in the order of the training. Nothing is known of its quality:
    measure it with `gsco specialists evaluate`.
    """
    from specialists.exchange import published

    settings: Settings = context.obj
    found = tasks.find(settings.tasks_folder, task)
    with output.progress() as bar:
        bar.add_task(f"reading {file.name}", total=None)
        added = published.take_in(
            file,
            found,
            settings.specialists_folder,
            backbone=backbone,
            licence=licence,
            over=replace,
        )
    _tell(_added(added), json=json)


def _folder(settings: Settings, task: str, backbone: str) -> Path:
    """A specialist's folder; a task that is gone may still have some."""
    key = backbone if backbone in models.MODELS else catalogue.find(backbone).key
    known = settings.specialists_folder / task
    if not tasks.is_name(task) or not known.is_dir():
        tasks.find(settings.tasks_folder, task)
    if not (known / key).is_dir():
        raise SpecialistRefused(f"there is no specialist {key!r} of task {task!r}")
    return known / key


def _added(added: "Added") -> dict[str, Any]:
    return {
        "task": added.manifest.task,
        "backbone": added.manifest.backbone,
        "scale": added.manifest.scale,
        "weights_sha256": added.manifest.weights_sha256,
        "replaced": added.replaced,
    }


def _tell(row: dict[str, Any], *, json: bool) -> None:
    if json:
        output.print_json(row)
    else:
        output.print_table(
            "Specialist", ["", ""], [[name, output.shown(value)] for name, value in row.items()]
        )
