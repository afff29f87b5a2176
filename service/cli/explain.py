"""`gsco explain`: where the specialists looked, as pictures and raw maps."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image as Pillow

from service import composition
from service.cli import output
from service.cli.serving import FileArgument, FrameOption, JsonOption, TaskOption, read_file
from service.errors import Misconfigured
from service.settings import Settings
from specialists import catalogue
from specialists import task as tasks
from specialists.errors import SpecialistUnavailable
from specialists.overlay import enlarge, overlay
from specialists.prediction import Explanation, Pixels
from specialists.task import Task

ALL = "all"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one call asks for."""

    task: Task
    specialists: tuple[str, ...]
    label: str | None


def explain(
    context: typer.Context,
    file: FileArgument,
    task: TaskOption,
    out: Annotated[Path, typer.Option(help="The folder to write: SPECIALIST.png and .npy.")],
    specialist: Annotated[str, typer.Option(help="A specialist of the panel, or all.")] = ALL,
    label: Annotated[
        str | None, typer.Option(help="Default: the one each specialist finds most probable.")
    ] = None,
    frame: FrameOption = None,
    json: JsonOption = False,
) -> None:
    """Show where specialists looked: an overlay, and the map (height, width) as float32 0 to 1."""
    settings: Settings = context.obj
    found = tasks.find(settings.tasks_folder, task)
    if not found.is_labelled:
        raise Misconfigured(
            f"task {task!r} is a {found.kind} task without specialists of its own: "
            f"use --task {found.consults}"
        )
    names = catalogue.panel_of(found) if specialist == ALL else (specialist,)
    data, asked = read_file(file), _Asked(found, names, label)
    rows = asyncio.run(_explain(settings, data, frame, asked, out))
    if json:
        output.print_json(rows)
        return
    columns = ["specialist", "label", "probability", "missing"]
    cells = [[output.shown(row[column]) for column in columns] for row in rows]
    output.print_table(f"Where they looked, {found.name}", columns, cells)
    output.messages.print(f"wrote overlays (.png) and maps (.npy) to {out}")


async def _explain(
    settings: Settings, data: bytes, frame: int | None, asked: _Asked, out: Path
) -> list[dict[str, Any]]:
    async with composition.running_panel(settings) as (intake, panel):
        pixels = (await intake.decode(data, frame=frame)).image.pixels
        rows: list[dict[str, Any]] = []
        with output.progress() as bar:
            row = bar.add_task("looking", total=len(asked.specialists))
            for name in asked.specialists:
                try:
                    made = await panel.explain(pixels, asked.task, name, asked.label)
                except SpecialistUnavailable as error:
                    if len(asked.specialists) == 1:
                        raise
                    rows.append(_missing(name, error))
                else:
                    rows.append(await asyncio.to_thread(_write, out, pixels, made))
                bar.advance(row)
    if all(row["overlay"] is None for row in rows):
        raise SpecialistUnavailable(f"no specialist of task {asked.task.name!r} can answer")
    return rows


def _write(out: Path, pixels: Pixels, made: Explanation) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    picture, raw = out / f"{made.specialist}.png", out / f"{made.specialist}.npy"
    heat = enlarge(made.grid, *pixels.shape[:2])
    Pillow.fromarray(overlay(pixels, heat)).save(picture)
    np.save(raw, heat, allow_pickle=False)
    return {
        "specialist": made.specialist,
        "label": made.label,
        "probability": made.probability,
        "overlay": str(picture),
        "map": str(raw),
        "missing": None,
    }


def _missing(name: str, error: SpecialistUnavailable) -> dict[str, Any]:
    nothing = dict.fromkeys(("label", "probability", "overlay", "map"))
    return {"specialist": name, **nothing, "missing": str(error)}
