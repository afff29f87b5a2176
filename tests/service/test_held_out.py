"""Whether similar cases add to the panel is asked with images that nobody was trained on."""

from collections.abc import Sequence

import numpy as np
import pytest
from builders import a_multi_label_task, a_neighbour, a_picture, a_reference_case, a_task, sha256_of
from fakes import FakeRetriever

from retrieval.assess import Verdict
from retrieval.errors import NothingToAssess
from retrieval.neighbour import Query, Retrieval
from service import held_out
from service.domain import pixels_sha256
from specialists.task import Task
from specialists.training.split import Split

COUNT = 120


def a_split(count: int = COUNT, targets: np.ndarray | None = None) -> Split:
    images = [a_picture(8, 8, seed) for seed in range(count)]
    truth = np.arange(count) % 2 if targets is None else targets
    ids = tuple(f"image {place}" for place in range(count))
    return Split(images, truth, (None,) * count, ids)


def right_in(share: float, truth: Sequence[int], seed: int = 0) -> np.ndarray:
    """(images, 2) shares that favour the true label in so many images."""
    rng = np.random.default_rng(seed)
    named = np.where(rng.random(len(truth)) < share, truth, 1 - np.asarray(truth))
    return np.where(np.eye(2)[named] > 0, 0.7, 0.3)


def test_neighbours_that_know_what_the_panel_does_not_help() -> None:
    split = a_split()
    told = held_out.judged(
        a_task(), split, right_in(0.6, split.targets), np.eye(2)[split.targets].astype(float)
    )
    assert told.verdict is Verdict.HELPS
    assert told.both.value > told.panel.value
    assert (told.cases, told.groups) == (COUNT, COUNT)


def test_neighbours_that_guess_beside_a_good_panel_do_not() -> None:
    split = a_split()
    guesses = np.eye(2)[1 - split.targets].astype(float)
    told = held_out.judged(a_task(), split, right_in(0.95, split.targets), guesses)
    assert told.verdict is Verdict.DOES_NOT_HELP
    assert told.both_over_panel.high <= 0


def test_neighbours_that_say_the_same_change_nothing() -> None:
    split = a_split()
    panel = right_in(0.8, split.targets)
    told = held_out.judged(a_task(), split, panel, panel)
    assert told.both_over_panel.value == 0
    assert told.verdict is Verdict.DOES_NOT_HELP


class Informed(FakeRetriever):
    """Finds three cases of the label that the image has, by its place in the split."""

    def __init__(self, split: Split, task: Task) -> None:
        super().__init__()
        self._labels = {
            pixels_sha256(pixels): task.label_names[target]
            for pixels, target in zip(split.images, split.targets, strict=True)
        }

    async def search(
        self, task: str, queries: tuple[Query, ...], *, group: str | None, image_sha256: str
    ) -> Retrieval:
        await self._act((task, queries, group, image_sha256))
        case = a_reference_case(labels=(self._labels[image_sha256],))
        return Retrieval((a_neighbour(case=case),) * 3)


async def test_images_are_looked_up_as_the_service_looks_them_up() -> None:
    split, task = a_split(), a_task()
    retriever = Informed(split, task)
    answers = {"resnet18": (right_in(0.6, split.targets), np.ones((COUNT, 4), np.float32))}

    told = await held_out.assess(
        retriever, task, split, answers, {"resnet18": sha256_of("weights")}
    )

    assert told.neighbours.value == 1
    assert told.verdict is Verdict.HELPS
    name, (query,), group, _ = retriever.asked[0]
    assert (name, query.retriever, group) == (task.name, "resnet18", None)
    assert query.encoder_sha256 == sha256_of("weights")


async def test_several_labels_are_told_by_the_tasks_thresholds() -> None:
    targets = np.tile([[0, 1, 1], [1, 0, 0]], (30, 1))
    split, task = a_split(60, targets), a_multi_label_task()
    panel = np.where(targets > 0, 0.6, 0.4)
    told = held_out.judged(task, split, panel, targets.astype(float))
    assert told.panel.value == told.both.value == 1


async def test_without_neighbours_there_is_nothing_to_tell() -> None:
    split = a_split(30)
    answers = {"resnet18": (right_in(0.6, split.targets), np.ones((30, 4), np.float32))}
    retriever = FakeRetriever(neighbours=())
    with pytest.raises(NothingToAssess, match="no image has a neighbour"):
        await held_out.assess(retriever, a_task(), split, answers, {"resnet18": "0" * 64})
    with pytest.raises(NothingToAssess, match="5 images are too few"):
        await held_out.assess(retriever, a_task(), a_split(5), answers, {"resnet18": "0" * 64})
