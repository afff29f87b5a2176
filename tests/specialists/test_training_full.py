"""The ten at full size, from pretrained weights in a hub's cache to specialists, on real images."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import timm
import torch
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from safetensors.torch import save_file
from torchvision.models import alexnet

from specialists import catalogue, loader
from specialists.catalogue import PANEL, Scale
from specialists.forward import forward
from specialists.task import Task, from_mapping
from specialists.training import dataset, hub
from specialists.training.dataset import Dataset
from specialists.training.finetune import finetune

FILES = {"CT": "CT_small.dcm", "MR": "MR_small.dcm"}
"""A real CT and a real MR slice that come with pydicom."""

PATCH = 40
REVISION = "0" * 40


def patches(file: str, count: int) -> NDArray[np.uint8]:
    """Windows onto a slice, (count, PATCH, PATCH), in the window that its grey levels fill."""
    stored = pydicom.dcmread(str(get_testdata_file(file))).pixel_array.astype(np.float64)
    low, high = np.percentile(stored, (1, 99))
    image = ((stored - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)
    corners = np.random.default_rng(0).integers(0, np.array(image.shape) - PATCH, (count, 2))
    return np.stack([image[top : top + PATCH, left : left + PATCH] for top, left in corners])


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """CT or MR? 24 real images to train with, 8 to validate."""
    images = np.stack([patches(file, 16) for file in FILES.values()], axis=1)  # (16, 2, …)
    labels = np.tile([[0], [1]], (16, 1)).astype(np.uint8)
    images = images.reshape(32, PATCH, PATCH)
    path = tmp_path_factory.mktemp("slices") / "slices.npz"
    np.savez(
        path,
        train_images=images[:24], train_labels=labels[:24],
        val_images=images[24:], val_labels=labels[24:],
    )  # fmt: skip
    return dataset.read(path, modality())


def modality() -> Task:
    fields = {"name": "modality", "kind": "single-label", "modality": "CT or MR"}
    return from_mapping({**fields, "labels": list(FILES)})


def cached(key: str, cache: Path) -> Path:
    """The backbone's weights as timm publishes them, at their own size, but of random numbers."""
    tag = catalogue.find(key).pretrained
    folder = cache / f"models--timm--{tag}"
    file = folder / "snapshots" / REVISION / hub.FILE
    file.parent.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(REVISION)
    model = alexnet() if key == "alexnet" else timm.create_model(tag, pretrained=False)
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, file)
    return file if key == "alexnet" else hub.find(key, cache)


@pytest.fixture(autouse=True)
def all_cores() -> Iterator[None]:
    """These are large enough to be worth dividing."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("key", PANEL)
def test_a_full_size_backbone_is_finetuned_for_an_epoch(
    key: str, slices: Dataset, tmp_path: Path
) -> None:
    weights = {key: cached(key, tmp_path)}

    (trained,) = finetune(
        slices.task, slices, [key], Scale.FULL, tmp_path, epochs=1, batch_size=8, weights=weights
    )

    specialist = loader.load(trained.folder, slices.task)
    probabilities, embeddings = forward(specialist, torch.zeros(1, 3, 224, 224))
    assert trained.manifest.recipe["epochs_done"] == 1
    assert np.isfinite(list(trained.manifest.validation.values())).all()
    assert (probabilities.shape, embeddings.shape[1]) == (
        (1, 2),
        specialist.manifest.embedding_dimension,
    )
    assert np.isfinite(probabilities).all()
