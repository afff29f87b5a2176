"""Images by reference: where a form with a file is taken, JSON may name an instance instead."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers
from starlette.types import Message, Receive
from starlette.types import Scope as AsgiScope

from service.api import examples, replies
from service.api.admission import AdmittedRoute
from service.api.dependencies import Serving
from service.audit.event import Action
from service.errors import InvalidInput
from service.intake.deidentify import pseudonym
from service.pacs.client import DicomwebClient, Reference

JSON = "application/json"
_PIECE = 64 * 1024

Handler = Callable[[Request], Awaitable[Response]]


class InstanceReference(BaseModel):
    """One instance on a DICOMweb source of the settings, in place of `file`: never an address.

    What else the form takes goes beside it.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.INSTANCE]})
    __pydantic_extra__: dict[str, str | int | list[str] | None]

    source: str = Field(min_length=1, max_length=64, description="its name in the settings")
    study_instance_uid: str = Field(max_length=64)
    series_instance_uid: str | None = Field(None, max_length=64)
    sop_instance_uid: str = Field(max_length=64)


BY_REFERENCE: Mapping[str, Any] = {
    "requestBody": {
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/InstanceReference"}}}
    }
}
"""What the OpenAPI document says of such a route beside its form."""


class _ReferringRoute(APIRoute):
    def get_route_handler(self) -> Handler:  # type: ignore[override]
        handle = super().get_route_handler()

        async def referred(request: Request) -> Response:
            if request.method == "POST" and is_json(request.headers):
                request = await _as_if_sent(request)
            return await handle(request)

        return referred


class ImageRoute(AdmittedRoute, _ReferringRoute):
    """A route of a form with a file, which also takes the file from a source."""


def is_json(headers: Headers) -> bool:
    """Whether a body says that it is JSON."""
    return headers.get("content-type", "").split(";")[0].strip().lower() == JSON


def source_of(serving: Serving, name: str) -> DicomwebClient:
    """The client of a source by its name; raises InvalidInput."""
    client = serving.sources.get(name)
    if client is None:
        known = ", ".join(serving.sources) or "none"
        raise InvalidInput(f"no such source; those of the settings: {known}")
    return client


async def record_read(request: Request, serving: Serving, source: str, uid: str) -> None:
    """Tells the audit that a source was read; of what, by a pseudonym where there is a key."""
    known_as = pseudonym(serving.settings.pseudonym_key.get_secret_value().encode(), uid)
    details = {"of": known_as} if known_as else {}
    await replies.record(request, serving, Action.READ, "source", source, **details)


async def _as_if_sent(request: Request) -> Request:
    """The request as it would be if the file that it names were in its form."""
    asked = _read(await request.body())
    serving: Serving = request.app.state.serving
    file = await _fetched(serving, asked)
    await record_read(request, serving, asked.source, asked.sop_instance_uid)
    fields = {name: value for name, value in (asked.model_extra or {}).items() if value is not None}
    form = httpx.Request("POST", "http://form", data=fields, files={"file": ("instance", file)})
    body = await asyncio.to_thread(form.read)
    sent = {
        b"content-type": form.headers["content-type"].encode(),
        b"content-length": b"%d" % len(body),
    }
    others = [pair for pair in request.scope["headers"] if pair[0] not in sent]
    scope: AsgiScope = {**request.scope, "headers": [*others, *sent.items()]}
    return Request(scope, _replayed(body, request.receive))


def _read(body: bytes) -> InstanceReference:
    try:
        return InstanceReference.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        told = [{**one, "loc": ("body", *one["loc"])} for one in found]
        raise RequestValidationError(told) from None


async def _fetched(serving: Serving, asked: InstanceReference) -> bytes:
    client, study = source_of(serving, asked.source), asked.study_instance_uid
    wanted = Reference(study, asked.series_instance_uid, asked.sop_instance_uid)
    with serving.receiving.enter():  # what is fetched is held in memory
        found = await client.instances(wanted)
        return await client.read(study, found[0])


def _replayed(body: bytes, rest: Receive) -> Receive:
    """What is received: this body, then whatever comes after the one that it stands for.

    In pieces, as from a socket, between which others have their turn.
    """
    starts = iter(range(0, len(body), _PIECE))

    async def receive() -> Message:
        start = next(starts, None)
        if start is None:
            return await rest()
        await asyncio.sleep(0)
        piece, goes_on = body[start : start + _PIECE], start + _PIECE < len(body)
        return {"type": "http.request", "body": piece, "more_body": goes_on}

    return receive
