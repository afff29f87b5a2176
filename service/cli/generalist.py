"""`gsco generalist`: training and serving the vision–language model."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import checkpoints, output
from service.cli.bootstrap import write_instructions
from service.errors import Misconfigured
from service.settings import Settings
from specialists import task as tasks
from specialists.task import Task

if TYPE_CHECKING:  # torch is slow to import, and most verbs do without
    from service.generalist.training.optimisation import Progress
    from service.generalist.training.recipe import Recipe
    from service.generalist.training.train import Sources

REPORT_EVERY_STEPS = 100

app = typer.Typer(
    no_args_is_help=True, help="The generalist: the vision–language model that arbitrates."
)


@app.command()
def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")],
    work: Annotated[
        Path, typer.Option(help="What is made on the way; the same folder again goes on from it.")
    ] = Path(".gsco-training"),
    data: Annotated[
        list[str] | None,
        typer.Option(help="TASK=PATH: a labelled data set, of which train and val are used."),
    ] = None,
    questions: Annotated[
        list[str] | None,
        typer.Option(help="TASK=FOLDER: qa.jsonl and images/, split by image as VQA-RAD is."),
    ] = None,
    phantoms: Annotated[bool, typer.Option(help="Also learn from the demonstration.")] = True,
    effort: Annotated[float, typer.Option(min=0.001, help="Multiplies the recipe's steps.")] = 1.0,
    lora: Annotated[
        int | None,
        typer.Option(min=1, help="Instead, tune an existing checkpoint: an adapter of this rank."),
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="The checkpoint that --lora tunes; default: nano.")
    ] = None,
) -> None:
    """Train MedDr-nano to see, to answer and to arbitrate; about an hour and a half on two cores.

    Interrupted at any moment, the same command goes on and ends with the same weights. With --lora,
    a checkpoint of MedDr's architecture is tuned to one --data instead, and --out is an adapter.
    """
    if lora is not None:
        _adapt(context.obj, base, data or [], out, lora, effort)
        return
    from service.generalist.training import recipe, train

    chosen = recipe.nano().scaled(effort)
    sources = _sources(context.obj, chosen, data or [], questions or [], phantoms=phantoms)
    if not sources.labelled:
        raise Misconfigured("nothing to train on: give --data TASK=PATH or --phantoms")
    with output.progress() as bar:
        rows = {name: bar.add_task(name, total=None) for name in train.STAGES}

        def show(at: "Progress") -> None:
            shown = f"{at.stage} loss {at.loss:.3f} right {at.accuracy:.3f}"
            bar.update(rows[at.stage], completed=at.step, total=at.steps, description=shown)
            if at.step % REPORT_EVERY_STEPS == 0:
                bar.log(f"{shown} after {at.step} of {at.steps} steps")

        train.train(sources, chosen, work, out, show, bar.log)
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


def _sources(
    settings: Settings, chosen: "Recipe", data: list[str], questions: list[str], *, phantoms: bool
) -> "Sources":
    from service.demo import home
    from service.demo.tasks import demo_tasks, told_tasks
    from service.generalist.training import examples, gather
    from service.generalist.training.train import Sources

    size = chosen.model.image_size
    return Sources(
        hospitals=tuple(
            gather.hospital(task, path, chosen) for task, path in _pairs(settings, "--data", data)
        ),
        demos=demo_tasks() if phantoms else (),
        told=told_tasks() if phantoms else (),
        dialogues=tuple(
            examples.read_dialogue(path, task, size)
            for task, path in _pairs(settings, "--questions", questions)
        ),
        specialists=home.SHIPPED,
    )


def _adapt(
    settings: Settings, base: Path | None, data: list[str], out: Path, rank: int, effort: float
) -> None:
    from service.generalist.training import adapt
    from service.generalist.training.adapt import Adaptation
    from specialists.training import dataset

    if len(data) != 1:
        raise Misconfigured("--lora tunes to one data set: give --data TASK=PATH once")
    ((task, path),) = _pairs(settings, "--data", data)
    how = Adaptation(rank=rank, steps=max(1, round(Adaptation().steps * effort)))
    with output.progress() as bar:
        row = bar.add_task("tuning", total=how.steps)

        def show(at: "Progress") -> None:
            shown = f"tuning loss {at.loss:.3f} right {at.accuracy:.3f}"
            bar.update(row, completed=at.step, description=shown)

        folder = base or settings.generalist_path
        adapt.adapt(folder, dataset.read(path, task), how, out, show)
    output.messages.print(f"wrote the adapter {out}")


def _pairs(settings: Settings, option: str, entries: list[str]) -> Iterator[tuple[Task, Path]]:
    for entry in entries:
        name, equals, path = entry.partition("=")
        if not equals:
            raise Misconfigured(f"{option} is TASK=PATH, not {entry!r}")
        yield tasks.find(settings.tasks_folder, name), Path(path)


app.command("bootstrap")(write_instructions)


app.command()(checkpoints.convert)
app.command()(checkpoints.check)
