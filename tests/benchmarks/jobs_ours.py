"""The queue of `service.jobs`, as `tests.benchmarks.jobs` asks it."""

import asyncio
import os
import sys
from pathlib import Path

from service.jobs.job import Job, State, Work
from service.jobs.queue import Queue
from service.jobs.runner import Failure, Lane, Runner
from service.persistence.database import open_engine, upgrade
from tests.benchmarks.jobs import noted

AT_ONCE = 8


def opened(path: Path):
    engine = open_engine(f"sqlite:///{path}")
    upgrade(engine)

    async def start():
        queue, ends = Queue(engine), {}

        async def nothing(job: Job) -> bool:
            return False

        async def told(job: Job, _: State) -> None:
            ends[job.id].set()

        lane = Lane({"empty": nothing}, AT_ONCE, lambda _: Failure.FINAL, ended=told)
        runner = Runner(queue, (lane,), worker="alone", lease_seconds=15)
        await runner.start()

        async def put():
            work = Work("empty", {})
            ends[work.id] = asyncio.Event()
            await queue.put(work)
            return ends[work.id].wait

        async def close() -> None:
            await runner.close()
            queue.close()
            engine.dispose()

        return put, close

    return start


async def work(path: str, log: str, name: str, _: str, jobs: str, seconds: str) -> None:
    engine = open_engine(f"sqlite:///{path}")
    upgrade(engine)
    queue = Queue(engine)

    async def do(job: Job) -> bool:
        for wait in noted(log, name, job.work.argument["number"], float(seconds)):
            await asyncio.sleep(wait)
        return False

    for number in range(int(jobs)):
        await queue.put(Work("job", {"number": number}))
    lane = Lane({"job": do}, 4, lambda _: Failure.COUNTED)
    await Runner(queue, (lane,), worker=f"{name}-{os.getpid()}", lease_seconds=15).start()
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
