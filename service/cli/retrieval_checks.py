"""`gsco retrieval verify` and `assess`: are the indexes sound, and do similar cases help?"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import output
from service.persistence import database
from service.settings import Settings
from specialists import task as tasks

if TYPE_CHECKING:  # faiss takes a while to import
    from retrieval.assess import Assessment
    from retrieval.bootstrap import Estimate

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
    engine = database.open_engine(settings.database_url)
    database.upgrade(engine)
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
    folds: Annotated[int, typer.Option(min=2, max=20)] = 5,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Do similar cases tell the labels of this task? Asked of the reference cases themselves.

    Every patient's cases are looked up among other patients' by the vectors stored for them.
    """
    from retrieval import assess as assessing

    settings: Settings = context.obj
    found = tasks.find(settings.tasks_folder, task)
    engine = database.open_engine(settings.database_url)
    database.upgrade(engine)
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


def _print(told: "Assessment") -> None:
    systems = {
        "commonest labels (prior)": told.prior,
        "similar cases, fused": told.fused,
        f"best single retriever ({told.single})": told.singles[told.single],
        "fused over prior": told.over_prior,
        "fused over best single": told.over_single,
    }
    cells = [[name, output.shown(one.value), _interval(one)] for name, one in systems.items()]
    title = f"{told.task}: {told.cases} cases of {told.groups} patients, {told.folds} folds"
    output.print_table(title, ["vote of", "macro F1", "95 %"], cells)
    output.results.print(SENTENCES[told.verdict])


SENTENCES = {
    "helps": "Verdict: similar cases help on this task. Keep them.",
    "undecided": "Verdict: undecided. Similar cases look better than the prior, but chance could "
    "explain it: add reference cases of more patients.",
    "does not help": "Verdict: similar cases do not help on this task. Write rad = false in the "
    "task's file to do without.",
}


def _interval(one: "Estimate") -> str:
    return f"{one.low:.3f} to {one.high:.3f}"
