"""Load on a running service: phantoms at a steady concurrency, for a bounded time.

make load ARGS="--url http://127.0.0.1:8000 --duration 30 --concurrency 4"
"""

import argparse
import asyncio
import statistics
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from service.demo import phantoms
from service.demo.tasks import demo_tasks

LONGEST_SECONDS = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--duration", type=float, default=30)
    parser.add_argument("--concurrency", type=int, default=4)
    options = parser.parse_args()
    asyncio.run(load(options.url, min(options.duration, LONGEST_SECONDS), options.concurrency))


async def load(url: str, seconds: float, concurrency: int) -> None:
    images = [(demo.task.name, png(next(demo.series(1, seed=9)))) for demo in demo_tasks()]
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            while time.monotonic() < end:
                task, image = images[(number + len(latencies)) % len(images)]
                started = time.perf_counter()
                files = {"file": ("case", image)}
                reply = await http.post("/v1/diagnoses", files=files, data={"task": task})
                latencies.append(time.perf_counter() - started)
                statuses[reply.status_code] += 1

    await asyncio.gather(*(client(number) for number in range(concurrency)))
    report(latencies, statuses, seconds)


def report(latencies: list[float], statuses: Counter[int], seconds: float) -> None:
    ordered = sorted(latencies)
    print(f"{len(ordered)} requests, {len(ordered) / seconds:.1f} a second, {dict(statuses)}")
    p95 = ordered[int(0.95 * (len(ordered) - 1))]
    print(f"latency: median {statistics.median(ordered):.3f} s, p95 {p95:.3f} s")


def png(phantom: phantoms.Phantom) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "case.png"
        phantoms.write_png(phantom, path)
        return path.read_bytes()


if __name__ == "__main__":
    main()
