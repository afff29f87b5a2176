"""`gsco study`: readers rank what several systems wrote, without knowing which wrote what."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli import output
from service.evaluation import study_cases, study_key

app = typer.Typer(
    no_args_is_help=True, help="Blinded reader study: reports or answers of systems, ranked."
)


@app.command()
def create(
    cases: Annotated[Path, typer.Option(help="JSONL: id, systems, image, reference.")],
    out: Annotated[Path, typer.Option(help="The study's folder, new or empty.")],
    readers: Annotated[int, typer.Option(min=1)] = 3,
    cases_per_reader: Annotated[int | None, typer.Option(min=1, help="Default: all.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="As secret as the key; default: drawn.")
    ] = None,
) -> None:
    """Write a sheet and a page per reader, and the key that must not reach them."""
    from service.evaluation import study  # its statistics are slow to import

    found = study_cases.read_cases(cases)
    ids, systems = [case.id for case in found], list(found[0].texts)
    key = study_key.drawn(ids, systems, readers, cases_per_reader, seed)
    with output.progress() as bar:
        row = bar.add_task("reading images", total=len(found))
        study.create(found, key, out, lambda: bar.advance(row))
    _warn_of(study_cases.telling_cases(found))
    output.messages.print(
        f"wrote {readers} sheets and pages of {len(key.readers[0])} cases each to {out}; "
        f"keep {study_key.FILE} away from the readers",
        markup=False, highlight=False,
    )  # fmt: skip


@app.command("import")
def import_sheets(
    folder: Annotated[Path, typer.Argument(help="The study's folder.")],
    sheets: Annotated[list[Path], typer.Argument(help="Filled sheets, one per reader.")],
    out: Annotated[Path | None, typer.Option(help="Also write the Markdown tables here.")] = None,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Un-blind filled sheets: mean ranks, agreement of the readers, preferences in pairs."""
    from service.evaluation import study, study_table  # as above

    result = study.result(folder, sheets)
    document = study_table.markdown(result)
    if out is not None:
        out.write_text(document, "utf-8")
    if json:
        output.print_json(study_table.as_json(result))
    else:
        output.results.out(document, highlight=False)


def _warn_of(telling: list[str]) -> None:
    if telling:
        output.messages.print(
            f"warning: texts of {len(telling)} cases name a system, such as case {telling[0]!r}: "
            "readers may tell who wrote them",
            style="yellow", markup=False, highlight=False,
        )  # fmt: skip
