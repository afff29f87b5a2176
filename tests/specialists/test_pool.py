import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import torch

from specialists import loader
from specialists.batcher import Turn
from specialists.catalogue import PANEL
from specialists.errors import PoolOverloaded
from specialists.pool import SpecialistPool
from specialists.prediction import Pixels, SpecialistPrediction
from specialists.task import Task


@pytest.fixture
async def pool(panels: Path) -> AsyncIterator[SpecialistPool]:
    pool = SpecialistPool(panels)
    await pool.start()
    yield pool
    await pool.close()


@pytest.fixture
async def own_pool(panels: Path, tmp_path: Path) -> AsyncIterator[SpecialistPool]:
    """A pool over a copy of the panels, in `tmp_path`, that a test may spoil."""
    shutil.copytree(panels / "light", tmp_path / "light")
    pool = SpecialistPool(tmp_path)
    await pool.start()
    yield pool
    await pool.close()


async def test_each_prediction_is_heard_as_it_comes(
    pool: SpecialistPool, task: Task, pixels: Pixels
) -> None:
    heard: list[SpecialistPrediction] = []

    consultation = await pool.consult(pixels, task, heard.append)

    assert len(heard) == len(consultation.predictions)
    assert {one.specialist for one in heard} == {one.specialist for one in consultation.predictions}


async def test_the_ten_answer_in_the_panels_order(
    pool: SpecialistPool, task: Task, pixels: Pixels
) -> None:
    consultation = await pool.consult(pixels, task)

    assert [prediction.specialist for prediction in consultation.predictions] == list(PANEL)
    assert [embedding.specialist for embedding in consultation.embeddings] == list(PANEL)
    assert consultation.missing == ()
    for prediction in consultation.predictions:
        assert sum(prediction.probabilities) == pytest.approx(1)
        assert prediction.validation_accuracy == 0.5
        assert prediction.computed_in == "float32"


async def test_every_turn_of_every_specialist_is_told(
    panels: Path, task: Task, pixels: Pixels
) -> None:
    turns: list[Turn] = []
    pool = SpecialistPool(panels, told=turns.append)
    await pool.start()

    await pool.consult(pixels, task)
    await pool.close()

    assert sorted(turn.name for turn in turns) == sorted(PANEL)
    assert all(turn.seconds > 0 and turn.queue_seconds >= 0 for turn in turns)


async def test_embeddings_have_length_one_and_name_their_encoder(
    pool: SpecialistPool, task: Task, pixels: Pixels
) -> None:
    consultation = await pool.consult(pixels, task)

    for prediction, embedding in zip(
        consultation.predictions, consultation.embeddings, strict=True
    ):
        assert embedding.vector.dtype == np.float32
        assert np.linalg.norm(embedding.vector) == pytest.approx(1)
        assert embedding.encoder_sha256 == prediction.weights_sha256


async def test_an_image_gets_the_same_answer_alone_and_in_company(
    pool: SpecialistPool, task: Task, pixels: Pixels
) -> None:
    alone = await pool.consult(pixels, task)
    others = [pool.consult(255 - pixels + shift, task) for shift in range(6)]

    together, *_ = await asyncio.gather(pool.consult(pixels, task), *others)

    for one, other in zip(alone.predictions, together.predictions, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    for mine, same in zip(alone.embeddings, together.embeddings, strict=True):
        np.testing.assert_allclose(mine.vector, same.vector, atol=1e-4)


async def test_one_broken_specialist_leaves_nine(
    own_pool: SpecialistPool, tmp_path: Path, task: Task, pixels: Pixels
) -> None:
    (tmp_path / "light" / "resnet18" / loader.WEIGHTS).write_bytes(b"rubbish")

    consultation = await own_pool.consult(pixels, task)

    assert len(consultation.predictions) == 9
    assert [missing.specialist for missing in consultation.missing] == ["resnet18"]
    assert "sha256 differs" in consultation.missing[0].reason


async def test_a_specialist_that_comes_later_is_found_by_loading_again(
    own_pool: SpecialistPool, tmp_path: Path, task: Task
) -> None:
    hidden = (tmp_path / "light" / "vgg16").rename(tmp_path / "hidden")
    before = await own_pool.load(task)
    hidden.rename(tmp_path / "light" / "vgg16")

    after = await own_pool.load(task)

    assert [missing.specialist for missing in before.missing] == ["vgg16"]
    assert [specialist.name for specialist in after.specialists] == list(PANEL)


async def test_a_specialist_that_fails_on_an_image_is_missing_for_it(
    own_pool: SpecialistPool, tmp_path: Path, new_task, new_specialist, pixels: Pixels
) -> None:
    pair = new_task(panel=["alexnet", "resnet18"])
    spoil_weights(tmp_path / "light" / "alexnet")

    consultation = await own_pool.consult(pixels, pair)

    assert [prediction.specialist for prediction in consultation.predictions] == ["resnet18"]
    assert consultation.missing[0].reason == "failed on this image: FloatingPointError"


def spoil_weights(folder: Path) -> None:
    """Weights so large that no answer is a number, with a manifest that says so."""
    specialist = loader.load(folder)
    with torch.no_grad():
        next(specialist.model.parameters()).fill_(torch.finfo(torch.float32).max)
    loader.save(folder, specialist.model, specialist.manifest)


async def test_a_task_without_specialists_has_them_all_missing(
    pool: SpecialistPool, new_task, pixels: Pixels
) -> None:
    consultation = await pool.consult(pixels, new_task(name="unheard-of"))

    assert consultation.predictions == ()
    assert [missing.specialist for missing in consultation.missing] == list(PANEL)


async def test_a_task_whose_labels_changed_does_not_get_the_old_answers(
    pool: SpecialistPool, task: Task, new_task, pixels: Pixels
) -> None:
    await pool.load(task)

    consultation = await pool.consult(pixels, new_task(labels=["bright", "dark"]))

    assert consultation.predictions == ()


async def test_everyone_who_asks_first_shares_one_loading(
    pool: SpecialistPool, task: Task, pixels: Pixels
) -> None:
    hasty = asyncio.create_task(pool.consult(pixels, task))
    await asyncio.sleep(0)
    hasty.cancel()

    panels = await asyncio.gather(*(pool.load(task) for _ in range(5)))

    assert len(pool.loaded()) == 1
    assert all(panel == panels[0] for panel in panels)


async def test_what_is_loaded_is_told_with_its_weights(
    pool: SpecialistPool, panels: Path, task: Task
) -> None:
    assert pool.loaded() == ()
    await pool.load(task)

    (panel,) = pool.loaded()

    manifest = json.loads((panels / "light" / "vgg16" / loader.MANIFEST).read_text())
    assert panel.task == "light"
    assert panel.specialists[0].name == "vgg16"
    assert panel.specialists[0].scale == "nano"
    assert panel.specialists[0].weights_sha256 == manifest["weights_sha256"]
    assert panel.specialists[0].validation == {"accuracy": 0.5, "auc": None}


async def test_a_full_queue_refuses_the_whole_consultation(
    panels: Path, task: Task, pixels: Pixels
) -> None:
    pool = SpecialistPool(panels, queue_size=1, max_batch=1)
    await pool.start()
    await pool.load(task)

    answers = await asyncio.gather(
        *(pool.consult(pixels, task) for _ in range(20)), return_exceptions=True
    )

    refused = [answer for answer in answers if isinstance(answer, PoolOverloaded)]
    assert 0 < len(refused) < 20
    assert all(len(a.predictions) == 10 for a in answers if not isinstance(a, BaseException))
    await pool.close()


async def test_the_event_loop_goes_on_while_the_panel_works(
    pool: SpecialistPool, task: Task, pixels: Pixels
) -> None:
    working = asyncio.create_task(pool.consult(pixels, task))
    turns = 0
    while not working.done():
        await asyncio.sleep(0.001)
        turns += 1

    assert turns > 10
    assert len((await working).predictions) == 10


async def test_a_closed_pool_refuses(panels: Path, task: Task, pixels: Pixels) -> None:
    pool = SpecialistPool(panels)
    await pool.start()
    await pool.load(task)
    await pool.close()

    with pytest.raises(PoolOverloaded, match="not running"):
        await pool.consult(pixels, task)
    assert not [t for t in threading.enumerate() if t.name.startswith("specialist")]


async def test_the_pool_leaves_torch_as_many_threads_as_before(panels: Path) -> None:
    before = torch.get_num_threads()
    pool = SpecialistPool(panels, threads=1)
    await pool.start()

    assert await asyncio.to_thread(torch.get_num_threads) == before
    await pool.close()


async def test_other_pixels_are_refused(pool: SpecialistPool, task: Task) -> None:
    with pytest.raises(ValueError, match="pixels are"):
        await pool.consult(np.zeros((8, 8), np.uint8), task)
