"""`gsco retrieval verify` and `assess`: are the indexes sound, and do similar cases help?"""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service import composition
from service.cli import datasets, output
from service.cli.open_database import opened
from service.settings import Settings
from specialists import task as tasks
from specialists.errors import InvalidSpecialist
from specialists.task import Task

if TYPE_CHECKING:  # faiss takes a while to import
    from retrieval.assess import Assessment
    from retrieval.bootstrap import Estimate
    from service.held_out import HeldOut

COLUMNS = ["task", "specialist", "stored", "indexed", "kind", "recall", "problems"]


def verify(
    context: typer.Context,
    task: Annotated[
        str | None, typer.Option("--task", help="A task of the home folder; default: all.")
    ] = None,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Check every index against the reference cases in the database; exit code 1 if one is wrong.

    `gsco retrieval build --task T --force` repairs what is wrong with an index; what is wrong with
    stored vectors is repaired by ingesting the cases again.
    """
    from retrieval import verify as checking

    settings: Settings = context.obj
    if task is not None:
        tasks.find(settings.tasks_folder, task)
    engine = context.with_resource(opened(settings))
    with output.progress() as bar:
        bar.add_task("checking indexes", total=None)
        found = list(checking.verify(engine, settings.indexes_folder, task))
    rows: list[dict[str, Any]] = [asdict(one) for one in found]
    if json:
        output.print_json(rows)
    else:
        shown = [{**row, "problems": "; ".join(row["problems"]) or "none"} for row in rows]
        cells = [[output.shown(row[name]) for name in COLUMNS] for row in shown]
        output.print_table("Indexes", COLUMNS, cells)
    if any(one.problems for one in found):
        raise typer.Exit(1)


def assess(
    context: typer.Context,
    task: Annotated[str, typer.Option("--task", help="A task of the home folder.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Images that no specialist has seen: what do similar cases add there?"),
    ] = None,
    split: Annotated[str, typer.Option(help="Of DATA.")] = "val",
    folds: Annotated[int, typer.Option(min=2, max=20)] = 5,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Do similar cases tell the labels of this task? Best asked with --data.

    Without it the reference cases themselves are asked: every patient's cases are looked up among
    other patients', by the vectors stored for them. Where specialists were trained on these very
    cases, the answer is too good to be true.
    """
    from retrieval import assess as assessing

    settings: Settings = context.obj
    found = tasks.find(settings.tasks_folder, task)
    if data is not None:
        consulted = tasks.find(settings.tasks_folder, found.consults) if found.consults else found
        _tell_held_out(_assess_on(settings, consulted, data, split), json=json)
        return
    engine = context.with_resource(opened(settings))
    with output.progress() as bar:
        row = bar.add_task("looking up cases", total=None)
        told = assessing.assess(
            engine,
            found.consults or found.name,
            neighbours=settings.neighbours,
            folds=folds,
            on_progress=lambda done, total: bar.update(row, completed=done, total=total),
        )
    if json:
        output.print_json({**asdict(told), "verdict": told.verdict})
    else:
        _print(told)


def _assess_on(settings: Settings, task: Task, data: Path, split: str) -> "HeldOut":
    from service import held_out
    from specialists.training import evaluate

    folder = settings.specialists_folder / task.name
    chosen = datasets.read(settings, data, task).split(split)
    with output.progress() as bar:
        row = bar.add_task("asking the specialists", total=None)
        panel, missing = evaluate.load_panel(folder, task)
        if not panel:
            raise InvalidSpecialist(f"no specialist for task {task.name!r}: {missing[0].reason}")
        answers = evaluate.run(panel, chosen.images)
        encoders = {one.name: one.manifest.weights_sha256 for one in panel}

        def show(done: int, total: int) -> None:
            bar.update(row, description="looking up images", completed=done, total=total)

        async def work() -> "HeldOut":
            async with composition.running_retriever(settings) as retriever:
                return await held_out.assess(retriever, task, chosen, answers, encoders, show)

        return asyncio.run(work())


def _tell_held_out(told: "HeldOut", *, json: bool) -> None:
    if json:
        output.print_json({**asdict(told), "verdict": told.verdict})
        return
    systems = {
        "panel, mean probability": told.panel,
        "similar cases alone": told.neighbours,
        "both": told.both,
        "both over panel": told.both_over_panel,
    }
    title = f"{told.task}: {told.cases} images of {told.groups} patients"
    output.print_table(title, ["system", "macro F1", "95 %"], _cells(systems))
    output.results.print(SENTENCES[told.verdict])


def _print(told: "Assessment") -> None:
    systems = {
        "commonest labels (prior)": told.prior,
        "similar cases, fused": told.fused,
        f"best single retriever ({told.single})": told.singles[told.single],
        "fused over prior": told.over_prior,
        "fused over best single": told.over_single,
    }
    title = f"{told.task}: {told.cases} cases of {told.groups} patients, {told.folds} folds"
    output.print_table(title, ["vote of", "macro F1", "95 %"], _cells(systems))
    output.results.print(SENTENCES[told.verdict])
    output.results.print(
        "Where the specialists were trained on these cases, this is too good: ask with --data."
    )


SENTENCES = {
    "helps": "Verdict: similar cases help on this task. Keep them.",
    "undecided": "Verdict: undecided. It looks better with similar cases, but chance could explain "
    "it: ask again with more patients.",
    "does not help": "Verdict: similar cases do not help on this task. Write rad = false in the "
    "task's file to do without.",
}


def _cells(systems: dict[str, "Estimate"]) -> list[list[str]]:
    return [[name, output.shown(one.value), _interval(one)] for name, one in systems.items()]


def _interval(one: "Estimate") -> str:
    return f"{one.low:.3f} to {one.high:.3f}"
