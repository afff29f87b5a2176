"""The catalogue's pretrained weights, found where this machine already has them."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from specialists import catalogue, loader
from specialists.architectures import build
from specialists.catalogue import Scale
from specialists.errors import InvalidWeights
from specialists.task import Task
from specialists.training import hub
from specialists.training.dataset import Dataset
from specialists.training.finetune import finetune

REVISION = "4b1e2e2a3f5c6d7e8f90"

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def tensors() -> Tensors:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build(catalogue.find("resnet18").at(Scale.NANO), 5).backbone.state_dict()


@pytest.fixture
def cache(tmp_path: Path, tensors: Tensors) -> Path:
    """A hub cache in which ResNet-18's pinned tag lies."""
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    return put(tmp_path / "cache", "resnet18.a1_in1k", content)


def put(cache: Path, tag: str, content: bytes, name: str | None = None) -> Path:
    """A file as the hub's own client leaves it: named by content, linked from its revision."""
    home = cache / f"models--timm--{tag}"
    for folder in ("blobs", "refs", f"snapshots/{REVISION}"):
        (home / folder).mkdir(parents=True)
    blob = home / "blobs" / (name or loader.sha256(content))
    blob.write_bytes(content)
    (home / "refs" / "main").write_text(REVISION)
    os.symlink(blob, home / "snapshots" / REVISION / hub.FILE)
    return cache


def test_every_backbone_of_the_panel_has_a_pinned_place() -> None:
    import timm

    for key in catalogue.PANEL:
        tag = catalogue.find(key).pretrained
        if not tag.startswith("torchvision "):
            assert timm.models.get_pretrained_cfg(tag).hf_hub_id == f"timm/{tag}"


def test_a_training_begins_from_the_pinned_weights(
    task: Task, lights: Dataset, tmp_path: Path, cache: Path, tensors: Tensors
) -> None:
    weights = {"resnet18": hub.find("resnet18", cache)}
    still = {"epochs": 1, "learning_rate": 0.0}

    (trained,) = finetune(
        task, lights, ["resnet18"], Scale.NANO, tmp_path, weights=weights, **still
    )

    after = load_file(trained.folder / loader.WEIGHTS)["backbone.conv1.weight"]
    torch.testing.assert_close(after.float(), tensors["conv1.weight"], atol=1e-3, rtol=1e-3)
    assert trained.manifest.recipe["begun_from"] == f"timm/resnet18.a1_in1k@{REVISION}"
    assert trained.manifest.recipe["begun_from_sha256"] == hub_sha256(cache)


def hub_sha256(cache: Path) -> str:
    return next(cache.glob("*/blobs/*")).name


def test_what_is_not_there_is_told_with_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights, match=r"hf download timm/vgg16\.tv_in1k model\.safetensors"):
        hub.find("vgg16", tmp_path)
    with pytest.raises(InvalidWeights, match=r"https://download\.pytorch\.org/models/alexnet-owt"):
        hub.find("alexnet", tmp_path)
    with pytest.raises(InvalidWeights, match="begins from weights of your own"):
        hub.find("radimagenet-densenet121", tmp_path)


def test_a_damaged_download_is_told(tmp_path: Path, tensors: Tensors) -> None:
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    cache = put(tmp_path, "resnet18.a1_in1k", content[:-1], name=loader.sha256(content))

    with pytest.raises(InvalidWeights, match=r"timm/resnet18\.a1_in1k@\w+ is damaged"):
        hub.find("resnet18", cache)


def test_torchvisions_pickle_is_opened_elsewhere_and_kept_as_tensors(
    tmp_path: Path, tensors: Tensors
) -> None:
    torch.save(tensors, tmp_path / "fresh")
    named = tmp_path / f"alexnet-{loader.sha256((tmp_path / 'fresh').read_bytes())[:8]}.pth"
    (tmp_path / "fresh").rename(named)

    converted = hub.tensors_of(named)

    assert converted.name == named.with_suffix(".safetensors").name
    torch.testing.assert_close(load_file(converted), dict(tensors))
    assert sorted(tmp_path.iterdir()) == sorted([named, converted])


def test_a_pickle_with_another_content_than_its_name_says_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "alexnet-owt-7be5be79.pth"
    path.write_bytes(pickle.dumps({}))

    with pytest.raises(InvalidWeights, match=r"alexnet-owt-7be5be79\.pth is damaged"):
        hub.find("alexnet", tmp_path)


def test_a_file_of_ones_own_keeps_its_name(tmp_path: Path) -> None:
    assert hub.name_of(tmp_path / "weights.safetensors") is None
    assert hub.name_of(Path("weights.safetensors")) is None
