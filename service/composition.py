"""The real parts, made as the settings say: for the service, the command line and cohorts alike.

Heavy libraries are imported where a part is made: who needs no torch does not wait for it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from service.api.dependencies import Generalist, Intake, Panel, Parts, Retriever
from service.calibrated import Calibrated
from service.errors import Misconfigured
from service.gathering import tell_turn
from service.generalist import template as templates
from service.jobs.queue import Queue
from service.pipeline import Pipeline
from service.settings import MEBIBYTE, Settings

if TYPE_CHECKING:  # SQLAlchemy is loaded when the parts are made
    from sqlalchemy import Engine


@asynccontextmanager
async def running_parts(settings: Settings, parts: Parts | None = None) -> AsyncIterator[Parts]:
    """The parts, made from the settings unless given; started here and closed afterwards.

    Intake first: its processes start before models take memory. Closing goes in reverse.
    """
    async with AsyncExitStack() as stack:
        running = parts or await _compose(settings, stack)
        for part in (running.intake, running.generalist, running.retriever, running.specialists):
            stack.push_async_callback(part.close)  # also where the start fails half-way
            await part.start()
        yield running


@asynccontextmanager
async def running_generalist(settings: Settings) -> AsyncIterator[Generalist]:
    """The generalist alone, started here and closed afterwards."""
    generalist = await asyncio.to_thread(_make_generalist, settings)
    try:
        await generalist.start()
        yield generalist
    finally:
        await generalist.close()


@asynccontextmanager
async def running_panel(settings: Settings) -> AsyncIterator[tuple[Intake, Panel]]:
    """Intake and the specialists alone, started here and closed afterwards."""
    async with AsyncExitStack() as stack:
        intake = _make_intake(settings)
        stack.push_async_callback(intake.close)
        await intake.start()
        panel = await asyncio.to_thread(_make_specialists, settings)
        stack.push_async_callback(panel.close)
        await panel.start()
        yield intake, panel


@asynccontextmanager
async def running_retriever(settings: Settings) -> AsyncIterator[Retriever]:
    """Retrieval alone, as the service has it, started here and closed afterwards."""
    async with AsyncExitStack() as stack:
        retriever = await asyncio.to_thread(_make_retriever, settings, _engine(settings, stack))
        stack.push_async_callback(retriever.close)
        await retriever.start()
        yield retriever


async def _compose(settings: Settings, stack: AsyncExitStack) -> Parts:
    """The real parts. Importing torch takes seconds, so it is done in a thread, as is all SQL."""
    return await asyncio.to_thread(_make_parts, settings, stack)


def _make_parts(settings: Settings, stack: AsyncExitStack) -> Parts:
    from service.persistence.keys import SqlKeys
    from service.persistence.store import SqlStore
    from service.persistence.trail import SqlTrail

    template = templates.find(settings.prompt_template)
    engine = _engine(settings, stack)
    queue = Queue(engine)
    stack.callback(queue.close)
    specialists = _make_specialists(settings)
    retriever = _make_retriever(settings, engine)
    generalist = _make_generalist(settings)
    store = SqlStore(engine)
    return Parts(
        pipeline=Pipeline(
            specialists,
            retriever,
            generalist,
            store,
            template,
            Calibrated(settings.calibration_folder),
        ),
        specialists=specialists,
        retriever=retriever,
        generalist=generalist,
        store=store,
        intake=_make_intake(settings),
        queue=queue,
        keys=SqlKeys(engine),
        trail=SqlTrail(engine),
    )


def _engine(settings: Settings, stack: AsyncExitStack) -> "Engine":
    from service.persistence.database import open_engine, upgrade

    engine = open_engine(settings.database_url)
    stack.callback(engine.dispose)
    upgrade(engine)
    return engine


def _make_retriever(settings: Settings, engine: "Engine") -> Retriever:
    from retrieval.neighbour import Filter
    from retrieval.retriever import FaissRetriever

    return FaissRetriever(
        engine,
        settings.indexes_folder,
        neighbours=settings.neighbours,
        only=Filter(
            settings.retrieval_sources,
            settings.retrieval_licences,
            settings.retrieval_modalities,
            settings.retrieval_since,
        ),
    )


def _make_intake(settings: Settings) -> Intake:
    from service.intake.limits import Limits
    from service.intake.sandbox import Sandbox

    limits = Limits(
        max_bytes=settings.max_upload_bytes,
        max_pixels=settings.max_pixels,
        memory_bytes=settings.decode_memory_bytes,
        timeout_seconds=settings.decode_timeout_seconds,
        queue=settings.max_concurrent_cases,
    )
    key = settings.pseudonym_key.get_secret_value().encode()
    return Sandbox(
        limits,
        workers=settings.decode_workers,
        key=key,
        refuse_text=settings.burned_in_text == "refuse",
    )


def _make_specialists(settings: Settings) -> Panel:
    if settings.specialists_url:
        from service.remote_specialists import RemoteSpecialists

        return RemoteSpecialists(
            settings.specialists_url, timeout_seconds=settings.specialists_timeout_seconds
        )
    from specialists.pool import SpecialistPool

    refuse_device(settings)
    bound = settings.specialists_memory_mb
    return SpecialistPool(
        settings.specialists_folder,
        device=settings.device,
        threads=settings.threads,
        memory_bytes=bound and bound * MEBIBYTE,
        told=tell_turn,
    )


def refuse_device(settings: Settings) -> None:
    """Raises Misconfigured where the specialists' device is not there."""
    if settings.specialists_url or settings.device == "cpu":
        return
    from specialists import cuda

    if reason := cuda.refusal(settings.device):
        raise Misconfigured(f"GSCO_DEVICE {settings.device!r} cannot be used: {reason}")


def _make_generalist(settings: Settings) -> Generalist:
    if settings.generalist_engine == "embedded":
        from service.generalist.embedded import EmbeddedGeneralist

        # The panel computes at the same time; threads that wait for each other are the slowest.
        return EmbeddedGeneralist(
            settings.generalist_path,
            adapter=settings.generalist_adapter,
            threads=settings.threads or 1,
            timeout_seconds=settings.generalist_timeout_seconds,
        )
    from service.generalist.vllm import VllmGeneralist

    secret = settings.generalist_api_key
    return VllmGeneralist(
        settings.generalist_url,
        settings.generalist_model,
        api_key=secret.get_secret_value() if secret else None,
        timeout_seconds=settings.generalist_timeout_seconds,
    )
