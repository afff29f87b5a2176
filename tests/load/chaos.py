"""What a service answers while its parts are taken away under load, and how soon it is well again.

    make load ARGS="--chaos"

One fault after another on a service of its own; PostgreSQL and libfaketime take part where they are
installed. Every caller must get an answer, or 503 with Retry-After: all else is an error. A replica
of the panel on Ray is killed in tests/e2e/test_ray_panel.py.
"""

import asyncio
import os
import resource
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from service.demo.tasks import demo_tasks
from specialists.loader import WEIGHTS
from tests import postgres
from tests.load import driving
from tests.load.cases import mixed
from tests.load.process import descendants
from tests.load.served import Served, a_served_home

CALLERS = 8
CROWD = 200
BEFORE_SECONDS, AFTER_SECONDS = 2.0, 3.0
WELL_SECONDS = 60.0
GENERALIST, DECODER = "service.generalist.worker", "service.intake.worker"
LATE_SECONDS = "5"
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")

Act = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done, how long it lasts until it is undone, and who asks beside the others."""

    name: str
    begin: Act
    seconds: float = 0.0
    end: Act = lambda: None
    crowd: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Answers by status from the fault on, those that nobody should get, and when all was well.

    `well_after_seconds` count from the end of the fault.
    """

    fault: str
    statuses: dict[int, int]
    errors: int
    well_after_seconds: float

    def __str__(self) -> str:
        return f"{self.statuses}, {self.errors} errors, well after {self.well_after_seconds} s"


def main(home: Path) -> list[Outcome]:
    """Raises TimeoutError where the service is not well again within a minute."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres.a_server()) if _has_postgres() else None
        clock = Path(stack.enter_context(tempfile.NamedTemporaryFile(suffix=".clock")).name)
        served = stack.enter_context(
            a_served_home(
                home,
                database_url=server.new_database() if server else "",
                environment={"GSCO_GENERALIST_TIMEOUT_SECONDS": LATE_SECONDS, **_skewable(clock)},
            )
        )
        faults = list(_faults(served, home, server, clock))
        return asyncio.run(_all(served, faults))


async def _all(served: Served, faults: list[Fault]) -> list[Outcome]:
    await driving.closed(served.url, mixed(), CALLERS, 3)  # warm
    return [await _under_load(served, fault) for fault in faults]


async def _under_load(served: Served, fault: Fault) -> Outcome:
    clock = asyncio.get_running_loop().time
    over = asyncio.Event()
    calling = asyncio.create_task(_callers(served.url, CALLERS, over))
    await asyncio.sleep(BEFORE_SECONDS)
    began = clock()
    await asyncio.to_thread(fault.begin)
    crowd = asyncio.create_task(driving.closed(served.url, mixed(), fault.crowd, fault.seconds))
    await asyncio.sleep(fault.seconds)
    await asyncio.to_thread(fault.end)
    ended = clock()
    await asyncio.sleep(0.2)  # what is broken shows
    await _until_well(served.url)
    well = clock() - ended
    await asyncio.sleep(AFTER_SECONDS)
    over.set()
    replies = [
        reply for reply in [*await calling, *await crowd] if reply.at + reply.seconds >= began
    ]
    statuses = Counter(reply.status for reply in replies)
    errors = sum(reply.is_error for reply in replies)
    return Outcome(fault.name, dict(sorted(statuses.items())), errors, round(well, 2))


async def _callers(url: str, count: int, over: asyncio.Event) -> list[driving.Reply]:
    replies: list[driving.Reply] = []
    while not over.is_set():
        replies += await driving.closed(url, mixed(), count, 1)
    return replies


async def _until_well(url: str) -> None:
    """Ready, and a case is answered."""
    async with asyncio.timeout(WELL_SECONDS), driving.client(url) as http:
        while True:
            ready = (await http.get("/readyz")).status_code == httpx.codes.OK
            task, image = next(mixed())
            if ready and (await driving.ask(http, task, image, 0)).status == httpx.codes.CREATED:
                return
            await asyncio.sleep(0.1)


def _faults(
    served: Served, home: Path, server: postgres.Server | None, clock: Path
) -> Iterator[Fault]:
    service = served.process_id or 0
    weights = home / "specialists" / demo_tasks()[0].task.name / "alexnet" / WEIGHTS
    yield Fault("generalist killed", lambda: _signal(service, GENERALIST, signal.SIGKILL))
    yield Fault("generalist hangs", lambda: _signal(service, GENERALIST, signal.SIGSTOP))
    yield Fault("decoder killed", lambda: _signal(service, DECODER, signal.SIGKILL))
    yield Fault("a crowd asks", lambda: None, 5, crowd=CROWD)
    yield Fault("disk full", lambda: _let_write(service, 0), 3, lambda: _let_write(service, -1))
    yield Fault("weights broken", lambda: _break(weights), 6, lambda: _mend(weights))
    if server is not None:
        yield Fault("database crashes", server.restart)
        yield Fault("database away", server.stop, 5, server.start)
    if FAKETIME.exists():
        for offset in ("+2h", "-2h"):
            set_, back = partial(_set, clock, offset), partial(_set, clock, "+0")
            yield Fault(f"clock {offset}", set_, 3, back)


def _signal(service: int, module: str, number: signal.Signals) -> None:
    """To the service's child that runs a module."""
    for child in descendants(service):
        if module in Path(f"/proc/{child}/cmdline").read_text():
            os.kill(child, number)
            return
    raise RuntimeError(f"the service has no process of {module}")


def _let_write(process: int, most_bytes: int) -> None:
    """How long a file that the process writes may become; -1: as long as it likes."""
    resource.prlimit(process, resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))


def _break(weights: Path) -> None:
    shutil.copy(weights, weights.with_suffix(".kept"))
    weights.write_bytes(b"rubbish")


def _mend(weights: Path) -> None:
    weights.with_suffix(".kept").replace(weights)


def _set(clock: Path, offset: str) -> None:
    clock.write_text(offset)


def _skewable(clock: Path) -> Mapping[str, str]:
    if not FAKETIME.exists():
        return {}
    _set(clock, "+0")
    return {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _has_postgres() -> bool:
    try:
        postgres.program("pg_ctl")
    except AssertionError:
        return False
    return True
