"""`gsco jobs`: what is in the queue, and what an operator may do about it."""

from collections.abc import Callable
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer
from sqlalchemy.orm import Session

from service.cli import output
from service.cli.open_database import opened
from service.cli.serving import JsonOption
from service.errors import Misconfigured
from service.jobs import overview, queue
from service.jobs.cases import CASES
from service.jobs.job import Job, State
from service.jobs.spool import Spool
from service.persistence.database import writing
from service.settings import Settings

LONGEST_LIST = 10_000
OPEN, DEAD = (State.QUEUED, State.RUNNING), (State.FAILED,)
P = ParamSpec("P")
T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Jobs, and what is to be told when they have ended.")
LimitOption = Annotated[int, typer.Option(min=1, max=LONGEST_LIST, help="The newest so many.")]


@app.command("list")
def list_jobs(
    context: typer.Context,
    state: Annotated[
        list[State] | None, typer.Option(help="Only jobs in this state; may be repeated.")
    ] = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
) -> None:
    """Cases that are answered later: how each stands."""
    found = _within(context, overview.recent, CASES, state or list(State), limit)
    _show("Jobs", found, json=json)


@app.command()
def waiting(context: typer.Context, limit: LimitOption = 50, json: JsonOption = False) -> None:
    """Webhooks and other deliveries that have not arrived yet: why the last attempt failed."""
    _show("Waiting deliveries", _within(context, _told, OPEN, limit), json=json)


@app.command()
def dead(context: typer.Context, limit: LimitOption = 50, json: JsonOption = False) -> None:
    """Dead letters: webhooks and other deliveries that were given up."""
    _show("Dead letters", _within(context, _told, DEAD, limit), json=json)


@app.command()
def resend(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(help="Of dead letters.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every dead letter.")] = False,
) -> None:
    """Try dead letters again, with all their attempts before them, in a running service."""
    if bool(ids) == everything:
        raise Misconfigured("name the dead letters to send again, or all of them with --all")
    count = _within(context, _resend, None if everything else ids)
    output.messages.print(f"in the queue again: {count}")
    if ids and count < len(set(ids)):
        raise typer.Exit(1)


@app.command()
def cancel(context: typer.Context, id: str) -> None:
    """End a job before its time; a service that is at it stops within seconds."""
    settings: Settings = context.obj
    _within(context, queue.cancel, id, CASES)
    Spool(settings.spool_folder).remove(id)
    output.messages.print(f"cancelled job {id}")


def _told(session: Session, states: tuple[State, ...], limit: int) -> tuple[Job, ...]:
    return overview.recent(session, _deliveries(session), states, limit)


def _resend(session: Session, ids: list[str] | None) -> int:
    return queue.resend(session, _deliveries(session), ids)


def _deliveries(session: Session) -> set[str]:
    """Names of all work that is no case: a case that failed has lost its image."""
    return {name for name, _ in overview.counts(session)} - CASES


def _within(
    context: typer.Context,
    act: Callable[Concatenate[Session, P], T],
    *given: P.args,
    **named: P.kwargs,
) -> T:
    """What a function of a session returns, once it is committed."""
    settings: Settings = context.obj
    with opened(settings) as engine, writing(engine) as session:
        return act(session, *given, **named)


def _show(title: str, jobs: tuple[Job, ...], *, json: bool) -> None:
    if json:
        output.print_json([_document(job) for job in jobs])
        return
    columns = ["id", "kind", "state", "priority", "put in", "attempts", "problem"]
    output.print_table(title, columns, [_row(job) for job in jobs])


def _row(job: Job) -> list[str]:
    document = _document(job)
    problem = document["problem"] or {}
    said = ": ".join(filter(None, (problem.get("error"), problem.get("detail"))))
    told = ("id", "name", "state", "priority", "created_at", "attempts")
    return [*(str(document[name]) for name in told), said]


def _document(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state.value,
        "priority": job.work.priority.name.lower(),
        "created_at": job.created_at.isoformat(timespec="seconds"),
        "ended_at": job.ended_at and job.ended_at.isoformat(timespec="seconds"),
        "attempts": job.attempts,
        "problem": job.problem and {"error": job.problem.error, "detail": job.problem.detail},
    }
