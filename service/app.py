"""The composition root of the HTTP service: which parts there are, started and stopped in order."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog
from fastapi import FastAPI

from service import composition, telemetry
from service.api import routes
from service.api.admission import Admission
from service.api.dependencies import Generalist, Parts, Serving
from service.api.peers import answering, opened_sources, receiving
from service.api.performing import performing
from service.api.probe import Probe
from service.api.tasks import TaskFolder
from service.errors import Misconfigured
from service.generalist import template as templates
from service.identity import rates
from service.identity.configured import public_client, token_rules
from service.identity.gate import opened_gate
from service.identity.rates import Rates
from service.identity.sign_in import opened_sign_in
from service.jobs import office as jobs
from service.jobs import webhooks
from service.jobs.cases import Limits
from service.jobs.office import Terms
from service.metrics import Metrics
from service.settings import Settings, read_settings, unknown_variables
from service.spans import Tracer, Watch

if TYPE_CHECKING:  # SQLAlchemy is loaded when the parts are made
    from service.tracing import Traces

log = structlog.stdlib.get_logger(__name__)


def create_app(
    settings: Settings, parts: Parts | None = None, tracer: Tracer | None = None
) -> FastAPI:
    """The service as an ASGI application; parts and tracer are made from the settings unless given.

    Its lifespan starts the parts and stops them. A part that cannot start stops the start, with
    its own error; specialists are loaded afterwards, in the background.
    """
    # What is set wrongly stops here, not in the server's start.
    templates.find(settings.prompt_template)
    tokens, client = token_rules(settings), public_client(settings)
    rates.parse(settings.rate_limit)
    if parts is None:
        composition.refuse_device(settings)
    terms = _terms(settings)
    if not structlog.is_configured():
        prepare_logging(settings)  # the default would print local variables: images and identifiers
    metrics, traces = Metrics(), _traces(settings)
    watch = Watch(metrics.note_span, tracer or traces)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if traces is not None:
                stack.push_async_callback(asyncio.to_thread, traces.close)
            running = await stack.enter_async_context(composition.running_parts(settings, parts))
            tasks = TaskFolder(settings.tasks_folder, running.specialists.load)
            stack.push_async_callback(tasks.close)
            await tasks.start()
            running, deliveries = await stack.enter_async_context(
                answering(settings, running, tasks)
            )
            office = jobs.running(
                replace(terms, **deliveries),
                running.queue,
                running.pipeline,
                lambda: _can_answer(tasks, running.generalist),
                metrics,
                watch.tracer,
            )
            cases = settings.max_concurrent_cases
            serving = Serving(
                settings,
                running,
                tasks,
                admission=Admission(cases, metrics.cases),
                receiving=Admission(cases, metrics.receiving),
                metrics=metrics,
                generalist=await stack.enter_async_context(_probed(running.generalist)),
                office=await stack.enter_async_context(office),
                listening=Admission(cases, metrics.listening, "jobs are heard"),
                gate=await stack.enter_async_context(opened_gate(tokens, running.keys)),
                rates=Rates(settings.rate_limit),
                sources=await stack.enter_async_context(opened_sources(settings)),
                sign_in=await stack.enter_async_context(opened_sign_in(client)),
            )
            app.state.serving = serving
            await stack.enter_async_context(performing(serving, watch))
            await stack.enter_async_context(receiving(serving, watch))
            if parts is None:
                await stack.enter_async_context(_settling(tasks))
            log.info("started", version=app.version, engine=settings.generalist_engine)
            yield
        log.info("stopped")

    app = FastAPI(
        title="GSCo",
        version=version("gsco"),
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    routes.install(app, settings, metrics, watch)
    return app


def from_environment() -> FastAPI:
    """For servers that take a factory: `uvicorn --factory service.app:from_environment`."""
    return create_app(read_settings())


def prepare_logging(settings: Settings) -> None:
    """How and what this process logs; names variables that look like settings and are none."""
    telemetry.configure_logging(settings.log_level, settings.log_format)
    for name, nearest in unknown_variables().items():
        log.warning("unknown setting", variable=name, did_you_mean=nearest)


@asynccontextmanager
async def _settling(tasks: TaskFolder) -> AsyncIterator[None]:
    """Once all is loaded, it is taken out of the garbage collector's rounds: each would stop
    every thread for a third of a second. What is replaced later is freed by its last reference.
    """

    async def settle() -> None:
        await tasks.loaded()
        gc.collect()
        gc.freeze()

    settling = asyncio.create_task(settle(), name="settle")
    try:
        yield
    finally:
        settling.cancel()
        await asyncio.gather(settling, return_exceptions=True)
        gc.unfreeze()


@asynccontextmanager
async def _probed(generalist: Generalist) -> AsyncIterator[Probe]:
    """The generalist, asked all the time whether it can answer."""
    probe = Probe("generalist", generalist.check)
    await probe.start()
    try:
        yield probe
    finally:
        await probe.close()


def _traces(settings: Settings) -> "Traces | None":
    if not settings.otlp_endpoint:
        return None
    try:
        from service import tracing

        return tracing.opened(settings.otlp_endpoint, settings.trace_share)
    except ImportError:
        raise Misconfigured(
            "GSCO_OTLP_ENDPOINT needs OpenTelemetry: install the extra 'otel'"
        ) from None


async def _can_answer(tasks: TaskFolder, generalist: Generalist) -> None:
    """Returns when jobs can be answered as they should be; raises GeneralistUnavailable."""
    await tasks.loaded()
    await generalist.check()


def _terms(settings: Settings) -> Terms:
    return Terms(
        Limits(
            settings.max_queued_jobs,
            settings.max_spool_bytes,
            keep=timedelta(hours=settings.job_retention_hours),
            keep_keys=timedelta(hours=settings.idempotency_hours),
        ),
        settings.spool_folder,
        settings.job_workers,
        settings.job_lease_seconds,
        settings.webhook_urls,
        webhooks.secrets_of(settings.webhook_secret.get_secret_value()),
    )
