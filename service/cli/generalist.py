"""`gsco generalist`: training and serving the vision–language model."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import output
from service.errors import Misconfigured
from service.settings import Settings
from specialists import task as tasks

if TYPE_CHECKING:  # torch is slow to import, and most verbs do without
    from service.generalist.training.sources import Source

REPORT_EVERY_STEPS = 100
TRAINING_SEED = 1

app = typer.Typer(
    no_args_is_help=True, help="The generalist: the vision–language model that arbitrates."
)


@app.command()
def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="TASK=PATH: train split of a labelled data set; may be repeated."),
    ] = None,
    phantoms: Annotated[int, typer.Option(min=0, help="Phantoms drawn per demo task.")] = 12000,
    effort: Annotated[float, typer.Option(min=0.001, help="Multiplies the recipe's steps.")] = 1.0,
) -> None:
    """Train MedDr-nano on phantoms and on the train splits of labelled data sets."""
    from service.generalist.training import recipe, train

    chosen = recipe.nano().scaled(effort)
    sources = list(_sources(context.obj, data or [], phantoms, chosen.model.image_size))
    if not sources:
        raise Misconfigured("nothing to train on: give --data TASK=PATH or --phantoms N")
    with output.progress() as bar:
        rows = {name: bar.add_task(name, total=None) for name in train.STAGES}

        def show(at: train.Progress) -> None:
            shown = f"{at.stage} loss {at.loss:.3f} accuracy {at.accuracy:.3f}"
            bar.update(rows[at.stage], completed=at.step, total=at.steps, description=shown)
            if at.step % REPORT_EVERY_STEPS == 0:
                bar.log(f"{shown} after {at.step} of {at.steps} steps")

        train.train(sources, chosen, out, show)
    output.messages.print(f"wrote {out}")


@app.command()
def serve(
    context: typer.Context,
    path: Annotated[Path | None, typer.Option(help="Checkpoint folder; default: nano.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8001,
    model: Annotated[str, typer.Option(help="Name that clients ask for.")] = "meddr-nano",
    venv: Annotated[Path, typer.Option(help="Where vLLM is or will be.")] = Path(".venv-vllm"),
) -> None:
    """Serve a checkpoint with the real vLLM on this machine's CPU; installs vLLM when needed."""
    from service.generalist import server

    settings: Settings = context.obj
    server.ensure_environment(venv, Path.cwd())
    folder = path or settings.generalist_path
    arguments, added = server.command(folder, port, venv=venv, model=model)
    os.execvpe(arguments[0], arguments, os.environ | added)  # noqa: S606  # it takes over


def _sources(settings: Settings, data: list[str], phantoms: int, size: int) -> Iterator["Source"]:
    from service.demo.tasks import demo_tasks
    from service.generalist.training.sources import source
    from specialists.training import dataset

    for entry in data:
        name, equals, path = entry.partition("=")
        if not equals:
            raise Misconfigured(f"--data is TASK=PATH, not {entry!r}")
        task = tasks.find(settings.tasks_folder, name)
        split = dataset.read(Path(path), task).split("train")
        yield source(task, split.images, split.targets.tolist(), size)
    for demo in demo_tasks() if phantoms else ():
        drawn = list(demo.series(phantoms, seed=TRAINING_SEED))
        targets = [demo.task.label_names.index(phantom.labels[0]) for phantom in drawn]
        yield source(demo.task, [phantom.pixels for phantom in drawn], targets, size)
