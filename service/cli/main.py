"""`gsco`: the command line's root.

Exit codes: 0 done; 1 failed; 2 wrong use: what was named is not there or cannot be used.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from sqlalchemy.exc import DBAPIError

from retrieval.errors import RetrievalError
from service.cli import (
    audit,
    batch,
    compare,
    demo,
    erase,
    evaluate,
    explain,
    generalist,
    jobs,
    keys,
    phantoms,
    retrieval,
    serving,
    specialists,
    study,
    tasks,
)
from service.cli.output import messages
from service.errors import GscoError, InvalidInput, Misconfigured, NotFound
from service.settings import read_settings
from specialists.errors import (
    InvalidDataset,
    InvalidRecipe,
    InvalidTask,
    InvalidWeights,
    SpecialistRefused,
    SpecialistsError,
    UnknownBackbone,
    UnknownLabel,
    UnknownTask,
)

WRONG_USE = (
    InvalidTask,
    InvalidInput,
    UnknownTask,
    UnknownBackbone,
    UnknownLabel,
    InvalidWeights,
    InvalidDataset,
    InvalidRecipe,
    SpecialistRefused,
    Misconfigured,
    NotFound,
)

app = typer.Typer(
    name="gsco",
    help="Generalist–specialist collaboration for medical images. Assists; does not diagnose.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("demo")(demo.demo)
app.command("serve")(serving.serve)
app.command("diagnose")(serving.diagnose)
app.command("report")(serving.report)
app.command("ask")(serving.ask)
app.command("batch")(batch.batch)
app.command("explain")(explain.explain)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("erase")(erase.erase)
app.add_typer(tasks.app, name="tasks")
app.add_typer(specialists.app, name="specialists")
app.add_typer(retrieval.app, name="retrieval")
app.add_typer(generalist.app, name="generalist")
app.add_typer(jobs.app, name="jobs")
app.add_typer(phantoms.app, name="phantoms")
app.add_typer(study.app, name="study")
app.add_typer(tasks.database, name="db")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")


@app.callback()
def root(
    context: typer.Context,
    home: Annotated[Path | None, typer.Option(help="Home folder; default GSCO_HOME.")] = None,
) -> None:
    """Everything else is set by GSCO_* variables: see docs/operations.md."""
    context.obj = read_settings(home=home)


@app.command("version")
def show_version() -> None:
    """The version of this code, as diagnoses record it."""
    typer.echo(version("gsco"))


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: one clear sentence and an exit code for every expected failure."""
    try:
        app(args=arguments)
    except (GscoError, SpecialistsError, RetrievalError) as error:
        _fail(str(error), 2 if isinstance(error, WRONG_USE) else 1)
    except OSError as error:
        _fail(f"{error.filename or 'input or output'}: {error.strerror or error}", 1)
    except DBAPIError as error:
        _fail(f"the database cannot be used: {error.orig}", 1)


def _fail(sentence: str, code: int) -> NoReturn:
    messages.print(f"gsco: {sentence}", style="bold red", markup=False, highlight=False)
    sys.exit(code)
