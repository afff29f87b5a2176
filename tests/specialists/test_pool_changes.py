"""Specialists that are added, replaced and removed while the pool answers."""

import asyncio
import gc
import shutil
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from specialists import loader
from specialists.description import LoadedPanel
from specialists.errors import PoolOverloaded
from specialists.pool import SpecialistPool
from specialists.prediction import Consultation, Pixels
from specialists.task import Task

SOON = 0.02  # seconds between two looks at the folders
PAIR = ("alexnet", "resnet18")


@pytest.fixture
def pair(tmp_path: Path, new_task, new_specialist) -> Task:
    """A task whose panel of two lies in `tmp_path`."""
    task = new_task(panel=list(PAIR))
    for key in PAIR:
        new_specialist(tmp_path / "light" / key, task, key)
    return task


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[SpecialistPool]:
    async with watching(tmp_path) as pool:
        yield pool


@asynccontextmanager
async def watching(folder: Path, **options: object) -> AsyncIterator[SpecialistPool]:
    pool = SpecialistPool(folder, watch_seconds=SOON, **options)  # type: ignore[arg-type]
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def until(pool: SpecialistPool, holds: Callable[[LoadedPanel], bool]) -> LoadedPanel:
    """The panel, once it is so."""
    while not holds(pool.loaded()[0]):
        await asyncio.to_thread(time.sleep, SOON)
    return pool.loaded()[0]


def weights(told: LoadedPanel | Consultation) -> dict[str, str]:
    if isinstance(told, LoadedPanel):
        return {one.name: one.weights_sha256 for one in told.specialists}
    return {one.specialist: one.weights_sha256 for one in told.predictions}


async def test_a_replaced_specialist_answers_with_its_new_weights(
    pool: SpecialistPool, tmp_path: Path, pair: Task, new_specialist, pixels: Pixels
) -> None:
    before = weights(await pool.load(pair))

    new = new_specialist(tmp_path / "light" / "alexnet", pair, seed=8).weights_sha256
    await until(pool, lambda panel: weights(panel)["alexnet"] == new)

    assert weights(await pool.consult(pixels, pair)) == {**before, "alexnet": new}


async def test_a_removed_specialist_is_missing_and_an_added_one_answers(
    pool: SpecialistPool, tmp_path: Path, pair: Task, pixels: Pixels
) -> None:
    await pool.load(pair)
    elsewhere = (tmp_path / "light" / "alexnet").rename(tmp_path / "elsewhere")

    await until(pool, lambda panel: bool(panel.missing))
    without = await pool.consult(pixels, pair)
    elsewhere.rename(tmp_path / "light" / "alexnet")
    await until(pool, lambda panel: not panel.missing)

    assert list(weights(without)) == ["resnet18"]
    assert without.missing[0].reason.startswith("no specialist 'alexnet'")
    assert list(weights(await pool.consult(pixels, pair))) == list(PAIR)


async def test_what_is_damaged_does_not_take_its_place_until_it_is_repaired(
    pool: SpecialistPool, tmp_path: Path, pair: Task, new_specialist, pixels: Pixels
) -> None:
    before = weights(await pool.load(pair))
    file = tmp_path / "light" / "alexnet" / loader.WEIGHTS

    file.write_bytes(b"half a file")
    told = await until(pool, lambda panel: panel.specialists[0].refused is not None)
    meanwhile = weights(await pool.consult(pixels, pair))
    new_specialist(file.parent, pair, seed=8)
    after = await until(pool, lambda panel: panel.specialists[0].refused is None)

    assert "sha256 differs" in str(told.specialists[0].refused)
    assert meanwhile == before
    assert weights(after)["alexnet"] != before["alexnet"]


async def test_under_load_nobody_fails_and_everyone_knows_whose_weights_answered(
    pool: SpecialistPool, tmp_path: Path, pair: Task, new_specialist, pixels: Pixels
) -> None:
    allowed = {weights(await pool.load(pair))["alexnet"]}
    answers: list[str] = []
    done = asyncio.Event()

    async def ask() -> None:
        while not done.is_set():
            answers.append(weights(await pool.consult(pixels, pair))["alexnet"])

    async with asyncio.TaskGroup() as together:
        for _ in range(6):
            together.create_task(ask())
        for seed in (8, 9, 10):
            work = asyncio.to_thread(
                new_specialist, tmp_path / "light" / "alexnet", pair, "alexnet", seed
            )
            new = (await work).weights_sha256
            allowed.add(new)
            await until(pool, lambda panel, new=new: weights(panel)["alexnet"] == new)
        done.set()

    assert set(answers) <= allowed
    assert weights(await pool.consult(pixels, pair))["alexnet"] == new


async def test_replaced_weights_leave_memory(
    pool: SpecialistPool, tmp_path: Path, pair: Task, new_specialist
) -> None:
    before = await pool.load(pair)
    member = pool._shelf.panels[0].members[0]
    former = weakref.ref(member.specialist)
    del member

    new_specialist(tmp_path / "light" / "alexnet", pair, seed=8)
    await until(pool, lambda panel: weights(panel) != weights(before))
    await asyncio.sleep(SOON)
    gc.collect()

    assert former() is None


async def test_a_task_that_changes_its_thresholds_keeps_its_specialists(
    pool: SpecialistPool, tmp_path: Path, new_task, new_specialist, pixels: Pixels
) -> None:
    several = new_task(panel=["alexnet"], kind="multi-label", thresholds=[0.5, 0.5])
    new_specialist(tmp_path / "light" / "alexnet", several)
    await pool.load(several)
    member = pool._shelf.panels[0].members[0]

    stricter = new_task(panel=["alexnet"], kind="multi-label", thresholds=[0.9, 0.9])
    await pool.consult(pixels, stricter)

    assert pool._shelf.panels[0].members == (member,)


async def test_closing_ends_the_watch(tmp_path: Path, pair: Task) -> None:
    async with watching(tmp_path) as pool:
        await pool.load(pair)

    assert not [job for job in asyncio.all_tasks() if "specialists" in job.get_name()]


async def test_closing_while_specialists_are_read_leaves_nothing_behind(
    tmp_path: Path, pair: Task, pixels: Pixels
) -> None:
    async with watching(tmp_path) as pool:
        asked = asyncio.create_task(pool.consult(pixels, pair))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with pytest.raises(PoolOverloaded):
        await asked
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_folder_that_goes_leaves_a_panel_of_missing_specialists(
    pool: SpecialistPool, tmp_path: Path, pair: Task, pixels: Pixels
) -> None:
    await pool.load(pair)

    shutil.rmtree(tmp_path / "light")
    await until(pool, lambda panel: len(panel.missing) == 2)

    assert (await pool.consult(pixels, pair)).predictions == ()
