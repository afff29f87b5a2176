import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from specialists import loader
from specialists.errors import InvalidSpecialist
from specialists.forward import forward
from specialists.task import Task


@pytest.fixture
def folder(tmp_path: Path, task: Task, new_specialist) -> Path:
    new_specialist(tmp_path / "light" / "alexnet", task)
    return tmp_path / "light" / "alexnet"


def rewrite_manifest(folder: Path, **fields: object) -> None:
    path = folder / loader.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_stored_specialist_answers_after_loading(folder: Path, task: Task) -> None:
    specialist = loader.load(folder, task)

    probabilities, embeddings = forward(specialist, torch.rand(2, 3, 64, 64))

    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)
    assert embeddings.dtype == np.float32


def test_several_labels_have_independent_probabilities(tmp_path: Path, new_task, new_specialist):
    several = new_task(kind="multi-label")
    new_specialist(tmp_path / "alexnet", several)

    specialist = loader.load(tmp_path / "alexnet", several)
    probabilities, _ = forward(specialist, torch.rand(4, 3, 64, 64))

    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)


def test_weights_are_stored_as_float16_and_loaded_as_float32(folder: Path, task: Task) -> None:
    floats = {t.dtype for t in load_file(folder / loader.WEIGHTS).values() if t.is_floating_point()}
    parameters = {p.dtype for p in loader.load(folder, task).model.parameters()}

    assert floats == {torch.float16}
    assert parameters == {torch.float32}


def test_what_float16_cannot_hold_stays_float32(folder: Path, task: Task) -> None:
    model = loader.load(folder, task).model
    with torch.no_grad():
        next(model.parameters()).fill_(1e6)

    assert next(iter(loader.stored(model).values())).dtype == torch.float32


def test_storing_again_replaces_the_specialist_and_leaves_nothing_else(
    folder: Path, task: Task, new_specialist
) -> None:
    new_specialist(folder, task)

    assert sorted(path.name for path in folder.parent.iterdir()) == ["alexnet"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.md",
        "manifest.json",
        "weights.safetensors",
    ]


def test_the_card_says_what_it_is_for(folder: Path) -> None:
    card = (folder / loader.CARD).read_text()

    assert "# alexnet (nano) for light" in card
    assert "not a medical device" in card


def test_changed_weights_are_refused(folder: Path, task: Task) -> None:
    weights = bytearray((folder / loader.WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (folder / loader.WEIGHTS).write_bytes(weights)

    with pytest.raises(
        InvalidSpecialist, match="the weights of 'alexnet' are not those of its manifest"
    ):
        loader.load(folder, task)


def test_missing_weights_are_named(folder: Path, task: Task) -> None:
    (folder / loader.WEIGHTS).unlink()

    with pytest.raises(InvalidSpecialist, match="no weights for 'alexnet' on task 'light'"):
        loader.load(folder, task)


def test_weights_that_are_not_safetensors_are_refused(folder: Path, task: Task) -> None:
    pickled = b"\x80\x04K\x01."
    (folder / loader.WEIGHTS).write_bytes(pickled)
    rewrite_manifest(folder, weights_sha256=loader.sha256(pickled))

    with pytest.raises(InvalidSpecialist, match="is damaged"):
        loader.load(folder, task)


def test_weights_of_another_shape_are_refused(folder: Path, task: Task) -> None:
    path = folder / loader.WEIGHTS
    save_file({name: tensor[:1] for name, tensor in load_file(path).items()}, path)
    rewrite_manifest(folder, weights_sha256=loader.sha256(path.read_bytes()))

    with pytest.raises(InvalidSpecialist, match="do not fit the nano architecture with 2 labels"):
        loader.load(folder, task)


def test_labels_in_another_order_are_refused(folder: Path, new_task) -> None:
    swapped = new_task(labels=["bright", "dark"])

    with pytest.raises(InvalidSpecialist, match="knows the labels dark, bright"):
        loader.load(folder, swapped)


def test_a_specialist_of_another_task_is_refused(folder: Path, new_task) -> None:
    with pytest.raises(InvalidSpecialist, match="trained for the single-label task 'light'"):
        loader.load(folder, new_task(name="colour"))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"backbone": "vgg19"}, "unknown backbone 'vgg19'"),
        ({"preprocessing": {"version": "old", "input_size": 64, "mean": [0] * 3, "std": [1] * 3}},
         "other preprocessing"),
        ({"temperature": "hot"}, "cannot be read"),
        ({"format": 2}, "format 2"),
    ],
)  # fmt: skip
def test_a_manifest_that_promises_something_else_is_refused(
    folder: Path, fields: dict[str, object], reason: str
) -> None:
    rewrite_manifest(folder, **fields)

    with pytest.raises(InvalidSpecialist, match=reason):
        loader.load(folder)


def test_an_empty_folder_is_no_specialist(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidSpecialist, match=r"no specialist 'vgg16': manifest\.json is missing"
    ):
        loader.load(tmp_path / "vgg16")
