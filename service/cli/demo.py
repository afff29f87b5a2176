"""`gsco demo`: the whole collaboration on synthetic cases, through the real service."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import typer
import uvicorn

from service.app import create_app, prepare_logging
from service.cli import diagnosis_view, output, text_view
from service.demo import show
from service.errors import GscoError, Misconfigured
from service.identity.configured import refuse_exposure
from service.settings import Settings

REQUEST_TIMEOUT_SECONDS = 60


def demo(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Show the cases and exit.")] = False,
    prepare_only: Annotated[
        bool, typer.Option("--prepare-only", help="Fill the home folder for `gsco serve` and exit.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Prepare the home folder, serve, send one case per demo task, and keep serving."""
    from service.demo import home  # torch is slow to import, and most verbs do without

    settings: Settings = context.obj
    if settings.authentication and not prepare_only:
        raise Misconfigured("the demo asks as nobody: unset GSCO_AUTHENTICATION, or `gsco serve`")
    if not prepare_only:
        refuse_exposure(settings, settings.host)
    with output.progress() as bar:
        row = bar.add_task("preparing the home folder", total=None)
        home.prepare(settings, lambda task: bar.update(row, description=f"preparing {task}"))
    if prepare_only:
        return
    prepare_logging(settings.model_copy(update={"log_level": "warning"}))
    asyncio.run(_demo(settings, once=once, json=json))


async def _demo(settings: Settings, *, once: bool, json: bool) -> None:
    listener = _listener(settings)
    address = "http://{}:{}".format(*listener.getsockname()[:2])
    async with _service(settings, listener) as serving:
        async with httpx.AsyncClient(base_url=address, timeout=REQUEST_TIMEOUT_SECONDS) as client:
            shown = await show.send_all(client)
            report = await show.write_report(client)
        _print(shown, report, json=json)
        if once:
            return
        output.messages.print(
            f"open {address} in a browser (the API's description: {address}/openapi.json); "
            "Ctrl-C ends"
        )
        await serving


@asynccontextmanager
async def _service(
    settings: Settings, listener: socket.socket
) -> AsyncIterator[asyncio.Task[None]]:
    """The real service in this process, accepting requests; the task ends when it does."""
    app = create_app(settings)
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            if serving.done():
                serving.result()
                raise GscoError("the service stopped while it was starting")
            await asyncio.sleep(0.02)
        yield serving
    finally:
        server.should_exit = True
        await serving


def _listener(settings: Settings) -> socket.socket:
    try:
        return socket.create_server((settings.host, settings.port))
    except OSError as error:
        place = f"{settings.host}:{settings.port}"
        raise Misconfigured(
            f"cannot listen on {place}: {error.strerror}; choose another with GSCO_PORT"
        ) from error


def _print(shown: list[show.ShownCase], report: show.ShownReport, *, json: bool) -> None:
    if json:
        output.print_json(show.as_json(shown, report))
        return
    for case in shown:
        diagnosis_view.show(case.diagnosis, case.truth)
    text_view.show_report(report.report, report.truth)
    output.results.print(
        "Synthetic images, nano models: a demonstration, not a measure of quality."
    )
