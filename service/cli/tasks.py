"""`gsco tasks` and `gsco db`."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli import output
from service.persistence import database as sql
from service.settings import Settings
from specialists import catalogue
from specialists import task as tasks
from specialists.segmentation import models

app = typer.Typer(
    no_args_is_help=True, help="Tasks: what is asked of which images, with which answers."
)
database = typer.Typer(no_args_is_help=True, help="The database of diagnoses and reference cases.")


@app.command()
def add(context: typer.Context, file: Path) -> None:
    """Add a task to the home folder, or replace the one of that name."""
    task = tasks.read(file)
    _demand_models(task)
    settings: Settings = context.obj
    settings.tasks_folder.mkdir(parents=True, exist_ok=True)
    target = settings.tasks_folder / f"{task.name}.toml"
    staged = target.with_suffix(".new")
    staged.write_text(file.read_text("utf-8"), "utf-8")
    staged.replace(target)
    output.messages.print(f"added task {task.name} ({len(task.labels)} labels)")


@app.command("list")
def list_tasks(
    context: typer.Context, json: Annotated[bool, typer.Option("--json")] = False
) -> None:
    """The tasks of the home folder."""
    settings: Settings = context.obj
    known = tasks.read_all(settings.tasks_folder).values()
    if json:
        output.print_json([_document(task) for task in known])
        return
    rows = [[t.name, str(t.kind), t.modality, ", ".join(t.label_names)] for t in known]
    output.print_table("Tasks", ["name", "kind", "modality", "labels"], rows)


@app.command()
def remove(context: typer.Context, name: str) -> None:
    """Remove a task; its specialists and reference cases stay."""
    settings: Settings = context.obj
    tasks.find(settings.tasks_folder, name)
    (settings.tasks_folder / f"{name}.toml").unlink()
    output.messages.print(f"removed task {name}")


@database.command("upgrade")
def upgrade(context: typer.Context) -> None:
    """Create the database's tables or bring them up to date."""
    settings: Settings = context.obj
    sql.upgrade(settings.database_url)
    output.messages.print("the database is up to date")


def _demand_models(task: tasks.Task) -> None:
    """Raises UnknownBackbone where a panel names one that is in no catalogue."""
    for key in task.panel:
        catalogue.find(key)
    for key in task.segmenters:
        models.find(key)


def _document(task: tasks.Task) -> dict[str, object]:
    labels = list(task.label_names)
    return {"name": task.name, "kind": task.kind, "modality": task.modality, "labels": labels}
