"""Segmentation specialists: learnt from masks, stored like the others, measured, put into words."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from sklearn.metrics import jaccard_score
from torchmetrics.functional.segmentation import dice_score, mean_iou

from specialists import loader
from specialists.errors import (
    InvalidDataset,
    InvalidSpecialist,
    SpecialistRefused,
    TrainingDiverged,
)
from specialists.exchange import incoming, outgoing
from specialists.segmentation import evidence, masks, measure, models, network, training
from specialists.segmentation.masks import MaskedDataset
from specialists.task import Label, Task
from specialists.training.publish import Trained
from specialists.training.trainer import Epoch

SIZE = 40


@pytest.fixture
def task(new_task: Callable[..., Task]) -> Task:
    return new_task(segment="disc")


@pytest.fixture
def discs(tmp_path: Path) -> MaskedDataset:
    write_discs(tmp_path / "discs")
    return masks.read(tmp_path / "discs")


def write_discs(folder: Path, train: int = 16, val: int = 6, test: int = 6) -> None:
    """Bright discs on noise, every fourth image without one and without a mask."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    with (folder / "index.csv").open("w", newline="") as file:
        index = csv.writer(file)
        index.writerow(["split", "image", "mask"])
        for split, count in {"train": train, "val": val, "test": test}.items():
            for number in range(count):
                name, mask = f"{split}{number}", disc(rng) if number % 4 else None
                picture = rng.normal(70, 20, (SIZE, SIZE))
                picture += 100 * mask if mask is not None else 0
                save(folder / f"{name}.png", picture.clip(0, 255))
                if mask is not None:
                    save(folder / f"{name}_mask.png", 255 * mask)
                index.writerow([split, f"{name}.png", f"{name}_mask.png" if number % 4 else ""])


def disc(rng: np.random.Generator) -> np.ndarray:
    row, column = rng.uniform(12, SIZE - 12, 2)
    away = np.hypot(*(np.indices((SIZE, SIZE)) - np.array([row, column])[:, None, None]))
    return away < rng.uniform(6, 11)


def save(path: Path, grey: np.ndarray) -> None:
    Image.fromarray(grey.astype(np.uint8)).save(path)


def train(task: Task, discs: MaskedDataset, out: Path, *keys: str, **options: Any) -> list[Trained]:
    given = {"epochs": 1, "batch_size": 8, **options.pop("given", {})}
    return training.finetune(task, discs, keys or ("unet",), out, given=given, **options)


def state(folder: Path) -> dict[str, torch.Tensor]:
    return network.load(folder).model.state_dict()


# -- from a map to words --


def test_a_map_says_where_how_large_and_how_certain() -> None:
    chances = np.full((30, 30), 0.1, np.float32)
    chances[1:7, 22:28] = 0.9  # 36 places in the upper right
    chances[20:23, 2:5] = 0.8  # 9 in the lower left
    chances[15, 15] = 0.6  # a speck

    said = evidence.told(chances)

    assert said.share == pytest.approx(46 / 900)
    assert said.areas == 2
    assert said.places == ("upper right", "lower left")
    assert said.certainty == pytest.approx(2 * 40.2 / (40.2 + 0.1 * 854 + 46), rel=1e-4)


@pytest.mark.parametrize(
    ("row", "column", "place"),
    [(0, 0, "upper left"), (4, 4, "centre"), (4, 8, "right"), (8, 4, "lower"), (1, 4, "upper")],
)
def test_places_are_thirds_of_the_image(row: int, column: int, place: str) -> None:
    chances = np.zeros((9, 9), np.float32)
    chances[row, column] = 1
    assert evidence.told(chances).places == (place,)


def test_nothing_outlined_has_no_place_and_is_as_certain_as_its_likeliest_place_is_not() -> None:
    chances = np.full((8, 8), 0.2, np.float32)
    assert evidence.told(chances) == evidence.Said(0.0, 0, (), pytest.approx(0.8))


@given(arrays(np.float32, (12, 15), elements=st.floats(0, 1, width=32)))
def test_whatever_the_map_what_is_said_stays_within_bounds(chances: np.ndarray) -> None:
    said = evidence.told(chances)

    assert 0 <= said.share <= 1
    assert -1e-6 <= said.certainty <= 1 + 1e-6
    assert len(said.places) == min(said.areas, evidence.MOST_PLACES)
    assert bool(said.areas) == bool((chances > 0.5).any())


def test_a_mask_is_made_at_the_images_size() -> None:
    chances = np.zeros((8, 8), np.float32)
    chances[:, 4:] = 1

    mask = evidence.enlarged(chances, 64, 32)

    assert (mask.shape, mask.dtype) == ((64, 32), np.bool_)
    assert mask[:, 18:].all()
    assert not mask[:, :14].any()


# -- overlap --


@pytest.fixture
def pairs() -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(3)
    truth = [rng.random((20, 24)) > 0.6 for _ in range(12)]
    ours = [one ^ (rng.random(one.shape) > 0.9) for one in truth]
    return ours, truth


def test_dice_is_that_of_torchmetrics(pairs) -> None:
    ours, truth = (torch.from_numpy(np.stack(some)).long() for some in pairs)

    theirs = dice_score(ours, truth, num_classes=2, average="none", input_format="index")

    mine = [measure.dice(*pair) for pair in zip(*pairs, strict=True)]
    np.testing.assert_allclose(mine, theirs[:, 1], rtol=1e-6)
    assert measure.overlap(*pairs).dice == pytest.approx(float(theirs[:, 1].mean()))


def test_intersection_over_union_is_that_of_torchmetrics_and_scikit_learn(pairs) -> None:
    ours, truth = (torch.from_numpy(np.stack(some)).long() for some in pairs)

    theirs = mean_iou(ours, truth, num_classes=2, per_class=True, input_format="index")

    mine = [measure.iou(*pair) for pair in zip(*pairs, strict=True)]
    np.testing.assert_allclose(mine, theirs[:, 1], rtol=1e-6)
    flat = [jaccard_score(t.ravel(), o.ravel()) for o, t in zip(*pairs, strict=True)]
    np.testing.assert_allclose(mine, flat)


def test_images_without_the_segment_are_counted_by_themselves() -> None:
    empty, full = np.zeros((4, 4), np.bool_), np.ones((4, 4), np.bool_)

    told = measure.overlap([full, empty, full, empty], [full, full, empty, empty])

    assert (told.dice, told.iou, told.left_alone) == (0.5, 0.5, 0.5)
    assert measure.overlap([empty], [empty]).dice is None
    assert measure.dice(empty, empty) == measure.iou(empty, empty) == 1


def test_what_was_promised_is_held_against_what_was_reached() -> None:
    told = measure.honesty([0.9, 0.5, 0.7], [0.8, 0.2, 0.6])

    assert told.certainty == pytest.approx(0.7)
    assert told.reached == pytest.approx(1.6 / 3)
    assert told.rank_correlation == pytest.approx(1)
    assert measure.honesty([], []) == measure.Honesty()
    assert measure.honesty([0.4, 0.5], [0.0, 0.0]).rank_correlation is None


# -- data --


def test_masks_are_read_with_their_images(discs: MaskedDataset) -> None:
    split = discs.split("train")

    drawn = list(split.masks())

    assert len(split) == len(drawn) == 16
    assert drawn[0].shape == split.images[0].shape[:2]
    assert [bool(mask.any()) for mask in drawn[:4]] == [False, True, True, True]


@pytest.mark.parametrize("brightest", [1, 255])
def test_a_mask_may_be_stored_as_ones_or_as_white(tmp_path: Path, brightest: int) -> None:
    write_discs(tmp_path / "discs", 2, 1, 1)
    mask = np.asarray(Image.open(tmp_path / "discs" / "train1_mask.png")) > 0
    save(tmp_path / "discs" / "train1_mask.png", brightest * mask)

    _, read = masks.read(tmp_path / "discs").split("train").masks()

    np.testing.assert_array_equal(read, mask)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("train,train1.png,../index.csv", "not a file of the folder"),
        ("train,gone.png,", "names 'gone.png'"),
        ("later,train1.png,", "the split 'later'"),
    ],
)
def test_an_index_that_cannot_be_used_is_refused(tmp_path: Path, line: str, problem: str) -> None:
    write_discs(tmp_path / "discs", 2, 1, 1)
    (tmp_path / "discs" / "index.csv").write_text(f"split,image,mask\n{line}\n")
    (tmp_path / "index.csv").write_text("outside")

    with pytest.raises(InvalidDataset, match=problem):
        masks.read(tmp_path / "discs")


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    write_discs(tmp_path / "discs", 2, 1, 1)
    save(tmp_path / "discs" / "train1_mask.png", np.ones((7, 9)))

    with pytest.raises(InvalidDataset, match=r"mask\.png has 9 × 7 pixels, its image 40 × 40"):
        list(masks.read(tmp_path / "discs").split("train").masks())


def test_a_folder_of_classified_images_has_no_masks(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("split,image,label\ntrain,a.png,benign\n")
    with pytest.raises(InvalidDataset, match="lacks the columns mask"):
        masks.read(tmp_path)


# -- training --


def test_a_trained_specialist_outlines_discs(
    task: Task, discs: MaskedDataset, tmp_path: Path
) -> None:
    given = {"epochs": 12, "patience": 12, "batch_size": 4}
    train(task, discs, tmp_path / "out", given=given, augment=0.0)

    (measured,) = measure.evaluate(
        tmp_path / "out", replace(task, segmenters=("unet",)), discs.split("test")
    ).results

    assert measured.overlap.dice > 0.7
    assert 0.3 < measured.honesty.certainty <= 1


@pytest.mark.parametrize("key", list(models.MODELS))
def test_every_model_is_stored_like_any_specialist(
    key: str, task: Task, discs: MaskedDataset, tmp_path: Path
) -> None:
    (trained,) = train(task, discs, tmp_path, key, seed=5, licence="CC0-1.0")

    manifest = network.load(tmp_path / key, task).manifest

    assert manifest == trained.manifest == loader.read_manifest(tmp_path / key)
    assert (manifest.kind, manifest.labels) == ("segmentation", ("disc",))
    assert {"dice", "iou", "left_alone", "images", "loss"} == set(manifest.validation)
    assert (manifest.recipe["seed"], manifest.licence) == (5, "CC0-1.0")
    assert (tmp_path / key / loader.CARD).is_file()
    assert (tmp_path / key / loader.WEIGHTS).stat().st_size < 2**20


def test_an_interrupted_training_ends_as_if_it_had_not_been(
    task: Task, discs: MaskedDataset, tmp_path: Path
) -> None:
    def kill_after_the_first(epoch: Epoch) -> None:
        if epoch.number == 1:
            raise InterruptedError

    whole, parts, given = tmp_path / "whole", tmp_path / "parts", {"epochs": 3}
    train(task, discs, whole, given=given)
    with pytest.raises(InterruptedError):
        train(task, discs, parts, given=given, on_progress=kill_after_the_first)
    train(task, discs, parts, given=given)

    ours, theirs = state(parts / "unet"), state(whole / "unet")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_training_that_diverges_ends_and_leaves_no_specialist(
    task: Task, discs: MaskedDataset, tmp_path: Path
) -> None:
    with pytest.raises(TrainingDiverged, match="lower learning rate"):
        train(task, discs, tmp_path / "out", given={"learning_rate": 1e20, "epochs": 4})
    assert not (tmp_path / "out" / "unet").exists()


def test_what_was_trained_is_not_trained_again(
    task: Task, discs: MaskedDataset, tmp_path: Path
) -> None:
    train(task, discs, tmp_path)

    (again,) = train(task, discs, tmp_path)
    (other,) = train(task, discs, tmp_path, seed=1)

    assert again.skipped
    assert not other.skipped


def test_a_task_without_a_segment_cannot_be_trained(
    new_task, discs: MaskedDataset, tmp_path: Path
) -> None:
    with pytest.raises(InvalidDataset, match="names no segment"):
        train(new_task(), discs, tmp_path)


# -- folders --


@pytest.fixture
def unet(task: Task, discs: MaskedDataset, tmp_path: Path) -> Path:
    train(task, discs, tmp_path / "out")
    return tmp_path / "out" / "unet"


def test_weights_that_are_not_those_of_the_manifest_are_refused(unet: Path, task: Task) -> None:
    (unet / loader.WEIGHTS).write_bytes(b"rubbish")
    with pytest.raises(InvalidSpecialist, match="sha256 differs"):
        network.load(unet, task)


def test_a_specialist_of_another_segment_is_refused(unet: Path, task: Task) -> None:
    with pytest.raises(InvalidSpecialist, match="outlines disc on task 'light', not ring"):
        network.load(unet, replace(task, segment=Label("ring")))


def test_a_classifier_is_no_segmentation_specialist(
    task: Task, tmp_path: Path, new_specialist
) -> None:
    new_specialist(tmp_path / "alexnet", task)
    with pytest.raises(InvalidSpecialist, match="'alexnet' outlines nothing"):
        network.load(tmp_path / "alexnet", task)


def test_a_segmentation_specialist_is_no_classifier(unet: Path, task: Task) -> None:
    with pytest.raises(InvalidSpecialist, match="segmentation task"):
        loader.load(unet, task)


def test_an_unknown_model_is_refused(unet: Path, task: Task) -> None:
    manifest = json.loads((unet / loader.MANIFEST).read_text())
    (unet / loader.MANIFEST).write_text(json.dumps({**manifest, "backbone": "vnet"}))
    with pytest.raises(InvalidSpecialist, match="unknown segmentation model 'vnet'; known: unet"):
        network.load(unet, task)


# -- exchange --


def test_a_segmentation_specialist_travels_like_the_others(
    unet: Path, task: Task, tmp_path: Path
) -> None:
    exported = outgoing.export(unet, tmp_path / "unet.tar")

    added = incoming.add(exported.path, tmp_path / "home", lambda _: task)

    assert added.folder == tmp_path / "home" / "light" / "unet"
    assert exported.dropped == ("licence",)
    assert added.manifest.validation == network.load(unet).manifest.validation
    assert network.load(added.folder, task).manifest == added.manifest


def test_weights_of_another_model_are_refused_on_the_way_in(
    unet: Path, task: Task, discs: MaskedDataset, tmp_path: Path
) -> None:
    train(task, discs, unet.parent, "fpn")
    said = json.loads((unet / loader.MANIFEST).read_text())
    theirs = json.loads((unet.parent / "fpn" / loader.MANIFEST).read_text())
    mixed = {**said, "weights_sha256": theirs["weights_sha256"]}
    (unet / loader.MANIFEST).write_text(json.dumps(mixed))
    shutil.copy(unet.parent / "fpn" / loader.WEIGHTS, unet / loader.WEIGHTS)

    with pytest.raises(SpecialistRefused, match="the weights are refused: there is no"):
        incoming.add(unet, tmp_path / "home", lambda _: task)
    assert not (tmp_path / "home").exists()
