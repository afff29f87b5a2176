"""`gsco demo`: the whole collaboration on synthetic cases, through the real service."""

import asyncio
from typing import Annotated

import typer

from service.cli import output
from service.demo import home, show
from service.settings import Settings


def demo(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Show the cases and exit.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Prepare the home folder, serve, send one case per demo task, and keep serving."""
    from service.cli.serving import serving

    settings: Settings = context.obj
    with output.progress() as bar:
        row = bar.add_task("preparing the home folder", total=None)
        home.prepare(settings, lambda done, total: bar.update(row, completed=done, total=total))
    asyncio.run(_demo(settings, serving, once=once, json=json))
