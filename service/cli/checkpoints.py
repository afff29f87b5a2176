"""`gsco generalist convert` and `check`: from a published checkpoint to a server that is fit."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from service.cli import output

if TYPE_CHECKING:
    from service.generalist.probe import Fitness
    from service.settings import Settings

MEBIBYTE = 1 << 20


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of the published files.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder of the new checkpoint.")],
    force: Annotated[bool, typer.Option("--force", help="Replace DST if it exists.")] = False,
) -> None:
    """Make a downloaded MedDr servable: LoRA merged, configuration, tokenizer, chat template."""
    from service.generalist import convert as converting

    with output.progress() as bar:
        row = bar.add_task("merging, MiB", total=None)

        def show(done: int, total: int) -> None:
            bar.update(row, completed=done // MEBIBYTE, total=total // MEBIBYTE)

        converting.convert(source, target, force=force, show=show)
    output.messages.print(
        f"wrote {target}; next: gsco generalist serve --path {target}, or vLLM on a GPU"
    )


def check(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="Address of an OpenAI-compatible server.")],
    model: Annotated[str | None, typer.Option(help="One of several models.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for each request.")] = 60.0,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Try whether a server can be the generalist, and say what is missing; exit code 1 then.

    A server that asks for a key gets that of GSCO_GENERALIST_API_KEY.
    """
    from service.generalist import probe

    settings: Settings = context.obj
    key = settings.generalist_api_key
    secret = None if key is None else key.get_secret_value()
    with output.messages.status(f"trying {escape(url)}"):
        trial = probe.probe(url, model, api_key=secret, timeout_seconds=timeout)
        fitness = asyncio.run(trial)
    if json_output:
        output.print_json({**asdict(fitness), "is_fit": fitness.is_fit})
    else:
        _print_fitness(fitness)
    if not fitness.is_fit:
        raise typer.Exit(1)


def _print_fitness(fitness: "Fitness") -> None:
    """Lines, because a sentence in a narrow cell cannot be read."""
    output.results.print(fitness.url, markup=False)
    for one in fitness.findings:
        meaning = f" ({one.meaning})" if one.meaning else ""
        line = f"  {one.what:20} {one.state:8} {one.seen}{meaning}"
        output.results.print(line, markup=False, highlight=False)
    if not fitness.is_fit:
        output.results.print("Not fit to be the generalist: see what is missing.")
        return
    output.results.print(
        f"Fit: GSCO_GENERALIST_ENGINE=vllm GSCO_GENERALIST_URL={fitness.url} "
        f"GSCO_GENERALIST_MODEL={fitness.model}",
        markup=False,
        highlight=False,
    )
