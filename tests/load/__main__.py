"""Load on a service: so many callers at once, or so many cases a second, for a bounded time.

make load                                                    a service of its own, 4 callers, 30 s
make load ARGS="--concurrency 32 --duration 300"             closed loop
make load ARGS="--rate 5 --burst 10 --duration 120"          open loop, ten cases at a time
make load ARGS="--without-models --concurrency 1"            what is left without the models
make load ARGS="--stages 96 --concurrency 16"                what the stages cost by themselves
make load ARGS="--chaos"                                     parts taken away, one after another
make load ARGS="--url http://127.0.0.1:8000 --pid 4711"      a service that runs already
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.load import chaos, driving, stages, summary
from tests.load.cases import mixed
from tests.load.process import watched
from tests.load.served import Served, a_served_home

LONGEST_SECONDS = 600


def main() -> None:
    options = _options()
    with _home(options.home) as home:
        if options.chaos:
            found = chaos.main(home)
            result = {one.fault: asdict(one) if options.json else one for one in found}
        elif options.stages:
            costs = stages.measure(home, options.stages, options.concurrency)
            result = stages.summary(costs, os.cpu_count() or 1)
        else:
            with _service(options, home) as served:
                result = asdict(asyncio.run(load(served, options)))
    print(json.dumps(result, indent=2) if options.json else _lines(result))


async def load(served: Served, options: argparse.Namespace) -> summary.Figures:
    """Both loops over mixed cases, after a few to warm up."""
    cases, clock = mixed(), asyncio.get_running_loop().time
    await driving.closed(served.url, cases, callers=2, seconds=3)
    seconds = min(options.duration, LONGEST_SECONDS)
    if options.rate:
        work = driving.opened(served.url, cases, options.rate, seconds, options.burst)
    else:
        work = driving.closed(served.url, cases, options.concurrency, seconds)
    began, used = clock(), time.process_time()
    replies, looks = await watched(work, served.process_id)
    return summary.figures(replies, looks, clock() - began, time.process_time() - used)


@contextmanager
def _home(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="gsco-load-") as folder:
        yield Path(folder)


@contextmanager
def _service(options: argparse.Namespace, home: Path) -> Iterator[Served]:
    if options.url:
        yield Served(options.url, options.pid)
        return
    with a_served_home(home, without_models=options.without_models) as served:
        yield served


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="a service that runs already; default: one of its own")
    parser.add_argument("--pid", type=int, help="of that service, to watch its memory")
    parser.add_argument("--home", type=Path, help="home folder of its own service, to keep")
    parser.add_argument("--duration", type=float, default=30, help="seconds, at most 600")
    parser.add_argument("--concurrency", type=int, default=4, help="callers of the closed loop")
    parser.add_argument("--rate", type=float, help="cases a second of the open loop")
    parser.add_argument("--burst", type=int, default=1, help="cases that arrive together")
    parser.add_argument(
        "--without-models", action="store_true", help="they answer from memory: the rest remains"
    )
    parser.add_argument("--stages", type=int, help="measure the stages on so many cases instead")
    parser.add_argument("--chaos", action="store_true", help="take parts away under load instead")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _lines(result: dict[str, Any]) -> str:
    return "\n".join(f"{name:34} {value}" for name, value in result.items())


if __name__ == "__main__":
    main()
