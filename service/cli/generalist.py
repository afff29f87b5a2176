"""`gsco generalist`: training and serving the vision–language model."""

import os
from collections.abc import Iterator
from operator import itemgetter
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
    from service.generalist.checkpoint import Checkpoint
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
    instructions: Annotated[
        list[str] | None,
        typer.Option(help="TASK=FILE of `bootstrap`, about train images of a --data TASK=PATH."),
    ] = None,
    recipe_file: Annotated[
        Path | None, typer.Option("--recipe", help="A recipe of your own; default: nano.")
    ] = None,
    effort: Annotated[float, typer.Option(min=0.001, help="Multiplies the recipe's steps.")] = 1.0,
    lora: Annotated[
        int | None,
        typer.Option(min=1, help="Instead, tune an existing checkpoint: an adapter of this rank."),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            help="A trained checkpoint, which only takes the last stage again; with --lora the "
            "one to tune (default: nano)."
        ),
    ] = None,
) -> None:
    """Train MedDr-nano to see, to answer and to arbitrate; about an hour and a half on two cores.

    Interrupted at any moment, the same command goes on and ends with the same weights. With --base,
    a trained one only learns anew whom to trust: the shipped specialists, and nano ones that stand
    in for those of each --data TASK. With --lora, a checkpoint of MedDr's architecture is tuned to
    one --data instead, and --out is an adapter.
    """
    _demand_folder("--out", out)
    _demand_folder("--work", work)
    if lora is not None:
        _refuse_beside_lora(questions, instructions, recipe_file)
        _adapt(context.obj, base, data or [], out, work, lora, effort)
        return
    from service.generalist.training import plan, recipe, train

    wanted = recipe.nano() if recipe_file is None else recipe.read(recipe_file)
    chosen = wanted.scaled(effort)
    taken_up = None if base is None else _taken_up(base, chosen, out)
    sources = _sources(
        context.obj, chosen, data or [], questions or [], instructions or [], phantoms=phantoms
    )
    plan.claim(work, sources, chosen, taken_up)
    with output.progress() as bar:
        rows = {name: bar.add_task(name, total=None) for name in train.STAGES}

        def show(at: "Progress") -> None:
            shown = f"{at.stage} loss {at.loss:.3f} right {at.accuracy:.3f}"
            bar.update(rows[at.stage], completed=at.step, total=at.steps, description=shown)
            if at.step % REPORT_EVERY_STEPS == 0:
                bar.log(f"{shown} after {at.step} of {at.steps} steps")

        judged = train.train(sources, chosen, work, out, show, bar.log, taken_up)
    output.messages.print(f"wrote {out}")
    best = max(judged, key=itemgetter("score"))
    if best["step"] == 0:
        output.messages.print("nothing was judged better than --base: these are its weights")
    elif best["share"] < 1:
        output.messages.print(f"judged best: {best['share']:.0%} of it, mixed with --base")


@app.command()
def serve(
    context: typer.Context,
    path: Annotated[Path | None, typer.Option(help="Checkpoint folder; default: nano.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8001,
    model: Annotated[str, typer.Option(help="Name that clients ask for.")] = "meddr-nano",
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER: a LoRA adapter, and the name that clients ask for."),
    ] = None,
    venv: Annotated[Path, typer.Option(help="Where vLLM is or will be.")] = Path(".venv-vllm"),
) -> None:
    """Serve a checkpoint with the real vLLM on this machine's CPU; installs vLLM when needed."""
    from service.generalist import server

    settings: Settings = context.obj
    folder = path or settings.generalist_path
    adapters = dict(_halves("--adapter", "NAME=FOLDER", adapter or []))
    arguments, added = server.command(folder, port, venv=venv, model=model, adapters=adapters)
    server.ensure_environment(venv, Path.cwd())
    os.execvpe(arguments[0], arguments, os.environ | added)  # noqa: S606  # it takes over


def _sources(
    settings: Settings,
    chosen: "Recipe",
    data: list[str],
    questions: list[str],
    instructions: list[str],
    *,
    phantoms: bool,
) -> "Sources":
    from service.demo import home
    from service.demo.tasks import demo_tasks, told_tasks
    from service.generalist.training import bootstrap, examples, gather, reading
    from service.generalist.training.train import Sources

    size = chosen.model.image_size
    demos = demo_tasks() if phantoms else ()
    sets = list(_pairs(settings, "--data", data))
    _demand_distinct([one.task for one in demos] + [task for task, _ in sets])
    for task, _ in sets:
        if task.is_labelled and not reading.can_read(task):
            raise Misconfigured(
                f"task {task.name!r} has {len(task.labels)} labels that may hold together; "
                f"training weighs every combination, of at most {reading.MOST_LABELS}"
            )
    hospitals = {task.name: gather.hospital(task, path, chosen) for task, path in sets}
    taught = []
    for task, path in _pairs(settings, "--instructions", instructions):
        if task.name not in hospitals:
            raise Misconfigured(f"--instructions {task.name}=… needs --data {task.name}=PATH")
        split = hospitals[task.name].dataset.split("train")
        taught.append(bootstrap.read(path, task, split, size))
    if not demos and not hospitals:
        raise Misconfigured("nothing to train on: give --data TASK=PATH or --phantoms")
    return Sources(
        hospitals=tuple(hospitals.values()),
        demos=demos,
        told=told_tasks() if phantoms else (),
        dialogues=tuple(
            examples.read_dialogue(path, task, size)
            for task, path in _pairs(settings, "--questions", questions)
        ),
        specialists=home.SHIPPED,
        trunks=home.trunks(),
        taught=tuple(taught),
    )


def _demand_distinct(chosen: list[Task]) -> None:
    names = [task.name for task in chosen]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise Misconfigured(f"task {repeated!r} is given twice")


def _demand_folder(option: str, path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise Misconfigured(f"{option} is a folder, '{path}' is a file")


def _demand_checkpoint(path: Path) -> None:
    if not path.is_dir():
        raise Misconfigured(f"no checkpoint at '{path}'")


def _taken_up(base: Path, chosen: "Recipe", out: Path) -> "Checkpoint":
    from service.generalist.training import train

    _demand_checkpoint(base)
    if out.resolve() == base.resolve():
        raise Misconfigured("--out is the folder of a new checkpoint, not --base")
    return train.take_up(base, chosen)


def _refuse_beside_lora(
    questions: list[str] | None, instructions: list[str] | None, recipe: Path | None
) -> None:
    given = {"--questions": questions, "--instructions": instructions, "--recipe": recipe}
    if option := next((name for name, value in given.items() if value), None):
        raise Misconfigured(f"--lora tunes to one --data: {option} is for training anew")


def _adapt(
    settings: Settings,
    base: Path | None,
    data: list[str],
    out: Path,
    work: Path,
    rank: int,
    effort: float,
) -> None:
    from service.generalist.training import adapt
    from service.generalist.training.adapt import Adaptation
    from specialists.training import dataset

    if len(data) != 1:
        raise Misconfigured("--lora tunes to one data set: give --data TASK=PATH once")
    ((task, path),) = _pairs(settings, "--data", data)
    folder = base or settings.generalist_path
    _demand_checkpoint(folder)
    how = Adaptation(rank=rank, steps=max(1, round(Adaptation().steps * effort)))
    read = dataset.read(path, task)
    state = adapt.state_file(work, folder, read, how)
    with output.progress() as bar:
        row = bar.add_task("tuning", total=how.steps)

        def show(at: "Progress") -> None:
            shown = f"tuning loss {at.loss:.3f} right {at.accuracy:.3f}"
            bar.update(row, completed=at.step, description=shown)

        adapt.adapt(folder, read, how, out, show, state)
    output.messages.print(f"wrote the adapter {out}")


def _pairs(settings: Settings, option: str, entries: list[str]) -> Iterator[tuple[Task, Path]]:
    for name, path in _halves(option, "TASK=PATH", entries):
        if not path.exists():
            raise Misconfigured(f"{option} {name}: there is no '{path}'")
        yield tasks.find(settings.tasks_folder, name), path


def _halves(option: str, form: str, entries: list[str]) -> Iterator[tuple[str, Path]]:
    for entry in entries:
        name, equals, path = entry.partition("=")
        if not (name and equals and path):
            raise Misconfigured(f"{option} is {form}, not {entry!r}")
        yield name, Path(path)


app.command("bootstrap")(write_instructions)


app.command()(checkpoints.convert)
app.command()(checkpoints.check)
