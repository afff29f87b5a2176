"""How objects get to a PACS: STOW-RS (PS3.18 section 10.5) or C-STORE (PS3.4 annex B).

Sending is safe to repeat: a PACS that has an object of the same SOP instance UID keeps that one.
Targets are those of the settings, and no other: no redirect is followed, no proxy is asked.
"""

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from typing import Any, Protocol
from uuid import uuid4

import httpx
from pydicom import dcmread
from pynetdicom import AE

from service.errors import DeliveryFailed, DeliveryRefused
from service.pacs import multipart
from service.pacs.client import opened
from service.servers import PacsTarget

_ASSOCIATIONS = 4
_JSON = "application/dicom+json"
_LONGEST_REPLY = 4 * 2**20
_FAILED, _OTHER_FAILURES, _REASON = "00081198", "0008119A", "00081197"
_THERE_ALREADY = 0x0111  # PS3.7 annex C.5.7: duplicate SOP instance
_NONSENSE = (
    *(ValueError, TypeError, AttributeError, LookupError),
    *(OverflowError, RecursionError),  # numbers and nesting without end
)
_NOT_WANTED = frozenset({400, 405, 406, 409, 413, 415, 422})


class Target(Protocol):
    """Somewhere that objects are sent to."""

    @property
    def settings(self) -> PacsTarget: ...

    async def send(self, objects: Sequence[bytes]) -> None:
        """Returns when all of these DICOM files are stored there.

        Raises DeliveryFailed where it may help to try again, DeliveryRefused where it will not.
        """

    async def close(self) -> None: ...


def target_of(settings: PacsTarget) -> Target:
    """The target that these settings describe; nothing is asked of it yet."""
    return AeTarget(settings) if settings.ae_title else StowTarget(settings)


class StowTarget:
    """A PACS with STOW-RS. `transport` is for tests that need no socket."""

    def __init__(
        self, settings: PacsTarget, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.settings = settings
        self._http = opened(settings, transport)

    async def close(self) -> None:
        await self._http.aclose()

    async def send(self, objects: Sequence[bytes]) -> None:
        """All objects in one request; see `Target.send`."""
        boundary = uuid4().hex
        kind = f'{multipart.RELATED}; type="{multipart.DICOM}"; boundary={boundary}'
        headers = {"Content-Type": kind, "Accept": _JSON, "Accept-Encoding": "identity"}
        body = multipart.body_of(objects, boundary)
        try:
            async with (
                asyncio.timeout(self.settings.timeout_seconds),
                self._http.stream("POST", "studies", content=body, headers=headers) as reply,
            ):
                said = await _bounded(reply)
        except (httpx.HTTPError, TimeoutError) as error:  # httpx quotes the address
            raise _unreachable(self.settings.name, error) from None
        await asyncio.to_thread(self._judge, reply.status_code, said)

    def _judge(self, status: int, said: bytes) -> None:
        name, document = self.settings.name, _document(said)
        if document is None and status == httpx.codes.ACCEPTED:
            raise DeliveryFailed(f"target {name!r} did not store all, and says not what")
        reasons = tuple(_reasons(document or {}))
        if any(map(_is_refusal, reasons)):
            raise DeliveryRefused(f"target {name!r} refuses an object: {_hexadecimal(reasons)}")
        failed = [reason for reason in reasons if reason != _THERE_ALREADY]
        if failed:
            raise DeliveryFailed(f"target {name!r} could not store: {_hexadecimal(failed)}")
        if 200 <= status < 300 or reasons:
            return
        refused = DeliveryRefused if status in _NOT_WANTED else DeliveryFailed
        raise refused(f"target {name!r} answered with status {status}")


class AeTarget:
    """A PACS with a storage SCP. pynetdicom waits in a thread."""

    def __init__(self, settings: PacsTarget) -> None:
        self.settings = settings
        # Threads of its own: a PACS that hangs must not hold those that others wait for.
        self._threads = ThreadPoolExecutor(_ASSOCIATIONS, thread_name_prefix="answers")
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # it quotes identifiers

    async def close(self) -> None:
        """Associations live no longer than their objects; those that are open are left to end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def send(self, objects: Sequence[bytes]) -> None:
        """All objects over one association; see `Target.send`."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._send, objects)

    def _send(self, objects: Sequence[bytes]) -> None:
        name, datasets = self.settings.name, [dcmread(BytesIO(one)) for one in objects]
        association = self._associate(datasets)
        if not association.is_established:
            raise DeliveryFailed(f"target {name!r} cannot be reached, or knows us not")
        try:
            for dataset in datasets:
                self._store(association, dataset)
            association.release()
        finally:
            if association.is_established:
                association.abort()

    def _associate(self, datasets: Sequence[Any]) -> Any:
        entity, seconds = AE(ae_title=self.settings.calling_ae_title), self.settings.timeout_seconds
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = seconds
        entity.connection_timeout = seconds
        for dataset in datasets:
            entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        title = self.settings.ae_title or ""
        return entity.associate(self.settings.host, self.settings.port, ae_title=title)

    def _store(self, association: Any, dataset: Any) -> None:
        name = self.settings.name
        try:
            status = association.send_c_store(dataset).get("Status")
        except RuntimeError as error:  # the association has ended
            raise _unreachable(name, error) from None
        except ValueError:
            raise DeliveryRefused(f"target {name!r} takes no objects of this sort") from None
        if status is None:
            raise DeliveryFailed(f"target {name!r} fell silent")
        if _is_refusal(status):
            raise DeliveryRefused(f"target {name!r} refuses an object: {status:04X}")
        if not _is_stored(status):
            raise DeliveryFailed(f"target {name!r} could not store: {status:04X}")


def _is_stored(status: int) -> bool:
    """Success, a warning, or an object that is there already."""
    return status in (0x0000, 0x0001, _THERE_ALREADY) or status & 0xF000 == 0xB000


def _is_refusal(status: int) -> bool:
    """Whether another attempt would end the same (PS3.4 table B.2-1, PS3.7 annex C)."""
    return status & 0xFF00 == 0xA900 or status & 0xF000 == 0xC000 or status in (0x0122, 0x0124)


def _unreachable(name: str, error: BaseException) -> DeliveryFailed:
    return DeliveryFailed(f"target {name!r} cannot be reached: {type(error).__name__}")


def _hexadecimal(reasons: Sequence[int]) -> str:
    return ", ".join(f"{reason:04X}" for reason in dict.fromkeys(reasons))


async def _bounded(reply: httpx.Response) -> bytes:
    """As much of the reply as is read: one that is longer says nothing that is understood."""
    found = bytearray()
    async for chunk in reply.aiter_bytes():
        found += chunk
        if len(found) > _LONGEST_REPLY:
            return b""
    return bytes(found)


def _document(said: bytes) -> Mapping[str, Any] | None:
    """A STOW-RS response in DICOM JSON; None where it is something else, or nothing."""
    with suppress(*_NONSENSE):
        found = json.loads(said)
        return found if isinstance(found, dict) else None
    return None


def _reasons(document: Mapping[str, Any]) -> Iterator[int]:
    """Why objects were not stored. Servers name FailedSOPSequence also where it is empty."""
    with suppress(*_NONSENSE):
        for tag in (_FAILED, _OTHER_FAILURES):
            for item in document.get(tag, {}).get("Value") or ():
                yield _reason(item)


def _reason(item: Mapping[str, Any]) -> int:
    """An item that does not say why, or not in a number, may succeed the next time."""
    with suppress(*_NONSENSE):
        return int(item[_REASON]["Value"][0])
    return 0x0110
