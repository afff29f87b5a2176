"""`gsco batch`: a cohort from a list; an interrupted run goes on where it was."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from service.cli import output
from service.cli.serving import JsonOption
from service.settings import Settings


def batch(
    context: typer.Context,
    manifest: Annotated[Path, typer.Argument(help="CSV or JSONL: image, task, id, …")],
    out: Annotated[
        Path | None, typer.Option(help="Results, one line of JSON a case; default beside MANIFEST.")
    ] = None,
    task: Annotated[str, typer.Option(help="For rows that name none.")] = "",
    at_once: Annotated[int, typer.Option(min=1, max=64, help="Cases answered at once.")] = 4,
    json: JsonOption = False,
) -> None:
    """Answer every case of a list and store the results, as `gsco diagnose` does with one.

    Run it again to go on: what is done is skipped, what failed is tried again. Exit code 1 where
    a case failed.
    """
    from service.batch import manifest as manifests  # torch is slow to import
    from service.batch.results import Results
    from service.cli import batching

    settings: Settings = context.obj
    rows = manifests.read(manifest, task)
    path = out or manifest.with_suffix(".results.jsonl")
    with output.progress() as bar:
        shown = bar.add_task("cases", total=len(rows))

        def tell(count: int) -> None:
            bar.update(shown, completed=count)

        work = batching.run(settings, manifest.parent, rows, Results(path), at_once, tell)
        counted = asyncio.run(work)
    if json:
        output.print_json({**counted, "results": str(path)})
    else:
        told = ", ".join(f"{count} {what}" for what, count in counted.items())
        output.messages.print(f"{told}: {path}")
    if counted["failed"]:
        raise typer.Exit(1)
