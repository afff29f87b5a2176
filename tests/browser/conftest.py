"""A real browser, and two services to look at with it: the demonstration, and one of fakes."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import browser_page
import httpx
import pytest
import uvicorn
from browser_page import Serve
from builders import a_question_task, a_report_task, task_toml
from databases import kept_in
from fakes import FakeGeneralist, FakeRetriever, FakeSpecialists
from playwright.sync_api import Browser, Page
from vllm_server import free_port

from service.api.dependencies import Parts
from service.app import create_app
from service.intake.limits import Limits
from service.intake.sandbox import Sandbox
from service.jobs.queue import Queue
from service.persistence.keys import SqlKeys
from service.persistence.store import SqlStore
from service.persistence.trail import SqlTrail
from service.pipeline import Pipeline
from service.settings import Settings


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browser_page.chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Whatever the page's scripts complain of fails the test."""
    complaints: list[str] = []
    with browser_page.a_page(browser, complaints) as opened:
        yield opened
    assert complaints == []


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address that `gsco demo` prints."""
    with browser_page.demonstration(tmp_path_factory.mktemp("demo")) as address:
        yield address


@pytest.fixture
def serve(home: Path) -> Iterator[Serve]:
    """Starts a service with real intake, database and page over scripted models."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []
    stack = ExitStack()
    for task in (
        a_report_task(consults="cxr-pneumonia"),
        a_question_task(consults="cxr-pneumonia"),
    ):
        (home / "tasks" / f"{task.name}.toml").write_text(task_toml(task), "utf-8")

    def start(settings: dict[str, Any] | None = None, **fakes: Any) -> str:
        port, kept = free_port(), stack.enter_context(kept_in(home))
        app = create_app(Settings(home=home, **(settings or {})), _parts(kept, **fakes))
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        return _answering(f"http://127.0.0.1:{port}")

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(30)
    stack.close()


def _parts(
    kept: tuple[Queue, SqlKeys, SqlTrail],
    specialists: FakeSpecialists | None = None,
    retriever: FakeRetriever | None = None,
    generalist: FakeGeneralist | None = None,
) -> Parts:
    panel, found = specialists or FakeSpecialists(), retriever or FakeRetriever()
    said, store = generalist or FakeGeneralist(), SqlStore(kept[0].engine)
    pipeline = Pipeline(panel, found, said, store)
    return Parts(pipeline, panel, found, said, store, Sandbox(Limits()), *kept)


def _answering(address: str) -> str:
    for _ in range(300):
        with suppress(httpx.ConnectError):
            httpx.get(f"{address}/livez")
            return address
        time.sleep(0.1)
    raise AssertionError("the service does not answer")
