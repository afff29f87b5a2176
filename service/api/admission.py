"""How many cases are diagnosed at once, and what happens when their callers leave."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from prometheus_client import Gauge

from service.errors import Overloaded

T = TypeVar("T")


class Admission:
    """Lets in as many as there is room for; the next one is told to come again."""

    def __init__(self, limit: int, gauge: Gauge, inside: str = "cases are being diagnosed") -> None:
        self._limit = limit
        self._what = inside
        self._inside = 0
        self._gauge = gauge

    def check(self) -> None:
        """Raises Overloaded when there is no room."""
        if self._inside >= self._limit:
            raise Overloaded(f"{self._limit} {self._what}: try again later")

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Holds a place for one case; raises Overloaded when there is none."""
        self.check()
        self._inside += 1
        self._gauge.set(self._inside)
        try:
            yield
        finally:
            self._inside -= 1
            self._gauge.set(self._inside)


class AdmittedRoute(APIRoute):
    """Turns a case away before its body is received when there is no room for it, now or later.

    A place is held only once the body is there: slow senders would hold them all.
    """

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()

        async def admitted(request: Request) -> Response:
            if request.method == "POST":
                await _check_room(request)
            return await handle(request)

        return admitted


def prefers_async(request: Request) -> bool:
    """Whether the caller would rather be answered later: RFC 7240 section 4.1."""
    given = ",".join(request.headers.getlist("prefer")).lower()
    return "respond-async" in (one.partition(";")[0].strip() for one in given.split(","))


async def _check_room(request: Request) -> None:
    serving = request.app.state.serving
    if prefers_async(request):
        await serving.jobs.check_room()
    else:
        serving.admission.check()


class CallerLeft(Exception):
    """The caller closed the connection before the answer was there."""


async def unless_abandoned(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work, which is cancelled when the caller leaves (CallerLeft).

    Work that is done nevertheless, because it was being stored already, has its result.
    The request's body must have been read.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await _cancel(working)
        if working.cancelled():
            raise CallerLeft
        return working.result()
    finally:
        await _cancel(working, leaving)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
