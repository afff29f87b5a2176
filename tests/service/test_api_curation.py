"""Stories of curators: reference cases come and go while the service runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import a_picture, png_bytes
from callers import holding
from databases import a_database
from serving import Service, a_service, problem_of

from retrieval.retriever import FaissRetriever
from service.identity.caller import Scope
from service.persistence import trail
from service.persistence.store import SqlStore

IMAGE = png_bytes(a_picture(seed=1))


@pytest.fixture
def in_sql(home: Path) -> Iterator[dict[str, Any]]:
    """Real retrieval over the home's database and indexes."""
    with a_database(home) as engine:
        yield {"retriever": FaissRetriever(engine, home / "indexes"), "store": SqlStore(engine)}


async def add(service: Service, image: bytes = IMAGE, **fields: Any) -> httpx.Response:
    form = {"task": "cxr-pneumonia", "labels": "pneumonia", **fields}
    return await service.client.post("/v1/cases", files={"file": ("x", image)}, data=form)


async def neighbours(service: Service) -> list[str]:
    reply = await service.diagnose(png_bytes(a_picture(seed=2)))
    return [one["case_id"] for one in reply.json()["evidence"]["rad"]]


async def test_an_added_case_is_found_by_the_next_search(
    home: Path, in_sql: dict[str, Any]
) -> None:
    async with a_service(home, **in_sql) as service:
        reply = await add(service, report="Opacity.", source="here", licence="CC0-1.0")
        found = await neighbours(service)
        picture = await service.client.get(f"/v1/cases/{reply.json()['case_id']}/thumbnail")

    assert reply.status_code == 201
    assert reply.json()["labels"] == ["pneumonia"]
    assert reply.json()["report"] == "Opacity."
    assert found == [reply.json()["case_id"]]
    assert picture.headers["content-type"] == "image/jpeg"


async def test_a_removed_case_is_found_no_more(home: Path, in_sql: dict[str, Any]) -> None:
    async with a_service(home, **in_sql) as service:
        kept = (await add(service, png_bytes(a_picture(seed=3)))).json()["case_id"]
        gone = (await add(service)).json()["case_id"]
        reply = await service.client.delete(f"/v1/cases/{gone}")
        again = await service.client.delete(f"/v1/cases/{gone}")
        found = await neighbours(service)

    assert (reply.status_code, reply.content) == (204, b"")
    assert problem_of(again) == "not-found"
    assert found == [kept]


async def test_the_same_image_again_takes_on_what_is_said_now(
    home: Path, in_sql: dict[str, Any]
) -> None:
    async with a_service(home, **in_sql) as service:
        first = await add(service)
        second = await add(service, labels="normal")
        listed = await service.client.get("/v1/cases", params={"task": "cxr-pneumonia"})

    assert first.json()["case_id"] == second.json()["case_id"]
    assert [case["labels"] for case in listed.json()["cases"]] == [["normal"]]


async def test_who_added_and_removed_what_is_in_the_audit(
    home: Path, in_sql: dict[str, Any]
) -> None:
    async with a_service(home, authentication=True, **in_sql) as service:
        service.client.headers.update(holding(service.engine, Scope.CURATE))
        id = (await add(service, report="Mrs Doe")).json()["case_id"]
        await service.client.delete(f"/v1/cases/{id}")
        events = [one for _, one in trail.events(service.engine) if one.kind == "reference-case"]

    assert [(one.action.value, one.id) for one in events] == [("created", id), ("erased", id)]
    assert all(one.who.startswith("key:") and one.request_id for one in events)
    assert "Doe" not in str(events)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"labels": "gout"}, "invalid-input"),
        ({"labels": ["normal", "pneumonia"]}, "invalid-input"),
        ({"labels": []}, "invalid-input"),
        ({"task": "unheard-of"}, "unknown-task"),
        ({"source": "two\nlines"}, "invalid-input"),
    ],
)
async def test_what_is_no_reference_case_is_refused(
    home: Path, in_sql: dict[str, Any], fields: dict[str, Any], problem: str
) -> None:
    async with a_service(home, **in_sql) as service:
        reply = await add(service, **fields)
        listed = await service.client.get("/v1/cases", params={"task": "cxr-pneumonia"})

    assert problem_of(reply) == problem
    assert listed.json()["cases"] == []
