"""`gsco erase`: results go, what the audit says of them stays."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from service.cli import output
from service.cli.open_database import opened
from service.errors import Misconfigured, NotFound, UnreadableImage
from service.identity.caller import local_name
from service.persistence import erasure
from service.settings import Settings

IdsArgument = Annotated[
    list[str] | None, typer.Argument(help="Ids of diagnoses, reports or answers.")
]


def erase(
    context: typer.Context,
    ids: IdsArgument = None,
    image: Annotated[
        Path | None, typer.Option(help="Everything that was made of this image file.")
    ] = None,
    older_than_days: Annotated[
        int | None, typer.Option(min=1, help="Everything that was made so long ago.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Erase results for good, by id, by image, or by age.

    The audit keeps that they were, when and by whom, with the hash of what they were. Backups
    hold them until they are overwritten.
    """
    if sum(way is not None for way in (ids, image, older_than_days)) != 1:
        raise Misconfigured("name ids, --image or --older-than-days: one of them")
    settings: Settings = context.obj
    with opened(settings) as engine:
        if older_than_days is not None:
            moment = datetime.now(UTC) - timedelta(days=older_than_days)
            found, reason = erasure.before(engine, moment), "retention"
        elif image is not None:
            found, reason = erasure.of_image(engine, _sha256(image)), "request"
        else:
            found, reason = erasure.known(engine, ids or ()), "request"
        if not found and older_than_days is None:
            raise NotFound("there are no such results")
        if found and not yes:
            typer.confirm(f"Erase {len(found)} results for good?", abort=True, err=True)
        erased = erasure.erase(engine, found, local_name(), reason)
    if json:
        output.print_json({"erased": erased})
    else:
        output.messages.print(f"erased {erased} results")


def _sha256(image: Path) -> str:
    try:
        return hashlib.sha256(image.read_bytes()).hexdigest()
    except OSError as error:
        raise UnreadableImage(f"cannot read {image.name!r}: {error.strerror}") from error
