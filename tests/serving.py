"""A whole service over fakes, spoken to as a client does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
from builders import png_bytes
from databases import kept_in
from fakes import FakeGeneralist, FakeIntake, FakeRetriever, FakeSpecialists, FakeStore
from fastapi import FastAPI
from sqlalchemy import Engine
from waiting import until_told

from service.api.dependencies import Deliver, Intake, Parts, nowhere
from service.app import create_app
from service.persistence.store import SqlStore
from service.pipeline import Pipeline
from service.settings import Settings
from service.spans import Tracer


@dataclass(frozen=True)
class Service:
    """The running application, its fakes, and a client of it."""

    app: FastAPI
    client: httpx.AsyncClient
    specialists: FakeSpecialists
    retriever: FakeRetriever
    generalist: FakeGeneralist
    store: FakeStore
    intake: Any  # a FakeIntake unless another was given
    engine: Engine

    async def diagnose(
        self, data: bytes | None = None, *, file_name: str = "image.png", **fields: Any
    ) -> httpx.Response:
        """Posts an image, for the task cxr-pneumonia unless told otherwise."""
        files = {"file": (file_name, png_bytes() if data is None else data)}
        form = {"task": "cxr-pneumonia", **fields}
        return await self.client.post("/v1/diagnoses", files=files, data=form)

    async def ask_for_job(
        self, data: bytes | None = None, *, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        """Posts an image to be diagnosed later."""
        files = {"file": ("image.png", png_bytes() if data is None else data)}
        form = {"task": "cxr-pneumonia", **fields}
        later = {"Prefer": "respond-async", **(headers or {})}
        return await self.client.post("/v1/diagnoses", files=files, data=form, headers=later)

    async def job(self, id: str) -> dict[str, Any]:
        return (await self.client.get(f"/v1/jobs/{id}")).json()  # type: ignore[no-any-return]

    async def ended(self, id: str) -> dict[str, Any]:
        """The job, once it has ended."""
        is_open = {"queued", "running"}
        return await until_told(lambda: self.job(id), lambda job: job["status"] not in is_open)

    async def figures(self) -> str:
        return (await self.client.get("/metrics")).text

    async def settled(self) -> None:
        """Returns when the specialists have been loaded."""
        await self.app.state.serving.tasks.loaded()


@asynccontextmanager
async def a_service(
    home: Path,
    *,
    specialists: FakeSpecialists | None = None,
    retriever: FakeRetriever | None = None,
    generalist: FakeGeneralist | None = None,
    store: FakeStore | None = None,
    intake: Intake | None = None,
    deliver: Deliver = nowhere,
    in_sql: bool = False,
    tracer: Tracer | None = None,
    **settings: Any,
) -> AsyncIterator[Service]:
    """A service with the tasks of a home folder; every part a willing fake unless given.

    API keys, jobs and the audit are in the home's database; results in a dictionary, or `in_sql`,
    where jobs store theirs always.
    """
    specialists, retriever = specialists or FakeSpecialists(), retriever or FakeRetriever()
    generalist, intake = generalist or FakeGeneralist(), intake or FakeIntake()
    with kept_in(home) as kept:
        engine = kept[0].engine
        store = cast("FakeStore", SqlStore(engine)) if in_sql else store or FakeStore()
        pipeline = Pipeline(specialists, retriever, generalist, store)
        parts = Parts(pipeline, specialists, retriever, generalist, store, intake, *kept, deliver)
        app = create_app(Settings(home=home, **settings), parts, tracer)
        async with app.router.lifespan_context(app), a_client(app) as client:
            yield Service(app, client, specialists, retriever, generalist, store, intake, engine)


def a_client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


def problem_of(response: httpx.Response) -> str:
    """The last word of a problem's type, after checking that it is a proper problem document."""
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == response.status_code
    assert document["instance"] == response.headers["x-request-id"]
    assert document["title"]
    assert document["detail"]
    return str(document["type"]).removeprefix("urn:gsco:problem:")
