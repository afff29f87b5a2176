"""DBOS, as `tests.benchmarks.jobs` asks it: `pip install dbos` first, in another environment."""

import asyncio
import sys
from pathlib import Path

from dbos import DBOS

from tests.benchmarks.jobs import noted

AT_ONCE, POLL_SECONDS = 8, 0.05


def launch(path: str, executor: str, version: str) -> None:
    DBOS(
        config={
            "name": "trial",
            "system_database_url": f"sqlite:///{path}",
            "log_level": "ERROR",
            "executor_id": executor,
            "application_version": version,
        }
    )
    DBOS.launch()


def opened(path: Path):
    @DBOS.workflow()
    async def empty() -> None:
        pass

    async def start():
        launch(str(path), "alone", "1")
        await DBOS.register_queue_async(
            "jobs", worker_concurrency=AT_ONCE, polling_interval_sec=POLL_SECONDS
        )

        async def put():
            handle = await DBOS.enqueue_workflow_async("jobs", empty)
            return handle.get_result

        async def close() -> None:
            await asyncio.to_thread(DBOS.destroy)

        return put, close

    return start


async def work(path: str, log: str, name: str, version: str, jobs: str, seconds: str) -> None:
    @DBOS.step()
    async def step(number: int) -> None:
        for wait in noted(log, name, number, float(seconds)):
            await asyncio.sleep(wait)

    @DBOS.workflow()
    async def job(number: int) -> None:
        await step(number)

    launch(path, name, version)
    await DBOS.register_queue_async("jobs", worker_concurrency=4, polling_interval_sec=0.1)
    for number in range(int(jobs)):
        await DBOS.enqueue_workflow_async("jobs", job, number)
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
