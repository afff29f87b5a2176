"""Segmentation specialists beside the panel: they add to what it says, and never stop it."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from specialists import loader
from specialists.catalogue import Scale
from specialists.errors import PoolOverloaded
from specialists.loader import Manifest
from specialists.pool import SpecialistPool
from specialists.prediction import Pixels
from specialists.segmentation import evidence, models, network, serving
from specialists.segmentation.network import Segmenter
from specialists.task import Label, Task, parse

ONE = ("alexnet",)


def make_segmenter(folder: Path, task: Task, seed: int = 7, fill: float | None = None) -> Manifest:
    """An untrained U-Net, stored; with `fill`, all its weights are that number."""
    model = models.find("unet")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = network.build(model)
    if fill is not None:
        with torch.no_grad():
            next(built.parameters()).fill_(fill)
    assert task.segment is not None
    manifest = Manifest(
        task=task.name,
        kind=models.KIND,
        labels=(task.segment.name,),
        backbone="unet",
        scale=Scale.NANO,
        parameters=sum(one.numel() for one in built.parameters()),
        embedding_dimension=0,
        preprocessing=network.preprocessing_of(model),
        recipe={},
        data_fingerprint="0" * 64,
        validation={"dice": 0.6},
        temperature=1.0,
        licence="CC0-1.0",
    )
    return network.save(folder, built, manifest)


@pytest.fixture
def task(new_task: Callable[..., Task]) -> Task:
    return new_task(panel=list(ONE), segment="disc", segmenters=["unet"])


@pytest.fixture
def home(tmp_path: Path, task: Task, panels: Path) -> Path:
    """One classifier and one segmentation specialist."""
    shutil.copytree(panels / "light" / "alexnet", tmp_path / "light" / "alexnet")
    make_segmenter(tmp_path / "light" / "unet", task)
    return tmp_path


@pytest.fixture
async def pool(home: Path) -> AsyncIterator[SpecialistPool]:
    pool = SpecialistPool(home)
    await pool.start()
    yield pool
    await pool.close()


async def test_a_task_with_a_segment_gets_it_outlined(
    pool: SpecialistPool, home: Path, task: Task, pixels: Pixels
) -> None:
    consultation = await pool.consult(pixels, task)

    (said,) = consultation.segmentations
    manifest = loader.read_manifest(home / "light" / "unet")
    assert (said.specialist, said.segment) == ("unet", "disc")
    assert said.weights_sha256 == manifest.weights_sha256
    assert said.validation_dice == 0.6
    assert consultation.missing == ()
    assert len(consultation.predictions) == 1


async def test_the_mask_is_at_hand_for_the_request(
    pool: SpecialistPool, task: Task, pixels: Pixels
) -> None:
    (said,) = (await pool.consult(pixels, task)).segmentations

    mask = evidence.mask(said, *pixels.shape[:2])

    assert (mask.shape, mask.dtype) == (pixels.shape[:2], np.bool_)
    assert said.map is not None
    assert (said.map > 0.5).mean() == said.share
    with pytest.raises(ValueError, match="no mask"):
        evidence.mask(replace(said, map=None), 10, 10)


async def test_a_task_without_a_segment_gets_nothing_outlined(
    pool: SpecialistPool, task: Task, pixels: Pixels
) -> None:
    consultation = await pool.consult(pixels, replace(task, segment=None, segmenters=()))
    assert consultation.segmentations == consultation.missing == ()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: shutil.rmtree(folder), "manifest.json is missing"),
        (lambda folder: (folder / loader.WEIGHTS).write_bytes(b"rubbish"), "sha256 differs"),
        (lambda folder: (folder / loader.MANIFEST).write_text("{}"), "cannot be read"),
    ],
)
async def test_a_broken_one_is_missing_and_the_panel_answers(
    pool: SpecialistPool,
    home: Path,
    task: Task,
    pixels: Pixels,
    spoil: Callable[[Path], object],
    reason: str,
) -> None:
    spoil(home / "light" / "unet")

    consultation = await pool.consult(pixels, task)

    assert [one.specialist for one in consultation.predictions] == list(ONE)
    (missing,) = consultation.missing
    assert missing.specialist == "unet"
    assert reason in missing.reason


async def test_weights_that_are_no_numbers_are_not_loaded(
    pool: SpecialistPool, home: Path, task: Task, pixels: Pixels
) -> None:
    make_segmenter(home / "light" / "unet", task, fill=float("nan"))
    consultation = await pool.consult(pixels, task)
    assert "not finite" in consultation.missing[0].reason


async def test_one_that_fails_on_an_image_is_missing_for_it(
    pool: SpecialistPool, home: Path, task: Task, pixels: Pixels
) -> None:
    make_segmenter(home / "light" / "unet", task, fill=1e38)  # its sums are beyond float32

    consultation = await pool.consult(pixels, task)

    (missing,) = consultation.missing
    assert missing.reason == "failed on this image: FloatingPointError"
    assert consultation.predictions


async def test_one_of_another_segment_is_missing(
    pool: SpecialistPool, task: Task, pixels: Pixels
) -> None:
    consultation = await pool.consult(pixels, replace(task, segment=Label("ring")))
    assert "outlines disc" in consultation.missing[0].reason


async def test_one_that_is_replaced_answers_from_the_next_image_on(
    pool: SpecialistPool, home: Path, task: Task, pixels: Pixels
) -> None:
    (before,) = (await pool.consult(pixels, task)).segmentations
    manifest = make_segmenter(home / "light" / "unet", task, seed=8)

    (after,) = (await pool.consult(pixels, task)).segmentations

    assert after.weights_sha256 == manifest.weights_sha256 != before.weights_sha256


async def test_a_full_queue_leaves_the_panel_alone(
    pool: SpecialistPool, task: Task, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise PoolOverloaded("specialist 'segmentation' has 64 images waiting")

    monkeypatch.setattr(pool._segmenters._batcher, "submit", full)

    consultation = await pool.consult(pixels, task)

    assert consultation.predictions
    assert "64 images waiting" in consultation.missing[0].reason


async def test_many_at_once_are_all_outlined_alike(
    pool: SpecialistPool, task: Task, pixels: Pixels
) -> None:
    (alone,) = (await pool.consult(pixels, task)).segmentations

    together = await asyncio.gather(*(pool.consult(pixels, task) for _ in range(10)))

    assert all(one.segmentations == (alone,) for one in together)


async def test_images_that_wait_are_outlined_together_and_fail_alone(
    pool: SpecialistPool, task: Task, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, white = [], np.full_like(pixels, 255)
    forward = network.forward

    def watched(segmenter: Segmenter, images: Pixels) -> NDArray[np.float32]:
        computed.append(len(images))
        if any(image.min() == 255 for image in images):
            raise FloatingPointError
        return forward(segmenter, images)

    monkeypatch.setattr(network, "forward", watched)
    async with pool._workers, pool._workers:  # all of them
        asked = [asyncio.create_task(pool.outline(one, task)) for one in (pixels, white, pixels)]
        await asyncio.sleep(0)
    first, failed, last = await asyncio.gather(*asked)

    assert computed == [3, 1, 1, 1]
    assert first.segmentations == last.segmentations
    assert [one.reason for one in failed.missing] == ["failed on this image: FloatingPointError"]
    assert first.missing == last.missing == failed.segmentations == ()


async def test_one_that_cannot_even_be_looked_for_is_missing(
    pool: SpecialistPool, task: Task, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    await pool.load(task)
    monkeypatch.setattr(pool._segmenters._shelf, "get", no_memory)

    consultation = await pool.consult(pixels, task)

    assert consultation.predictions
    assert [one.reason for one in consultation.missing] == ["cannot be read: MemoryError"]


async def test_it_is_listed_with_the_panel(pool: SpecialistPool, home: Path, task: Task) -> None:
    told = await pool.load(task)
    shutil.rmtree(home / "light" / "unet")
    later = await pool.load(task)

    assert [one.name for one in told.specialists] == ["alexnet", "unet"]
    assert told.specialists[-1].validation == {"dice": 0.6}
    assert [one.specialist for one in later.missing] == ["unet"]
    assert pool.loaded() == (later,)


def test_without_a_list_all_known_models_are_expected(task: Task) -> None:
    assert models.models_of(replace(task, segmenters=())) == tuple(models.MODELS)
    assert models.models_of(replace(task, segment=None, segmenters=())) == ()
    assert serving.Segmented() == serving.Segmented((), ())


def test_a_task_file_names_its_segment() -> None:
    task = parse("""
        name = "busi"
        kind = "single-label"
        modality = "breast ultrasound"
        labels = ["benign", "malignant"]
        segmenters = ["unet"]
        [segment]
        name = "lesion"
        concept = { scheme = "SCT", code = "52988006", meaning = "Lesion" }
        """)

    assert task.segment is not None
    assert task.segment.concept is not None
    assert task.segment.concept.code == "52988006"
    assert task.segmenters == ("unet",)
