import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from specialists import loader
from specialists.catalogue import Augmentation, Scale
from specialists.errors import InvalidDataset, InvalidSpecialist, UnknownBackbone
from specialists.task import Task
from specialists.training import checkpoint, dataset
from specialists.training.augment import augment
from specialists.training.checkpoint import Checkpoint, Progress
from specialists.training.dataset import Dataset
from specialists.training.evaluate import embed, evaluate, votes
from specialists.training.finetune import Trained, finetune
from specialists.training.trainer import Epoch


def train(task: Task, lights: Dataset, out: Path, *keys: str, **options: Any) -> list[Trained]:
    short = {"epochs": 1, "batch_size": 8, **options}
    return finetune(task, lights, keys or ("alexnet",), Scale.NANO, out, **short)


def test_a_finetuned_specialist_tells_dark_from_bright(
    task: Task, lights: Dataset, tmp_path: Path
) -> None:
    still = Augmentation()
    train(task, lights, tmp_path, "resnet18", epochs=6, patience=6, augmentation=still)

    evaluation = evaluate(tmp_path, task, lights.split("test"))

    assert evaluation.results[0].specialist == "resnet18"
    assert evaluation.results[0].metrics.auc == 1.0


def test_the_manifest_tells_how_the_specialist_came_about(
    task: Task, lights: Dataset, tmp_path: Path
) -> None:
    (trained,) = train(task, lights, tmp_path, seed=5, licence="CC0-1.0")

    manifest = loader.load(tmp_path / "alexnet", task).manifest

    assert manifest == trained.manifest
    assert manifest.data_fingerprint == lights.fingerprint()
    assert manifest.recipe["seed"] == 5
    assert manifest.recipe["epochs_done"] == 1
    assert set(manifest.validation) == {"accuracy", "macro_f1", "auc", "loss", "images"}
    assert manifest.licence == "CC0-1.0"
    assert 0.05 <= manifest.temperature <= 20


def test_the_manifest_measures_the_weights_as_stored(
    task: Task, lights: Dataset, tmp_path: Path
) -> None:
    train(task, lights, tmp_path)

    again = evaluate(tmp_path, task, lights.split("val")).results[0]

    promised = loader.read_manifest(tmp_path / "alexnet").validation
    assert again.metrics.as_dict() == {name: promised[name] for name in again.metrics.as_dict()}


def test_several_labels_can_be_learnt(tmp_path: Path, new_task, new_arrays) -> None:
    task = new_task(kind="multi-label", labels=["dark", "bright", "never"])
    arrays = new_arrays()
    for key in [key for key in arrays if key.endswith("labels")]:
        arrays[key] = np.eye(3, dtype=np.uint8)[arrays[key][:, 0]]
    np.savez(tmp_path / "marks.npz", **arrays)

    train(task, dataset.read(tmp_path / "marks.npz", task), tmp_path / "out")

    assert loader.load(tmp_path / "out" / "alexnet", task).manifest.kind == "multi-label"


class Killed(Exception):
    """Stands for whatever may end a training."""


def test_an_interrupted_training_ends_as_if_it_had_not_been(
    task: Task, lights: Dataset, tmp_path: Path
) -> None:
    def kill_after_the_second(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise Killed

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(task, lights, whole, epochs=4)
    with pytest.raises(Killed):
        train(task, lights, parts, epochs=4, on_progress=kill_after_the_second)
    seen: list[int] = []
    train(task, lights, parts, epochs=4, on_progress=lambda epoch: seen.append(epoch.number))

    assert seen == [3, 4]
    one, other = (loader.read_manifest(folder / "alexnet") for folder in (whole, parts))
    assert one.weights_sha256 == other.weights_sha256


def test_what_is_finished_is_not_trained_again(task: Task, lights: Dataset, tmp_path: Path) -> None:
    train(task, lights, tmp_path, "alexnet")

    again = train(task, lights, tmp_path, "alexnet", "resnet18")

    assert [trained.skipped for trained in again] == [True, False]
    assert sorted(path.name for path in tmp_path.glob("*")) == ["alexnet", "lights.npz", "resnet18"]


def test_another_seed_is_another_training(task: Task, lights: Dataset, tmp_path: Path) -> None:
    (one,) = train(task, lights, tmp_path, seed=1)
    (other,) = train(task, lights, tmp_path, seed=2)

    assert not other.skipped
    assert one.manifest.weights_sha256 != other.manifest.weights_sha256


def test_backbones_trained_side_by_side_are_the_same_as_one_after_the_other(
    task: Task, lights: Dataset, tmp_path: Path
) -> None:
    seen: list[str] = []
    keys = ("alexnet", "resnet18")
    one = train(task, lights, tmp_path / "one", *keys)

    other = train(
        task,
        lights,
        tmp_path / "other",
        *keys,
        workers=2,
        on_progress=lambda epoch: seen.append(epoch.backbone),
    )

    assert sorted(seen) == sorted(keys)
    assert [t.manifest.weights_sha256 for t in one] == [t.manifest.weights_sha256 for t in other]


def test_what_goes_wrong_beside_is_told_here(task: Task, lights: Dataset, tmp_path: Path) -> None:
    nowhere = tmp_path / "a-file"
    nowhere.write_text("in the way")

    with pytest.raises(OSError, match="a-file"):
        train(task, lights, nowhere, "alexnet", "resnet18", workers=2)


def test_training_stops_when_patience_is_lost(task: Task, lights: Dataset, tmp_path: Path) -> None:
    seen: list[Epoch] = []

    train(
        task, lights, tmp_path, epochs=30, patience=1, learning_rate=1e-9, on_progress=seen.append
    )

    assert len(seen) < 30
    assert [epoch.best for epoch in seen][-1] is False


def test_an_unknown_backbone_stops_before_anything_is_trained(
    task: Task, lights: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(UnknownBackbone):
        train(task, lights, tmp_path / "out", "alexnet", "vgg19")

    assert not (tmp_path / "out").exists()


def test_training_leaves_the_callers_random_numbers_alone(
    task: Task, lights: Dataset, tmp_path: Path
) -> None:
    before = torch.random.get_rng_state()

    train(task, lights, tmp_path)

    assert torch.equal(before, torch.random.get_rng_state())


def test_a_damaged_checkpoint_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "alexnet.safetensors"
    tensors = {"weight": torch.ones(2)}
    checkpoint.write(path, Checkpoint(Progress("run", 3), tensors, {"weight": torch.ones(2)}, {}))
    whole = checkpoint.read(path, "run")
    path.write_bytes(path.read_bytes()[:-4])

    assert whole is not None
    assert whole.progress.epochs_done == 3
    assert checkpoint.read(path, "run") is None


def test_a_checkpoint_of_another_run_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "alexnet.safetensors"
    checkpoint.write(path, Checkpoint(Progress("run"), {}, {}, {}))

    assert checkpoint.read(path, "another") is None


def test_augmentation_without_limits_changes_nothing() -> None:
    images = torch.rand(2, 3, 16, 16)

    same = augment(images, Augmentation(), torch.Generator())

    torch.testing.assert_close(same, images, atol=1e-5, rtol=0)


def test_augmentation_mirrors_only_where_allowed() -> None:
    images = torch.zeros(64, 3, 8, 8)
    images[..., :4] = 1

    mirrored = augment(images, Augmentation(flip=True), torch.Generator().manual_seed(0))

    left = mirrored[:, 0, 0, 0].round()
    assert 16 < left.sum() < 48


def test_the_panel_is_evaluated_one_by_one_and_together(
    panels: Path, task: Task, lights: Dataset
) -> None:
    evaluation = evaluate(panels / "light", task, lights.split("test"))

    assert len(evaluation.results) == 10
    assert evaluation.probabilities.shape == (10, 8, 2)
    assert [array.shape[0] for array in evaluation.embeddings.values()] == [8] * 10
    np.testing.assert_allclose(np.linalg.norm(evaluation.embeddings["vgg16"], axis=1), 1, rtol=1e-5)


def test_embeddings_for_an_index_leave_out_whoever_is_missing(
    tmp_path: Path, task: Task, lights: Dataset, new_specialist
) -> None:
    new_specialist(tmp_path / "resnet18", task, "resnet18")

    arrays = embed(tmp_path, task, lights.split("train").images)

    assert list(arrays) == ["resnet18"]
    probabilities, embeddings = arrays["resnet18"]
    assert probabilities.shape == (24, 2)
    assert embeddings.shape == (24, 64)


def test_a_vote_counts_each_specialist_once(task: Task) -> None:
    said = np.array([[[0.9, 0.1]], [[0.4, 0.6]], [[0.45, 0.55]]], np.float32)

    np.testing.assert_allclose(votes(task, said), [[1 / 3, 2 / 3]], rtol=1e-6)


def test_nothing_can_be_evaluated_without_images_or_specialists(
    tmp_path: Path, panels: Path, task: Task, lights: Dataset
) -> None:
    test = lights.split("test")

    with pytest.raises(InvalidDataset, match="no images"):
        evaluate(panels / "light", task, test.choose([]))
    with pytest.raises(InvalidSpecialist, match="no specialist for task 'light'"):
        evaluate(tmp_path / "nowhere", task, test)


def test_the_manifest_is_plain_json(task: Task, lights: Dataset, tmp_path: Path) -> None:
    train(task, lights, tmp_path)

    document = json.loads((tmp_path / "alexnet" / loader.MANIFEST).read_text())

    assert document["labels"] == ["dark", "bright"]
    assert document["recipe"]["augmentation"]["flip"] is False
