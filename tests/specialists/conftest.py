"""A task anyone can learn — is the image dark or bright? — with its images and its specialists."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from specialists import catalogue, loader, runtime
from specialists.architectures import build
from specialists.arithmetic import F32, Arithmetic
from specialists.catalogue import PANEL, Scale
from specialists.loader import Manifest
from specialists.prediction import Pixels
from specialists.task import Task, from_mapping
from specialists.training import dataset
from specialists.training.dataset import Dataset

LEVELS = (60, 190)  # grey of a dark and of a bright image


def make_task(**fields: object) -> Task:
    lights = {"name": "light", "kind": "single-label", "modality": "photograph"}
    return from_mapping({**lights, "labels": ["dark", "bright"], **fields})


def make_arrays(train: int = 24, val: int = 8, test: int = 8) -> dict[str, np.ndarray]:
    """A MedMNIST file's arrays: images of 16 px, alternately dark and bright, with noise."""
    noise = np.random.default_rng(0)
    arrays = {}
    for split, count in {"train": train, "val": val, "test": test}.items():
        labels = np.arange(count) % 2
        images = noise.normal(np.take(LEVELS, labels)[:, None, None], 20, (count, 16, 16))
        arrays[f"{split}_images"] = images.clip(0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    return arrays


def make_specialist(
    folder: Path,
    task: Task,
    key: str = "alexnet",
    seed: int = 7,
    scale: Scale = Scale.NANO,
    **fields: object,
) -> Manifest:
    """An untrained specialist, stored; the same for the same backbone and seed."""
    architecture = catalogue.find(key).at(scale)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build(architecture, len(task.labels))
    manifest = Manifest(
        task=task.name,
        kind=task.kind,
        labels=task.label_names,
        backbone=key,
        scale=scale,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        embedding_dimension=architecture.dimension,
        preprocessing=loader.preprocessing_of(architecture),
        recipe={"epochs": 0},
        data_fingerprint="0" * 64,
        validation={"accuracy": 0.5, "auc": None},
        temperature=1.0,
        licence="CC0-1.0",
    )
    return loader.save(folder, model, replace(manifest, **fields))


@pytest.fixture(scope="session", autouse=True)
def one_core() -> None:
    """Images so small are not worth dividing: several threads would mostly wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture
def task() -> Task:
    return make_task()


@pytest.fixture
def new_task() -> Callable[..., Task]:
    return make_task


@pytest.fixture
def new_arrays() -> Callable[..., dict[str, np.ndarray]]:
    return make_arrays


@pytest.fixture
def new_specialist() -> Callable[..., Manifest]:
    return make_specialist


@pytest.fixture
def pixels() -> Pixels:
    """An image of no particular size."""
    return np.random.default_rng(1).integers(0, 256, (90, 70, 3), dtype=np.uint8)


@pytest.fixture
def lights(tmp_path: Path, task: Task) -> Dataset:
    path = tmp_path / "lights.npz"
    np.savez(path, **make_arrays())
    return dataset.read(path, task)


@pytest.fixture(scope="session")
def panels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of panels in which the ten stand ready for the task; not to be written to."""
    folder = tmp_path_factory.mktemp("panels")
    for key in PANEL:
        make_specialist(folder / "light" / key, make_task(), key)
    return folder


@pytest.fixture(scope="session")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the quickest full-size specialist, with its graph; not to be written to."""
    folder = tmp_path_factory.mktemp("full") / "light" / "resnet18"
    make_specialist(folder, make_task(), "resnet18", scale=Scale.FULL)
    runtime.ready(folder, make_task(), ways=lambda: (Arithmetic(F32),))
    return folder
