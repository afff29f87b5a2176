"""What connects this service to a PACS: images fetched, received, and answered."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from service import telemetry
from service.api import reception
from service.api.dependencies import Parts, Serving
from service.api.reception import Arrival
from service.api.tasks import TaskFolder
from service.pacs.client import DicomwebClient
from service.settings import Settings
from service.spans import Watch
from specialists.task import Task


@asynccontextmanager
async def opened_sources(settings: Settings) -> AsyncIterator[dict[str, DicomwebClient]]:
    """Clients of the DICOMweb sources, by name; nothing is asked of them yet."""
    clients = [
        DicomwebClient(source, max_instance_bytes=settings.max_upload_bytes)
        for source in settings.dicomweb_sources
    ]
    try:
        yield {client.name: client for client in clients}
    finally:
        await asyncio.gather(*(client.close() for client in clients))


@asynccontextmanager
async def answering(
    settings: Settings, parts: Parts, tasks: TaskFolder
) -> AsyncIterator[tuple[Parts, dict[str, Any]]]:
    """Parts that answer the PACS, where the settings say which, and the jobs' terms for that."""
    if not settings.pacs_targets:
        yield parts, {}
        return
    from service.pacs.delivery import NAME, Means, opened

    async def task(name: str) -> Task | None:
        return (await tasks.all()).get(name)

    means = Means(parts.store, parts.specialists.explain, task, parts.trail.record)
    async with opened(settings, parts.queue, means) as post:
        yield (
            replace(parts, deliver=post.take_over, prepare=post.prepare, arrived=post.arrived),
            {"deliveries": {NAME: post.deliver}, "tidy": post.keep_house},
        )


@asynccontextmanager
async def receiving(serving: Serving, watch: Watch) -> AsyncIterator[None]:
    """C-STORE, where the settings have a port for it: last to start, first to stop."""
    settings = serving.settings
    if settings.dicom_port is None:
        yield
        return
    from service.pacs.scp import Address, StoreScp

    async def receive(data: bytes, task: str, sender: str) -> None:
        arrival = Arrival(data, task or None, sender=sender, requested_by=f"ae:{sender}")
        with telemetry.following(watch, "C-STORE"):
            try:
                await reception.receive(serving, arrival)
            except Exception as error:
                reception.log_failure(error)
                raise

    scp = StoreScp(
        Address(
            settings.dicom_host,
            settings.dicom_port,
            settings.dicom_ae_titles,
            {title: str(host) for title, host in settings.dicom_peers.items()},
            settings.dicom_max_associations,
            settings.max_upload_bytes,
        ),
        receive,
    )
    try:
        await scp.start()
        yield
    finally:
        await scp.close()
