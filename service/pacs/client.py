"""Images by reference: a DICOMweb source of the settings is searched and read (PS3.18).

A caller names a source and UIDs, never an address. Nothing leads elsewhere: redirects are not
followed, proxies of the environment are not used, replies are bounded in size and time.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from service.errors import ImageTooLarge, InvalidInput, NotFound, SourceUnavailable
from service.intake.deidentify import is_uid
from service.pacs import multipart
from service.servers import DicomwebServer, DicomwebSource

MOST_INSTANCES = 64
_JSON = "application/dicom+json"
_RELATED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_LONGEST_LIST = 4 * 2**20  # bytes of JSON that a search may answer
_SERIES, _SOP_CLASS, _INSTANCE, _MODALITY = "0020000E", "00080016", "00080018", "00080060"


@dataclass(frozen=True, slots=True)
class Reference:
    """What of a source is meant: a study, a series of it, or one instance."""

    study_instance_uid: str
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            uid = getattr(self, name)
            if uid is not None and not is_uid(uid):
                raise InvalidInput(f"{name} is not a DICOM unique identifier")


@dataclass(frozen=True, slots=True)
class Found:
    """One instance that a search found."""

    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    modality: str


class DicomwebClient:
    """One configured source. `transport` is for tests that need no socket."""

    def __init__(
        self,
        source: DicomwebSource,
        *,
        max_instance_bytes: int,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.name = source.name
        self._max = max_instance_bytes
        self._seconds = source.timeout_seconds
        self._http = opened(source, transport)

    async def close(self) -> None:
        await self._http.aclose()

    async def instances(self, wanted: Reference) -> tuple[Found, ...]:
        """What the source has of it (QIDO-RS), at most 64.

        A source may pass over what it was asked for, and answer with the whole study: the rest is
        left out. Raises NotFound for nothing, InvalidInput for more, SourceUnavailable where the
        source does not answer or not as DICOMweb does.
        """
        listed = [_instance(one) for one in await self._search(wanted)]
        found = [one for one in listed if _is_meant(one, wanted)]
        if not found:
            raise NotFound(f"source {self.name!r} has no such instance, series or study")
        if len(found) > MOST_INSTANCES:
            raise InvalidInput(f"more than {MOST_INSTANCES} instances: name one, or a series")
        return tuple(found)

    async def read(self, study_instance_uid: str, instance: Found) -> bytes:
        """The instance as a DICOM file, in the transfer syntax it is stored in (WADO-RS).

        Raises as `instances` does, and ImageTooLarge.
        """
        address = (
            f"studies/{study_instance_uid}/series/{instance.series_instance_uid}"
            f"/instances/{instance.sop_instance_uid}"
        )
        async with self._get(address, _RELATED) as response:
            content_type = response.headers.get("content-type", "")
            parts = multipart.parts(response.aiter_raw(), content_type, self._max)
            async with aclosing(parts):
                try:
                    return await anext(parts)
                except StopAsyncIteration:
                    raise self._strange() from None
                except InvalidInput as error:
                    if isinstance(error, ImageTooLarge):
                        raise
                    raise self._strange() from None

    async def _search(self, wanted: Reference) -> list[Mapping[str, Any]]:
        limits = {"limit": str(MOST_INSTANCES + 1), "includefield": _MODALITY}
        address = f"studies/{wanted.study_instance_uid}/instances"
        if wanted.series_instance_uid:
            address = (
                f"studies/{wanted.study_instance_uid}/series/{wanted.series_instance_uid}/instances"
            )
        if wanted.sop_instance_uid:
            limits["SOPInstanceUID"] = wanted.sop_instance_uid
        async with self._get(address, _JSON, limits) as response:
            if response.status_code == httpx.codes.NO_CONTENT:
                return []
            return await asyncio.to_thread(self._list, await self._bounded(response))

    @asynccontextmanager
    async def _get(
        self, address: str, accept: str, query: Mapping[str, str] | None = None
    ) -> AsyncIterator[httpx.Response]:
        headers = {"Accept": accept, "Accept-Encoding": "identity"}  # bombs come compressed
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._http.stream("GET", address, headers=headers, params=query) as response,
            ):
                self._check(response)
                yield response
        except (httpx.HTTPError, TimeoutError) as error:  # httpx quotes the address, with its UIDs
            kind = type(error).__name__
            raise SourceUnavailable(f"source {self.name!r} does not answer: {kind}") from None

    def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        if status == httpx.codes.NOT_FOUND:
            raise NotFound(f"source {self.name!r} has no such instance, series or study")
        if status not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT, httpx.codes.NO_CONTENT):
            raise SourceUnavailable(f"source {self.name!r} answered with status {status}")

    async def _bounded(self, response: httpx.Response) -> bytes:
        found = bytearray()
        async for chunk in response.aiter_raw():
            found += chunk
            if len(found) > _LONGEST_LIST:
                raise self._strange()
        return bytes(found)

    def _list(self, text: bytes) -> list[Mapping[str, Any]]:
        try:
            found = json.loads(text or b"[]")
        except (ValueError, RecursionError):  # it may be nested without end
            raise self._strange() from None
        if not isinstance(found, list) or not all(_is_instance(one) for one in found):
            raise self._strange()
        return found

    def _strange(self) -> SourceUnavailable:
        return SourceUnavailable(f"source {self.name!r} answered with something else than DICOMweb")


def opened(server: DicomwebServer, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    """What asks a server of the settings, as whom they say, and nobody else."""
    return httpx.AsyncClient(
        base_url=server.url.rstrip("/") + "/",
        timeout=server.timeout_seconds,
        follow_redirects=False,
        trust_env=False,
        transport=transport,
        **_authorised(server),
    )


def _authorised(server: DicomwebServer) -> dict[str, Any]:
    token = server.token.get_secret_value()
    if token:
        return {"headers": {"Authorization": f"Bearer {token}"}}
    if not server.user:
        return {}
    return {"auth": httpx.BasicAuth(server.user, server.password.get_secret_value())}


def _is_meant(found: Found, wanted: Reference) -> bool:
    series, instance = wanted.series_instance_uid, wanted.sop_instance_uid
    is_series = series in (None, found.series_instance_uid)
    return is_series and instance in (None, found.sop_instance_uid)


def _instance(found: Mapping[str, Any]) -> Found:
    return Found(*(_value(found, tag) for tag in (_SERIES, _INSTANCE, _SOP_CLASS, _MODALITY)))


def _is_instance(found: Any) -> bool:
    """Whether a search names what is needed to read it, in identifiers that fit an address."""
    if not isinstance(found, dict):
        return False
    return all(is_uid(_value(found, tag)) for tag in (_SERIES, _INSTANCE))


def _value(found: Mapping[str, Any], tag: str) -> str:
    element = found.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""
