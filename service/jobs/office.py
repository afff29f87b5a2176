"""The jobs of one process: who takes them in, who does them, and who tells of their end."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import uuid4

from service.jobs import cases, webhooks
from service.jobs.cases import CaseJobs, Limits
from service.jobs.job import Job, State
from service.jobs.keys import Keys
from service.jobs.queue import Queue
from service.jobs.runner import Handler, Lane, Runner
from service.jobs.spool import Spool
from service.jobs.webhooks import Webhooks
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.spans import Tracer

DELIVERIES_AT_ONCE = 8


@dataclass(frozen=True)
class Terms:
    """What an operator decides of jobs; see the settings of the same names."""

    limits: Limits
    spool: Path
    workers: int
    lease_seconds: float
    webhook_urls: tuple[str, ...] = ()
    webhook_secrets: tuple[bytes, ...] = ()
    deliveries: Mapping[str, Handler] = field(default_factory=dict)
    """Other work that is to be delivered, by name; done beside webhooks, and never in their way."""

    tidy: Callable[[], Awaitable[None]] | None = None
    """Removes what such deliveries have left; done now and then."""


@dataclass(frozen=True)
class Office:
    """What a service needs of its jobs to answer for them."""

    jobs: CaseJobs
    keys: Keys
    webhooks: Webhooks
    runner: Runner
    spool: Spool

    async def check(self) -> None:
        """Returns when jobs are taken in and worked on; raises Overloaded with what is wrong."""
        self.runner.check()
        await asyncio.to_thread(self.spool.check)


@asynccontextmanager
async def running(
    terms: Terms,
    queue: Queue,
    pipeline: Pipeline,
    ready: Callable[[], Awaitable[None]],
    metrics: Metrics,
    tracer: Tracer | None = None,
) -> AsyncIterator[Office]:
    """The jobs, worked on until this is left; what is not done then is done by whoever comes next.

    `ready` returns when cases can be answered, and raises while they cannot. `tracer` keeps
    traces of them. Raises OSError where the spool cannot be written.
    """
    spool, worker = Spool(terms.spool), uuid4().hex
    place = await asyncio.to_thread(spool.open)
    jobs = CaseJobs(queue, spool, place, pipeline, terms.limits, metrics, tracer)
    keys = Keys(queue, worker, terms.lease_seconds)
    async with webhooks.a_client() as client:
        hooks = Webhooks(terms.webhook_urls, terms.webhook_secrets, client)
        runner = Runner(
            queue,
            _lanes(jobs, hooks, terms, ready, metrics),
            worker=worker,
            lease_seconds=terms.lease_seconds,
            place=place,
            housekeeping=partial(_tidied, jobs, terms),
        )
        jobs.stopped_by(runner.stop)
        try:
            await runner.start()
            yield Office(jobs, keys, hooks, runner, spool)
        finally:
            await runner.close()


async def _tidied(jobs: CaseJobs, terms: Terms) -> None:
    await jobs.keep_house()
    if terms.tidy is not None:
        await terms.tidy()


def _lanes(
    jobs: CaseJobs,
    hooks: Webhooks,
    terms: Terms,
    ready: Callable[[], Awaitable[None]],
    metrics: Metrics,
) -> tuple[Lane, ...]:
    """What is done at once: cases, webhooks, and other deliveries where there are any."""
    answering = dict.fromkeys(cases.CASES, jobs.handle)
    delivering = ({webhooks.NAME: hooks.deliver}, terms.deliveries)
    return (
        Lane(answering, terms.workers, cases.judge, ready, jobs.ended),
        *(_delivering(handlers, metrics) for handlers in delivering if handlers),
    )


def _delivering(handlers: Mapping[str, Handler], metrics: Metrics) -> Lane:
    timed = {name: _timed(handler, metrics) for name, handler in handlers.items()}

    async def ended(job: Job, state: State) -> None:
        metrics.jobs_ended.labels(job.name, state.value).inc()

    return Lane(timed, DELIVERIES_AT_ONCE, webhooks.judge, ended=ended)


def _timed(handler: Handler, metrics: Metrics) -> Handler:
    async def handle(job: Job) -> bool:
        started, outcome = time.perf_counter(), "failed"
        try:
            has_ended = await handler(job)
            outcome = "delivered"
        finally:
            seconds = time.perf_counter() - started
            metrics.deliveries.labels(job.name, outcome).observe(seconds)
        return has_ended

    return handle
