"""Callers of a service: so many at once (closed loop), or so many a second (open loop)."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx

TIMEOUT_SECONDS = 120
CONNECTIONS = 512

Cases = Iterator[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Reply:
    """One request: when it was due, how long its caller waited since, and what came.

    `status` is 0 where nothing came. `stages` are the service's own seconds, by stage.
    """

    at: float
    seconds: float
    status: int
    retry_after: str | None
    stages: dict[str, float]

    @property
    def is_error(self) -> bool:
        """A full service says so, and when to come again; all else but an answer is an error."""
        is_busy = self.status == httpx.codes.SERVICE_UNAVAILABLE and self.retry_after is not None
        return not (self.status == httpx.codes.CREATED or is_busy)


async def closed(url: str, cases: Cases, callers: int, seconds: float) -> list[Reply]:
    """Each caller asks again as soon as it was answered; one told to wait waits a moment."""
    clock = asyncio.get_running_loop().time
    end, replies = clock() + seconds, []

    async def call(http: httpx.AsyncClient) -> None:
        while clock() < end:
            reply = await ask(http, *next(cases), due=clock())
            replies.append(reply)
            if reply.status != httpx.codes.CREATED:
                await asyncio.sleep(0.2)

    async with client(url) as http:
        await asyncio.gather(*(call(http) for _ in range(callers)))
    return replies


async def opened(
    url: str, cases: Cases, rate: float, seconds: float, burst: int = 1
) -> list[Reply]:
    """Cases arrive on time, whether or not earlier ones were answered, `burst` of them together.

    A caller's wait counts from when its case was due, so a service that stalls cannot hide it.
    """
    clock = asyncio.get_running_loop().time
    start = clock()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(client(url))
        asking = await stack.enter_async_context(asyncio.TaskGroup())
        sent = []
        for number in range(int(rate * seconds)):
            due = start + number // burst * burst / rate
            await asyncio.sleep(max(0.0, due - clock()))
            sent.append(asking.create_task(ask(http, *next(cases), due=due)))
    return [task.result() for task in sent]


def client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    return httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False)


async def ask(http: httpx.AsyncClient, task: str, image: bytes, due: float) -> Reply:
    clock = asyncio.get_running_loop().time
    files = {"file": ("case", image)}
    try:
        reply = await http.post("/v1/diagnoses", files=files, data={"task": task})
    except httpx.TransportError:
        return Reply(due, clock() - due, 0, None, {})
    stages = reply.json()["durations_seconds"] if reply.status_code == httpx.codes.CREATED else {}
    return Reply(due, clock() - due, reply.status_code, reply.headers.get("retry-after"), stages)
