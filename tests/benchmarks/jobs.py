"""Durable jobs on SQLite: what they cost, and who goes on when a process dies.

`--engine dbos` asks the same of DBOS, in an environment that has it: decision 0011.
"""

import asyncio
import importlib
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

ENGINES = ("ours", "dbos")
WATCHED_SECONDS = 45.0
JOBS = 8


def main(engine: str, count: int, *, as_json: bool) -> None:
    with TemporaryDirectory() as folder:
        place = Path(folder)
        module = importlib.import_module(f"tests.benchmarks.jobs_{engine}")
        result = asyncio.run(measured(module.opened(place / "cost.db"), count))
        result |= another_replica(engine, place)
        result |= second_process(engine, place)
        result |= upgrade(engine, place)
    print(json.dumps(result, indent=2) if as_json else as_text(result))


async def measured(opened: Callable[[], Awaitable], count: int) -> dict[str, object]:
    """What empty jobs cost. `opened` starts an engine and gives `put`, which awaits its end."""
    started = time.perf_counter()
    put, close = await opened()
    launch = time.perf_counter() - started
    await asyncio.sleep(2)
    cpu = time.process_time()
    await asyncio.sleep(10)
    idle = (time.process_time() - cpu) / 10
    started = time.perf_counter()
    ends = [await put() for _ in range(count)]
    putting = (time.perf_counter() - started) / count
    for end in ends:
        await end()
    total = time.perf_counter() - started
    waits = []
    for number in range(15):
        await asyncio.sleep(0.07 * number % 1)
        started = time.perf_counter()
        await (await put())()
        waits.append(time.perf_counter() - started)
    await close()
    return {
        "start_ms": round(1000 * launch),
        "put_ms": round(1000 * putting, 1),
        "jobs_per_second": round(count / total),
        "idle_job_median_ms": round(1000 * statistics.median(waits)),
        "idle_cpu_share": round(idle, 3),
    }


def another_replica(engine: str, place: Path) -> dict[str, object]:
    """A replica dies with jobs; another, which lives, is watched."""
    log = place / "replica"
    first = worker(engine, place, log, "a", jobs=JOBS, seconds=0.5)
    second = worker(engine, place, log, "b")
    wait(lambda: sum(line[:2] == ["begin", "a"] for line in lines(log)) >= 2)
    end(first)
    died = time.monotonic()
    wait(lambda: len(ended(log)) == JOBS, WATCHED_SECONDS)
    after = time.monotonic() - died
    end(second)
    return {"after_a_death": f"{len(ended(log))} of {JOBS} done within {after:.1f} s"}


def second_process(engine: str, place: Path) -> dict[str, object]:
    """A second process of the same name starts while the first works."""
    log = place / "second"
    first = worker(engine, place, log, "local", jobs=4, seconds=6)
    wait(lambda: sum(line[0] == "begin" for line in lines(log)) >= 4)
    second = worker(engine, place, log, "local")
    time.sleep(20)
    begun = Counter(line[2] for line in lines(log) if line[0] == "begin")
    end(first, second)
    twice = sum(count > 1 for count in begun.values())
    return {"begun_twice_by_a_second_process": f"{twice} of 4"}


def upgrade(engine: str, place: Path) -> dict[str, object]:
    """A process dies with jobs, and the next version of the application starts in its place."""
    log = place / "upgrade"
    first = worker(engine, place, log, "c", jobs=JOBS, seconds=0.5)
    wait(lambda: sum(line[0] == "begin" for line in lines(log)) >= 2)
    end(first)
    second = worker(engine, place, log, "c", version="2")
    wait(lambda: len(ended(log)) == JOBS, WATCHED_SECONDS)
    end(second)
    return {"after_an_upgrade": f"{len(ended(log))} of {JOBS} done"}


def worker(
    engine: str,
    place: Path,
    log: Path,
    name: str,
    *,
    jobs: int = 0,
    seconds: float = 0.5,
    version: str = "1",
) -> subprocess.Popen[bytes]:
    given = [place / f"{log.name}.db", log, name, version, jobs, seconds]
    command = [sys.executable, "-m", f"tests.benchmarks.jobs_{engine}", *map(str, given)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def end(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def lines(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def ended(log: Path) -> set[str]:
    return {line[2] for line in lines(log) if line[0] == "end"}


def wait(holds: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not holds():
        time.sleep(0.05)


def noted(log: str, name: str, job: object, seconds: float) -> Iterator[float]:
    """What a job does: says that it begins, takes its time, says that it ends."""
    with Path(log).open("a") as file:
        file.write(f"begin {name} {job}\n")
    yield seconds
    with Path(log).open("a") as file:
        file.write(f"end {name} {job}\n")


def as_text(result: dict[str, object]) -> str:
    return "\n".join(f"{name:34} {value}" for name, value in result.items())
