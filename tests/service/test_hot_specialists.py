"""A specialist replaced under a running service: real panel, real indexes, HTTP from end to end."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import a_picture, task_toml
from serving import Service, a_service

from retrieval.retriever import FaissRetriever
from service import reference_cases
from service.demo.home import SHIPPED
from service.demo.tasks import demo_tasks
from service.persistence.database import open_engine, upgrade
from service.reference_cases import Origin
from specialists import loader
from specialists.pool import SpecialistPool
from specialists.task import Task

PAIR = ("alexnet", "resnet18")


@dataclass(frozen=True)
class Running:
    service: Service
    folder: Path  # of the specialists
    task: Task

    async def diagnose(self, data: bytes = b"case") -> dict[str, Any]:
        reply = await self.service.diagnose(data, task=self.task.name)
        assert reply.status_code == 201, reply.text
        document: dict[str, Any] = reply.json()
        return document

    async def listed(self) -> dict[str, str]:
        document = (await self.service.client.get("/v1/specialists")).json()
        (panel,) = document["tasks"]
        return {one["specialist"]: one["weights_sha256"] for one in panel["specialists"]}

    def retrain(self, backbone: str) -> str:
        """Other weights in the same folder, as `gsco specialists add --replace` puts them there."""
        folder = self.folder / backbone
        specialist = loader.load(folder)
        with torch.no_grad():
            for parameter in specialist.model.parameters():
                parameter.mul_(1.01)
        return loader.save(folder, specialist.model, specialist.manifest).weights_sha256

    async def until(self, backbone: str, weights: str) -> None:
        while (await self.listed())[backbone] != weights:
            await asyncio.to_thread(time.sleep, 0.02)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """A service with two shipped specialists and ten reference cases."""
    task = replace(demo_tasks()[0].task, panel=PAIR)
    home, specialists = tmp_path / "home", tmp_path / "home" / "specialists"
    for key in PAIR:
        shutil.copytree(SHIPPED / task.name / key, specialists / task.name / key)
    (home / "tasks").mkdir()
    (home / "tasks" / f"{task.name}.toml").write_text(task_toml(task), "utf-8")
    engine = open_engine(f"sqlite:///{home / 'gsco.db'}")
    upgrade(engine)
    images = [a_picture(64, 64, seed) for seed in range(10)]
    cases = [
        reference_cases.reference_case(task, one, task.label_names[:1], Origin("test"), None)
        for one in images
    ]
    reference_cases.ingest(engine, specialists, task, cases, images, indexes=home / "indexes")
    pool = SpecialistPool(specialists, watch_seconds=0.02)
    retriever = FaissRetriever(engine, home / "indexes", cut=None)
    async with a_service(home, specialists=pool, retriever=retriever) as service:  # type: ignore[arg-type]
        await service.settled()
        yield Running(service, specialists / task.name, task)
    engine.dispose()


def weights_of(document: dict[str, Any], backbone: str) -> str:
    listed = document["provenance"]["weights"]
    (found,) = (one["weights_sha256"] for one in listed if one["specialist"] == backbone)
    return str(found)


async def test_no_request_fails_and_every_answer_names_old_or_new_weights(
    running: Running,
) -> None:
    old = (await running.listed())["resnet18"]
    replaced, answers = asyncio.Event(), list[dict[str, Any]]()

    async def client(number: int) -> None:
        while not replaced.is_set():
            answers.append(await running.diagnose(b"%d %d" % (number, len(answers))))

    async with asyncio.TaskGroup() as together:
        for number in range(4):
            together.create_task(client(number))
        new = await asyncio.to_thread(running.retrain, "resnet18")
        await running.until("resnet18", new)
        replaced.set()

    assert {weights_of(answer, "resnet18") for answer in answers} <= {old, new}
    assert weights_of(await running.diagnose(), "resnet18") == new


async def test_the_index_of_former_weights_is_missing_until_it_is_built_anew(
    running: Running,
) -> None:
    before = await running.diagnose()

    await running.until("resnet18", await asyncio.to_thread(running.retrain, "resnet18"))
    after = await running.diagnose()

    assert before["degraded"] == []
    assert [part["part"] for part in after["degraded"]] == ["retrieval by resnet18"]
    assert after["needs_review"]
    assert len(after["evidence"]["rad"]) == len(before["evidence"]["rad"])


async def test_a_refused_replacement_is_told_and_degrades_readiness(running: Running) -> None:
    before = await running.listed()
    (running.folder / "resnet18" / loader.WEIGHTS).write_bytes(b"half a file")

    while (await running.service.client.get("/readyz")).json()["status"] != "degraded":
        await asyncio.to_thread(time.sleep, 0.02)
    document = (await running.service.client.get("/v1/specialists")).json()

    (alexnet, resnet18) = document["tasks"][0]["specialists"]
    assert await running.listed() == before
    assert alexnet["refused"] is None
    assert "sha256 differs" in resnet18["refused"]
