"""`gsco keys`: who may ask the service, without a person behind a browser."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from service.cli import output
from service.cli.open_database import opened
from service.errors import Misconfigured
from service.identity import keys, rates
from service.identity.caller import Scope, local_name
from service.identity.keys import LONGEST_LIFE_DAYS, Key
from service.persistence import keys as kept
from service.settings import Settings

LONGEST_NAME = 100

app = typer.Typer(no_args_is_help=True, help="API keys: made, listed and revoked.")
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What holds the key, such as 'ward 3 gateway'.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; may be repeated.")],
    days: Annotated[
        int, typer.Option(min=1, max=LONGEST_LIFE_DAYS, help="Until it expires.")
    ] = 365,
    rate: Annotated[
        str | None, typer.Option(help="Of its own, such as 60/minute; default GSCO_RATE_LIMIT.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    if not (name.isprintable() and 0 < len(name) <= LONGEST_NAME):
        raise Misconfigured(f"a key's name has 1 to {LONGEST_NAME} printable characters")
    if rate is not None:
        rates.parse(rate)
    settings: Settings = context.obj
    key, text = keys.make(name, scope, datetime.now(UTC), days, rate)
    with opened(settings) as engine:
        kept.add(engine, key, local_name())
    if json:
        output.print_json({**_document(key), "key": text})
        return
    output.messages.print(
        f"made key {key.id} ({', '.join(sorted(key.scopes))}), "
        f"valid until {key.expires_at:%Y-%m-%d}; it is shown this once:"
    )
    output.results.out(text, highlight=False)


@app.command("list")
def list_keys(context: typer.Context, json: JsonOption = False) -> None:
    """Every key that was made, the newest first."""
    settings: Settings = context.obj
    with opened(settings) as engine:
        documents = [_document(key) for key in kept.every(engine)]
    if json:
        output.print_json(documents)
        return
    columns = ["id", "name", "scopes", "state", "expires_at", "last_used_at"]
    rows = [[_cell(column, document[column]) for column in columns] for document in documents]
    output.print_table("API keys", columns, rows)


@app.command()
def revoke(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="As `gsco keys list` shows it; the key's middle part.")],
) -> None:
    """End a key, at once and for good."""
    settings: Settings = context.obj
    with opened(settings) as engine:
        key = kept.revoke(engine, id, local_name())
    output.messages.print(f"revoked key {key.id} ({key.name})")


def _document(key: Key) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "rate": key.rate,
        "state": key.state(datetime.now(UTC)),
        "created_at": key.created_at.isoformat(timespec="seconds"),
        "expires_at": key.expires_at.isoformat(timespec="seconds"),
        "last_used_at": key.last_used_at and key.last_used_at.isoformat(timespec="seconds"),
    }


def _cell(column: str, value: Any) -> str:
    """Of a moment its day is enough here."""
    if isinstance(value, list):
        return ", ".join(value)
    return output.shown(value[:10] if value and column.endswith("_at") else value)
