"""`gsco generalist bootstrap`: instruction data from images whose diagnosis is known."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from service.cli import output
from service.cli.choices import DataOption, TaskOption
from service.composition import running_generalist
from service.evaluation.cases import cases_of
from service.settings import Settings
from specialists import task as tasks
from specialists.training import dataset


def write_instructions(
    context: typer.Context,
    task: TaskOption,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The JSON lines to write; images stay where they are.")],
    limit: Annotated[int, typer.Option(min=1, help="Cases of the train split.")] = 1000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Ask a teacher, given image, modality and diagnosis, to follow instructions.

    The teacher is the generalist that GSCO_GENERALIST_* names: best a large one. Answers that do
    not name the diagnosis, or are too long, are left out.
    """
    from service.generalist.training.bootstrap import Guided, bootstrap  # torch is slow to import

    settings: Settings = context.obj
    found = tasks.find(settings.tasks_folder, task)
    cases, _ = cases_of(found, dataset.read(data, found).split("train"), limit).read()
    guided = [Guided(one.case.id, one.case.image, one.labels) for one in cases]

    async def write() -> int:
        kept = 0
        fresh = out.with_name(f"{out.name}.part")
        with output.progress() as bar, fresh.open("w", encoding="utf-8") as lines:
            row = bar.add_task("asking the teacher", total=len(guided))
            async with running_generalist(settings) as teacher:
                async for one in bootstrap(teacher, found, guided, seed):
                    lines.write(one.line() + "\n")
                    kept += 1
                    bar.advance(row)
        fresh.replace(out)
        return kept

    output.messages.print(f"wrote {asyncio.run(write())} instructions to {out}")
