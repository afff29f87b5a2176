"""Stories of a panel on several machines: Ray Serve on this one, with two replicas a backbone."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from ray_panel import RayPanel, ray_panel

from service.composition import running_panel
from service.demo import home as demo_home
from service.remote_specialists import RemoteSpecialists
from service.settings import Settings
from specialists import task as tasks
from specialists import wire
from specialists.pool import SpecialistPool
from specialists.prediction import Consultation, Pixels
from specialists.task import Task

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

PAIR = ("alexnet", "resnet18")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration's specialists and tasks, without its reference cases."""
    folder = tmp_path_factory.mktemp("home")
    settings = Settings(home=folder)
    for demo in demo_home.tasks.demo_tasks():
        demo_home._write_task(settings, demo.task.name)
        demo_home.copy_specialists(demo.task.name, settings.specialists_folder)
    return folder


@pytest.fixture(scope="module")
def panel(home: Path) -> Iterator[RayPanel]:
    with ray_panel(home, PAIR, replicas=2) as panel:
        yield panel


@pytest.fixture
async def remote(panel: RayPanel) -> AsyncIterator[RemoteSpecialists]:
    remote = RemoteSpecialists(panel.url)
    await remote.start()
    yield remote
    await remote.close()


@pytest.fixture
async def local(home: Path) -> AsyncIterator[SpecialistPool]:
    pool = SpecialistPool(home / "specialists")
    await pool.start()
    yield pool
    await pool.close()


@pytest.fixture
def task(home: Path) -> Task:
    return replace(tasks.find(home / "tasks", "phantom-cxr"), panel=PAIR)


@pytest.fixture
def images() -> list[Pixels]:
    random = np.random.default_rng(3)
    return [random.integers(0, 256, (100 + 3 * i, 120, 3), dtype=np.uint8) for i in range(24)]


def same(one: Consultation, other: Consultation) -> bool:
    assert [p.specialist for p in one.predictions] == [p.specialist for p in other.predictions]
    for mine, theirs in zip(one.predictions, other.predictions, strict=True):
        np.testing.assert_allclose(mine.probabilities, theirs.probabilities, atol=1e-5)
        assert mine.weights_sha256 == theirs.weights_sha256
    for mine_, theirs_ in zip(one.embeddings, other.embeddings, strict=True):
        np.testing.assert_allclose(mine_.vector, theirs_.vector, atol=1e-4)
    return True


async def test_other_machines_say_what_the_local_pool_says(
    remote: RemoteSpecialists, local: SpecialistPool, task: Task, images: list[Pixels]
) -> None:
    here = await asyncio.gather(*(local.consult(image, task) for image in images))
    there = await asyncio.gather(*(remote.consult(image, task) for image in images))

    assert all(same(one, other) for one, other in zip(here, there, strict=True))
    assert all(consultation.missing == () for consultation in there)


async def test_who_can_answer_is_told_as_by_the_local_pool(
    remote: RemoteSpecialists, local: SpecialistPool, task: Task
) -> None:
    assert await remote.load(task) == await local.load(task)
    assert remote.loaded() == local.loaded()


async def test_heat_maps_come_from_there_too(
    remote: RemoteSpecialists, local: SpecialistPool, task: Task, images: list[Pixels]
) -> None:
    here = await local.explain(images[0], task, "resnet18")
    there = await remote.explain(images[0], task, "resnet18")

    assert (there.label, there.layer) == (here.label, here.layer)
    np.testing.assert_allclose(there.grid, here.grid, atol=1e-3)


@pytest.mark.parametrize("deployment", ["resnet18", "panel"])
async def test_a_replica_dies_and_no_request_fails(
    panel: RayPanel,
    remote: RemoteSpecialists,
    task: Task,
    images: list[Pixels],
    deployment: str,
) -> None:
    victim, _ = panel.replicas_of(deployment)
    asked = [asyncio.create_task(remote.consult(image, task)) for image in images * 4]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)

    os.kill(victim, signal.SIGKILL)
    answers = await asyncio.gather(*asked)

    assert all(len(answer.predictions) == 2 for answer in answers)
    assert all(answer.missing == () for answer in answers)
    assert victim not in panel.replicas_of(deployment)


async def test_the_service_asks_there_when_its_settings_say_so(
    panel: RayPanel, home: Path, task: Task, images: list[Pixels]
) -> None:
    async with running_panel(Settings(home=home, specialists_url=panel.url)) as (_, specialists):
        consultation = await specialists.consult(images[0], task)

    assert isinstance(specialists, RemoteSpecialists)
    assert [one.specialist for one in consultation.predictions] == list(PAIR)


async def test_a_backbone_that_no_machine_serves_is_missing(
    remote: RemoteSpecialists, task: Task, images: list[Pixels]
) -> None:
    wider = replace(task, panel=(*PAIR, "vgg16"))

    consultation = await remote.consult(images[0], wider)

    assert [one.specialist for one in consultation.predictions] == list(PAIR)
    assert [one.specialist for one in consultation.missing] == ["vgg16"]


@pytest.mark.parametrize("body", [b"", b"\x80\x04rubbish", wire.pack({"task": {}}, {})])
async def test_what_is_no_question_is_refused(panel: RayPanel, body: bytes) -> None:
    async with httpx.AsyncClient(base_url=panel.url, trust_env=False) as client:
        reply = await client.post("/consult", content=body)

    assert reply.status_code == 400
