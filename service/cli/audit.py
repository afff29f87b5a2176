"""`gsco audit`: whether the record of who did what is whole, and a copy of it for elsewhere."""

import json as text
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from service.audit import chain
from service.audit.chain import Head, Row
from service.audit.event import Action, Event
from service.cli import output
from service.cli.open_database import opened
from service.errors import AuditBroken, Misconfigured
from service.identity.caller import local_name
from service.persistence import recorded, trail
from service.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The audit: who did what, when, on what grounds.")


@app.command()
def verify(
    context: typer.Context,
    noted: Annotated[
        str | None,
        typer.Option(help="A head printed on an earlier day: it must still be in the chain."),
    ] = None,
    results: Annotated[
        bool, typer.Option("--results", help="Also that every result is the one recorded.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check every event against the one before; exit code 1 names the first that does not hold.

    Print the head and keep it elsewhere: it tells later whether the end was cut off.
    """
    settings: Settings = context.obj
    try:
        with opened(settings) as engine:
            head = trail.verify(engine, _head(noted))
            unrecorded = recorded.check(engine) if results else None
    except AuditBroken as error:
        if json:
            output.print_json({"holds": False, "reason": str(error)})
        raise
    if json:
        told = {"holds": True, "events": head.number, "head": str(head)}
        output.print_json(told if unrecorded is None else {**told, "unrecorded": unrecorded})
        return
    output.messages.print("the audit holds; its head, number and hash of the last event, is")
    output.results.out(str(head), highlight=False)
    if unrecorded:
        output.messages.print(f"{unrecorded} results are older than the audit")


@app.command()
def export(
    context: typer.Context,
    fhir: Annotated[bool, typer.Option("--fhir", help="As FHIR R4B AuditEvents.")] = False,
    out: Annotated[Path | None, typer.Option(help="File to write; default: print.")] = None,
    case: Annotated[str | None, typer.Option(help="Events of this result only.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Events since then, in UTC.")] = None,
) -> None:
    """Every event as one line of JSON; what is exported has been checked, and is recorded."""
    settings: Settings = context.obj
    with opened(settings) as engine:
        event = Event(Action.EXPORTED, local_name(), "audit", "fhir" if fhir else "json")
        trail.record(engine, event)
        chosen = _chosen(trail.events(engine), case, since)
        lines = _as_fhir(chosen) if fhir else _as_json(chosen)
        if out is None:
            for line in lines:
                typer.echo(line)
        else:
            _write(out, lines)


def _head(noted: str | None) -> Head | None:
    try:
        return None if noted is None else chain.head_of(noted)
    except ValueError as error:
        raise Misconfigured(f"--noted: {error}") from None


def _chosen(
    events: Iterator[tuple[Row, Event]], case: str | None, since: datetime | None
) -> Iterator[tuple[Row, Event]]:
    for row, event in events:
        is_case = case is None or event.id == case
        if is_case and (since is None or event.at.replace(tzinfo=None) >= since):
            yield row, event


def _as_json(events: Iterator[tuple[Row, Event]]) -> Iterator[str]:
    for row, _ in events:
        yield text.dumps({**text.loads(row.entry), "sha256": row.sha256})


def _as_fhir(events: Iterator[tuple[Row, Event]]) -> Iterator[str]:
    from service.pacs.audit_event import audit_event  # slow to import

    return (audit_event(row, event) for row, event in events)


def _write(path: Path, lines: Iterator[str]) -> None:
    """The whole file or none of it."""
    fresh = path.with_name(f"{path.name}.part")
    with fresh.open("w", encoding="utf-8") as file:
        count = sum(1 for line in lines if file.write(f"{line}\n"))
    fresh.replace(path)
    output.messages.print(f"wrote {count} events to {path}")
