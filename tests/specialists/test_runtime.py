"""Faster ways to compute a specialist say what the model says."""

import importlib.util
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from specialists import loader, runtime
from specialists.catalogue import Scale
from specialists.forward import forward
from specialists.loader import Specialist
from specialists.runtime import CompiledGraph
from specialists.task import Task


@pytest.fixture
def plain(panels: Path, task: Task) -> Specialist:
    return loader.load(panels / "light" / "resnet18", task)


def compiled(plain: Specialist, cache: Path | None = None) -> Specialist:
    size = plain.manifest.preprocessing.input_size
    return replace(plain, compute=CompiledGraph(plain.model, size, cache))


def some_images(plain: Specialist, count: int) -> torch.Tensor:
    size = plain.manifest.preprocessing.input_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("count", [1, 3])
def test_a_compiled_specialist_says_what_the_model_says(plain: Specialist, count: int) -> None:
    images = some_images(plain, count)

    ours, theirs = forward(compiled(plain), images), forward(plain, images)

    assert ours[0] == pytest.approx(theirs[0], abs=0.02)
    assert (ours[1] * theirs[1]).sum(axis=1).min() > 0.999


def test_threads_that_ask_at_once_get_their_own_answers(plain: Specialist) -> None:
    fast = compiled(plain)
    images = some_images(plain, 8)
    alone = [forward(fast, images[place : place + 1])[1] for place in range(8)]
    found: dict[int, np.ndarray] = {}

    def ask(place: int) -> None:
        found[place] = forward(fast, images[place : place + 1])[1]

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all((found[place] == alone[place]).all() for place in range(8))


def test_what_was_compiled_is_kept(plain: Specialist, tmp_path: Path) -> None:
    compiled(plain, tmp_path / "kept")

    assert list((tmp_path / "kept").iterdir())


def test_nano_specialists_stay_as_they_were_trained(plain: Specialist) -> None:
    assert runtime.accelerated(plain, "cpu") is plain


def test_without_the_compiler_pytorch_answers(
    plain: Specialist, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = replace(plain, manifest=replace(plain.manifest, scale=Scale.FULL))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert runtime.accelerated(full, "cpu") is full


def test_a_full_size_specialist_is_compiled(plain: Specialist) -> None:
    full = replace(plain, manifest=replace(plain.manifest, scale=Scale.FULL))

    assert isinstance(runtime.accelerated(full, "cpu").compute, CompiledGraph)
