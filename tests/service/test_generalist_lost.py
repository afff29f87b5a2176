"""The generalist is killed under load: found out at once, answered for honestly, and waited for."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from decoding import process_of
from fakes import FakeSpecialists
from mortal_generalist import MODEL, Mortal, a_mortal_generalist
from serving import Service, a_service, problem_of
from tiny_generalist import a_checkpoint
from waiting import until_told

from service.generalist.embedded import EmbeddedGeneralist
from service.generalist.vllm import VllmGeneralist

FOUND_OUT_SECONDS = 2.0
CALLERS = 8


@asynccontextmanager
async def serving(home: Path, mortal: Mortal) -> AsyncIterator[Service]:
    generalist = VllmGeneralist(mortal.url, MODEL, timeout_seconds=10)
    async with a_service(home, generalist=generalist, in_sql=True) as service:  # type: ignore[arg-type]
        await service.settled()
        await until_told(lambda: readiness(service), lambda status: status == 200)
        yield service


async def readiness(service: Service) -> int:
    return (await service.client.get("/readyz")).status_code


async def seconds_until(service: Service, status: int) -> float:
    began = time.monotonic()
    await until_told(lambda: readiness(service), lambda told: told == status)
    return time.monotonic() - began


async def test_a_dead_generalist_is_found_out_and_answered_for(home: Path) -> None:
    with a_mortal_generalist() as mortal:
        async with serving(home, mortal) as service:
            mortal.kill()
            seconds = await seconds_until(service, 503)
            reply = await service.diagnose()
            parts = (await service.client.get("/readyz")).json()["parts"]

    (part,) = [part for part in parts if part["part"] == "generalist"]
    assert seconds < FOUND_OUT_SECONDS
    assert part["status"] == "unready"
    assert "no connection to the generalist's server" in part["reason"]
    assert (reply.status_code, problem_of(reply)) == (503, "generalist-unavailable")
    assert int(reply.headers["retry-after"]) > 0


async def test_what_was_last_heard_is_told_without_asking_again(home: Path) -> None:
    with a_mortal_generalist() as mortal:
        async with serving(home, mortal) as service:
            mortal.kill()
            await seconds_until(service, 503)
            began = time.monotonic()
            await asyncio.gather(*(readiness(service) for _ in range(20)))

    assert time.monotonic() - began < 2.0


async def test_a_generalist_that_comes_back_is_found_out_too(home: Path) -> None:
    with a_mortal_generalist() as mortal:
        async with serving(home, mortal) as service:
            mortal.kill()
            await seconds_until(service, 503)
            mortal.start()
            seconds = await seconds_until(service, 200)
            reply = await service.diagnose()

    assert seconds < FOUND_OUT_SECONDS
    assert reply.status_code == 201


@pytest.mark.parametrize(
    "away_seconds", [2.0, pytest.param(30.0, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
async def test_under_load_no_call_fails_unexpectedly_and_every_job_ends(
    home: Path, away_seconds: float
) -> None:
    statuses, over = Counter[int](), asyncio.Event()
    with a_mortal_generalist() as mortal:
        async with serving(home, mortal) as service:
            callers = [asyncio.create_task(call(service, statuses, over)) for _ in range(CALLERS)]
            jobs = [await job(service) for _ in range(10)]
            await asyncio.to_thread(mortal.kill)
            noticed = await seconds_until(service, 503)
            jobs += [await job(service) for _ in range(10)]
            await asyncio.sleep(away_seconds)
            await asyncio.to_thread(mortal.start)
            recovered = await seconds_until(service, 200)
            over.set()
            await asyncio.gather(*callers)
            ended = await outcomes(service, jobs)

    sys.stdout.write(f"{away_seconds:g} s away: {statuses}, {noticed:.2f} and {recovered:.2f} s\n")
    assert noticed < FOUND_OUT_SECONDS
    assert ended == {"succeeded": 20}
    assert set(statuses) == {201, 503}


@pytest.mark.slow
async def test_the_embedded_generalists_process_is_killed_under_load(
    home: Path, tmp_path: Path
) -> None:
    a_checkpoint(tmp_path / "tiny")
    generalist = EmbeddedGeneralist(tmp_path / "tiny")
    statuses, over = Counter[int](), asyncio.Event()
    async with a_service(home, generalist=generalist, in_sql=True) as service:  # type: ignore[arg-type]
        callers = [asyncio.create_task(call(service, statuses, over)) for _ in range(CALLERS)]
        jobs = [await job(service) for _ in range(10)]
        for _ in range(3):
            await asyncio.sleep(1)
            process_of(generalist).kill()
            await seconds_until(service, 503)
            recovered = await seconds_until(service, 200)
        over.set()
        await asyncio.gather(*callers)
        ended = await outcomes(service, jobs)

    sys.stdout.write(f"{statuses}, {recovered:.2f} s\n")
    assert ended == {"succeeded": 10}
    assert set(statuses) <= {201, 503}
    assert statuses[201]


async def outcomes(service: Service, jobs: list[str]) -> Counter[str]:
    async with asyncio.timeout(60):
        return Counter([await finished(service, id) for id in jobs])


async def call(service: Service, statuses: Counter[int], over: asyncio.Event) -> None:
    """A caller who does not give up."""
    while not over.is_set():
        reply = await service.diagnose()
        statuses[reply.status_code] += 1
        if reply.status_code == 503:
            assert "retry-after" in reply.headers
            await asyncio.sleep(0.1)


async def job(service: Service) -> str:
    reply = await service.ask_for_job()
    assert reply.status_code == 202
    return str(reply.json()["id"])


async def finished(service: Service, id: str) -> str:
    """How a job ended; one that was put off may take longer than `Service.ended` waits."""
    while (status := (await service.job(id))["status"]) in {"queued", "running"}:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    return str(status)


async def test_indexes_that_cannot_be_searched_degrade_readiness(home: Path) -> None:
    async with a_service(home, specialists=FakeSpecialists()) as service:
        service.retriever.broken = {"vgg16": "no index", "alexnet": "no index"}
        await service.settled()
        reply = (await service.client.get("/readyz")).json()
        figures = await service.figures()

    (part,) = [part for part in reply["parts"] if part["part"] == "retrieval for cxr-pneumonia"]
    assert (reply["status"], part["status"]) == ("degraded", "degraded")
    assert part["reason"] == "8 of 10 indexes can be searched; vgg16: no index"
    assert 'gsco_part_ready{part="retrieval for cxr-pneumonia"} 0.5' in figures
    assert 'gsco_part_ready{part="generalist"} 1.0' in figures
