"""`Idempotency-Key`: the header, and what of a request makes it the same request again."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import Request
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from service.api.access import caller_of
from service.api.dependencies import Serving
from service.jobs import keys
from service.jobs.keys import Key

HEADER = "Idempotency-Key"
_NAME = re.compile(r'"([\x20\x21\x23-\x5b\x5d-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})')


async def key_of(request: Request, address: str, form: BaseModel, file: bytes) -> Key | None:
    """The key that the caller gave the request, a string with or without quotes; None without.

    File names and the multipart boundary are no part of what is compared.
    """
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    named = _NAME.fullmatch(given[0].strip()) if len(given) == 1 else None
    if named is None:
        raise HTTPException(400, f"{HEADER} is one string of 1 to 255 printable characters.")
    fingerprint = await asyncio.to_thread(_fingerprint, form, file)
    caller = caller_of(request).name
    return keys.key_of(caller, address, named[1] or named[2], fingerprint)


@asynccontextmanager
async def kept(serving: Serving, key: Key | None) -> AsyncIterator[None]:
    """What is done within settles the key, and leaves it free where it fails.

    A database that is away by then changes nothing for this caller: the key is free again later.
    """
    if key is None:
        yield
        return
    try:
        yield
    except BaseException:
        with suppress(SQLAlchemyError):
            await serving.office.keys.drop(key)
        raise
    with suppress(SQLAlchemyError):
        await serving.office.keys.settle(key)


def _fingerprint(form: BaseModel, file: bytes) -> str:
    words = json.dumps(form.model_dump(mode="json", exclude={"file"}), sort_keys=True)
    content = hashlib.sha256(file).hexdigest()
    return hashlib.sha256(f"{words}\0{content}".encode()).hexdigest()
