"""A trunk on a GPU says what the model says on a CPU."""

import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from specialists import loader
from specialists.cuda import CapturedTrunk
from specialists.loader import Specialist
from specialists.pool import SpecialistPool
from specialists.prediction import Pixels
from specialists.task import Task

pytestmark = pytest.mark.gpu


@pytest.fixture
def plain(panels: Path, task: Task) -> Specialist:
    return loader.load(panels / "light" / "resnet18", task)


@pytest.fixture
def trunk(panels: Path, task: Task) -> CapturedTrunk:
    on_gpu = loader.load(panels / "light" / "resnet18", task, "cuda")
    return CapturedTrunk(on_gpu.model, on_gpu.manifest.preprocessing.input_size, (1, 4))


@pytest.fixture
async def pool(panels: Path) -> AsyncIterator[SpecialistPool]:
    pool = SpecialistPool(panels, device="cuda")
    await pool.start()
    yield pool
    await pool.close()


def some_images(plain: Specialist, count: int) -> torch.Tensor:
    size = plain.manifest.preprocessing.input_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("count", [1, 3, 4, 11])
def test_any_number_of_images_is_answered(
    plain: Specialist, trunk: CapturedTrunk, count: int
) -> None:
    images = some_images(plain, count)

    with torch.inference_mode():
        ours, theirs = trunk(images).cpu(), plain.model.embed(images)

    assert ours.shape == theirs.shape
    assert cosine_similarity(ours, theirs).min() > 0.999


def test_threads_that_ask_at_once_get_their_own_answers(
    plain: Specialist, trunk: CapturedTrunk
) -> None:
    images = [some_images(plain, count) for count in (1, 2, 3, 4)]
    alone = [trunk(one).cpu() for one in images]
    found: dict[int, torch.Tensor] = {}

    def ask(place: int) -> None:
        found[place] = trunk(images[place]).cpu()

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for place, answer in enumerate(alone):
        torch.testing.assert_close(found[place], answer)


async def test_the_pool_answers_on_a_gpu(pool: SpecialistPool, task: Task, pixels: Pixels) -> None:
    consultation = await pool.consult(pixels, task)

    assert len(consultation.predictions) == 10
    assert all(np.isfinite(one.vector).all() for one in consultation.embeddings)
