"""What may be wrong with data, weights, numbers and disks of a training, and what is left then."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from specialists import loader
from specialists.catalogue import Scale
from specialists.errors import InvalidDataset, InvalidSpecialist, InvalidWeights, TrainingDiverged
from specialists.loader import MANIFEST, WEIGHTS, Manifest
from specialists.task import Task
from specialists.training import checkpoint, dataset
from specialists.training.checkpoint import Checkpoint, Progress
from specialists.training.dataset import Dataset
from specialists.training.finetune import CHECKPOINTS, finetune
from specialists.training.trainer import Epoch


def train(lights: Dataset, out: Path, **options: Any) -> Manifest:
    given = {"epochs": 2, "batch_size": 8, **options}
    (trained,) = finetune(lights.task, lights, ["alexnet"], Scale.NANO, out, **given)
    return trained.manifest


def test_a_loss_that_is_no_number_ends_the_training(lights: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"'alexnet' diverged in epoch \d+: its loss is nan"):
        train(lights, tmp_path, learning_rate=1e30, epochs=5)

    assert not (tmp_path / "alexnet").exists()


def test_the_former_specialist_outlives_a_training_that_diverges(
    lights: Dataset, tmp_path: Path, task: Task
) -> None:
    before = train(lights, tmp_path)

    with pytest.raises(TrainingDiverged):
        train(lights, tmp_path, learning_rate=1e30, epochs=5)

    assert loader.load(tmp_path / "alexnet", task).manifest == before


def test_what_diverges_beside_others_is_told_here(lights: Dataset, tmp_path: Path) -> None:
    options: dict[str, Any] = {"learning_rate": 1e30, "epochs": 5, "batch_size": 8, "workers": 2}

    with pytest.raises(TrainingDiverged, match="a lower learning rate than 1e\\+30 may help"):
        finetune(lights.task, lights, ["alexnet", "resnet18"], Scale.NANO, tmp_path, **options)


def not_a_number(tensors: dict[str, torch.Tensor]) -> None:
    tensors["backbone.conv1.weight"][0, 0, 0, 0] = torch.nan


def infinite(tensors: dict[str, torch.Tensor]) -> None:
    tensors["backbone.bn1.running_var"][0] = torch.inf


def one_more(tensors: dict[str, torch.Tensor]) -> None:
    tensors["backbone.extra"] = torch.ones(1)


@pytest.fixture
def spoilt(tmp_path: Path, task: Task, new_specialist) -> Callable[..., Path]:
    """A specialist with other weights, whose manifest names their sha256."""

    def spoilt(change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
        folder = tmp_path / "resnet18"
        manifest = new_specialist(folder, task, "resnet18")
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)
        content = (folder / MANIFEST).read_text()
        sha256 = loader.sha256((folder / WEIGHTS).read_bytes())
        (folder / MANIFEST).write_text(content.replace(manifest.weights_sha256, sha256))
        return folder

    return spoilt


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (not_a_number, "tensor 'backbone.conv1.weight' of 'resnet18' holds numbers that are not"),
        (infinite, "tensor 'backbone.bn1.running_var' of 'resnet18' holds numbers that are not"),
        (one_more, "do not fit the nano architecture"),
    ],
)
def test_a_specialist_with_spoilt_weights_is_not_loaded(
    spoilt, task: Task, change: Callable[[dict[str, torch.Tensor]], None], reason: str
) -> None:
    with pytest.raises(InvalidSpecialist, match=reason):
        loader.load(spoilt(change), task)


@pytest.mark.parametrize("change", [not_a_number, infinite])
def test_a_training_does_not_begin_from_spoilt_weights(
    spoilt, lights: Dataset, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    weights = {"resnet18": spoilt(change) / WEIGHTS}

    with pytest.raises(InvalidWeights, match=r"for .resnet18.: tensor .* not finite"):
        finetune(lights.task, lights, ["resnet18"], Scale.NANO, tmp_path / "out", weights=weights)

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["single-label", "multi-label"])
def test_a_label_without_a_training_image_is_named(
    tmp_path: Path, new_task, new_arrays, kind: str
) -> None:
    arrays = new_arrays()
    if kind == "multi-label":
        for key in [key for key in arrays if key.endswith("labels")]:
            arrays[key] = np.eye(3, dtype=np.uint8)[arrays[key][:, 0]]
    np.savez(tmp_path / "lights.npz", **arrays)
    lights = dataset.read(
        tmp_path / "lights.npz", new_task(kind=kind, labels=["dark", "bright", "never"])
    )

    with pytest.raises(InvalidDataset, match=r"no training image of lights\.npz has the label 'ne"):
        dataset.demand_every_label(lights)


def test_too_few_images_to_hold_some_out_for_validation(
    tmp_path: Path, task: Task, new_arrays
) -> None:
    arrays = {key: array[:1] for key, array in new_arrays().items() if not key.startswith("val")}
    np.savez(tmp_path / "lights.npz", **arrays)

    with pytest.raises(InvalidDataset, match="too small to hold out a validation split"):
        dataset.read(tmp_path / "lights.npz", task)


def test_a_full_disk_at_publication_keeps_the_former_specialist(
    lights: Dataset, tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = train(lights, tmp_path)

    with disk_full(monkeypatch, at=loader.os), pytest.raises(OSError, match="No space left"):
        train(lights, tmp_path, seed=1)

    assert loader.load(tmp_path / "alexnet", task).manifest == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        CHECKPOINTS,
        "alexnet",
        "lights.npz",
    ]


def test_with_space_again_it_publishes_without_training_again(
    lights: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(lights, tmp_path / "whole")
    with disk_full(monkeypatch, at=loader.os), pytest.raises(OSError, match="No space left"):
        train(lights, tmp_path / "parts")
    seen: list[Epoch] = []

    published = train(lights, tmp_path / "parts", on_progress=seen.append)

    assert seen == []
    assert published.weights_sha256 == whole.weights_sha256


@contextmanager
def disk_full(monkeypatch: pytest.MonkeyPatch, at: Any) -> Iterator[None]:
    """No space from the moment on in which the specialist's own files are written."""

    def full(file: int) -> None:
        if ".writing-" in os.readlink(f"/proc/self/fd/{file}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(at, "fsync", full)
        yield


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "alexnet.safetensors"
    checkpoint.write(path, Checkpoint(Progress("run", 1), {"weight": torch.ones(2)}, {}, {}))
    large = {"weight": torch.ones(100_000)}

    with files_of_at_most(10_000), pytest.raises(OSError, match="checkpoint is not written"):
        checkpoint.write(path, Checkpoint(Progress("run", 2), large, {}, {}))

    kept = checkpoint.read(path, "run")
    assert kept is not None
    assert kept.progress.epochs_done == 1
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to write more, much as a full disk does (EFBIG, not ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
