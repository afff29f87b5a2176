"""Several tasks in a bounded memory."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from specialists import loader, memory, trunk
from specialists.architectures import build
from specialists.catalogue import Scale, find
from specialists.pool import SpecialistPool
from specialists.prediction import Pixels
from specialists.task import Task

NAMES = ("light", "colour", "shape")


@pytest.fixture
def tasks(tmp_path: Path, new_task, new_specialist) -> list[Task]:
    """Three tasks with one specialist each, which lie in `tmp_path`."""
    made = [new_task(name=name, panel=["alexnet"]) for name in NAMES]
    for seed, task in enumerate(made):
        new_specialist(tmp_path / task.name / "alexnet", task, seed=seed)
    return made


@pytest.fixture
def one_bytes(tmp_path: Path, tasks: list[Task]) -> int:
    """The weights of one task's panel."""
    return memory.footprint([loader.load(tmp_path / "light" / "alexnet")])


@asynccontextmanager
async def bounded(folder: Path, memory_bytes: int) -> AsyncIterator[SpecialistPool]:
    pool = SpecialistPool(folder, memory_bytes=memory_bytes, watch_seconds=0.02)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


def in_memory(pool: SpecialistPool) -> list[str]:
    return [panel.task for panel in pool.loaded() if panel.in_memory]


async def test_the_task_unused_for_longest_goes_and_comes_back_when_it_is_asked(
    tmp_path: Path, tasks: list[Task], one_bytes: int, pixels: Pixels
) -> None:
    light, colour, shape = tasks
    async with bounded(tmp_path, 2 * one_bytes + 1000) as pool:
        first = await pool.consult(pixels, light)
        await pool.consult(pixels, colour)
        await pool.consult(pixels, light)
        await pool.consult(pixels, shape)
        after_three = in_memory(pool)
        again = await pool.consult(pixels, colour)

        assert after_three == ["light", "shape"]
        assert in_memory(pool) == ["shape", "colour"]
        assert {panel.task for panel in pool.loaded()} == set(NAMES)
        assert len(again.predictions) == len(first.predictions) == 1


async def test_making_tasks_ready_unloads_none_and_still_tells_of_all(
    tmp_path: Path, tasks: list[Task], one_bytes: int
) -> None:
    async with bounded(tmp_path, one_bytes + 1000) as pool:
        told = [await pool.load(task) for task in tasks]

        assert in_memory(pool) == ["light"]
        assert [panel.in_memory for panel in told] == [True, False, False]
        assert all(panel.specialists[0].weights_sha256 for panel in told)


async def test_what_is_in_use_stays(
    tmp_path: Path, tasks: list[Task], one_bytes: int, pixels: Pixels
) -> None:
    async with bounded(tmp_path, one_bytes + 1000) as pool:
        asked = [pool.consult(pixels, tasks[number % 3]) for number in range(30)]

        answers = await asyncio.gather(*asked)

    assert all(len(answer.predictions) == 1 and not answer.missing for answer in answers)


async def test_what_was_in_use_goes_when_it_no_longer_is(
    tmp_path: Path, tasks: list[Task], one_bytes: int, pixels: Pixels
) -> None:
    light, colour, _ = tasks
    async with bounded(tmp_path, one_bytes + 1000) as pool:
        await pool.load(light)
        with pool._shelf.panels[0].used():
            await pool.consult(pixels, colour)
            meanwhile = in_memory(pool)
        while len(in_memory(pool)) > 1:
            await asyncio.to_thread(time.sleep, 0.02)

        assert meanwhile == ["light", "colour"]
        assert in_memory(pool) == ["colour"]


async def test_a_panel_larger_than_the_bound_answers_all_the_same(
    tmp_path: Path, tasks: list[Task], pixels: Pixels
) -> None:
    async with bounded(tmp_path, 1) as pool:
        for task in tasks:
            assert len((await pool.consult(pixels, task)).predictions) == 1

        assert in_memory(pool) == ["shape"]


def make_probe(folder: Path, task: Task, new_specialist) -> loader.Manifest:
    """A specialist whose last layer alone differs from those of other tasks."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(find("resnet18").at(Scale.NANO), len(task.labels))
        torch.manual_seed(sum(map(ord, task.name)))
        for name, parameter in model.named_parameters():
            if name.removeprefix("backbone.") in model.classifier_names():
                torch.nn.init.normal_(parameter)
    plain = new_specialist(folder, task, "resnet18")
    named = trunk.sha256(loader.stored(model), model.classifier_names())
    return loader.save(folder, model, replace(plain, trunk_sha256=named))


async def test_linear_probes_with_one_trunk_share_it(
    tmp_path: Path, new_task, new_specialist, pixels: Pixels
) -> None:
    light, colour = (new_task(name=name, panel=["resnet18"]) for name in ("light", "colour"))
    for task in (light, colour):
        make_probe(tmp_path / task.name / "resnet18", task, new_specialist)
    alone = memory.footprint([loader.load(tmp_path / "light" / "resnet18")])

    async with bounded(tmp_path, alone + 10_000) as pool:
        answers = [await pool.consult(pixels, task) for task in (light, colour)]

        assert in_memory(pool) == ["light", "colour"]
        one, other = (panel.members[0].specialist for panel in pool._shelf.panels)
        assert memory.footprint([one, other]) < alone + 10_000
    vectors = [answer.embeddings[0].vector for answer in answers]
    assert (vectors[0] == vectors[1]).all()
    assert answers[0].predictions[0].probabilities != answers[1].predictions[0].probabilities
