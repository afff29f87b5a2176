"""Weights of one's own that a training begins from."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from specialists import catalogue, loader
from specialists.architectures import EmbeddingClassifier, build
from specialists.catalogue import Scale
from specialists.errors import InvalidWeights
from specialists.task import Task
from specialists.training import pretrained
from specialists.training.dataset import Dataset
from specialists.training.finetune import Trained, finetune
from specialists.training.pretrained import Pretrained

Tensors = dict[str, Tensor]


def a_model(key: str = "resnet18", labels: int = 2, seed: int = 0) -> EmbeddingClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(catalogue.find(key).at(Scale.NANO), labels)


def a_file(tmp_path: Path, tensors: Tensors) -> Pretrained:
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
    return Pretrained(path, loader.sha256(path.read_bytes()))


def tensors_of(model: EmbeddingClassifier) -> Tensors:
    return dict(model.backbone.state_dict())


def train(task: Task, lights: Dataset, out: Path, weights: dict[str, Path]) -> Trained:
    (trained,) = finetune(
        task, lights, ["resnet18"], Scale.NANO, out, epochs=1, batch_size=8, weights=weights
    )
    return trained


def as_radimagenet(name: str) -> str:
    return "backbone." + name.replace("features.", "0.")


def as_first_torchvision(name: str) -> str:
    for part in ("norm1", "norm2", "conv1", "conv2"):
        name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
    return name


@pytest.mark.parametrize(
    "rename",
    [str, as_radimagenet, as_first_torchvision, "module.{}".format, "model.backbone.{}".format],
    ids=["timm", "radimagenet", "first torchvision", "parallel", "wrapped"],
)
def test_densenet_begins_from_names_of_timm_torchvision_and_radimagenet(
    tmp_path: Path, rename: Callable[[str], str]
) -> None:
    source, model = a_model("densenet121", seed=1), a_model("densenet121", seed=2)
    file = a_file(tmp_path, {rename(name): t for name, t in tensors_of(source).items()})

    pretrained.fill(model, file, "densenet121")

    for name, tensor in tensors_of(source).items():
        torch.testing.assert_close(model.backbone.state_dict()[name], tensor)


def test_torchvisions_own_densenet_fits_the_full_scale(tmp_path: Path) -> None:
    from torchvision.models import densenet121

    source = densenet121(weights=None, num_classes=165).state_dict()
    file = a_file(tmp_path, source)

    found = pretrained.choose(
        ["radimagenet-densenet121"], Scale.FULL, 2, {"radimagenet-densenet121": file.path}
    )

    assert found == {"radimagenet-densenet121": file}


def test_a_last_layer_of_other_labels_is_left_out(tmp_path: Path) -> None:
    source, model = a_model(labels=7, seed=1), a_model(labels=2, seed=2)
    before = model.backbone.state_dict()["fc.weight"].clone()

    pretrained.fill(model, a_file(tmp_path, tensors_of(source)), "resnet18")

    after = model.backbone.state_dict()
    torch.testing.assert_close(after["fc.weight"], before)
    torch.testing.assert_close(after["conv1.weight"], tensors_of(source)["conv1.weight"])


def test_positions_of_another_image_size_are_resized_as_timm_does(tmp_path: Path) -> None:
    arguments = dict(catalogue.find("vit-b16").at(Scale.NANO).arguments) | {"img_size": 96}
    source = timm.create_model("vit_base_patch16_224", num_classes=5, **arguments)
    model = a_model("vit-b16")

    pretrained.fill(model, a_file(tmp_path, source.state_dict()), "vit-b16")

    torch.testing.assert_close(
        model.backbone.state_dict()["blocks.0.mlp.fc1.weight"],
        source.state_dict()["blocks.0.mlp.fc1.weight"],
    )


def test_sams_positions_are_resized_once_to_what_timm_computes_every_time(tmp_path: Path) -> None:
    arguments = dict(catalogue.find("sam-vit-b16").at(Scale.NANO).arguments)
    source = timm.create_model(
        "samvit_base_patch16", num_classes=2, **arguments | {"img_size": 128}
    ).eval()
    with torch.no_grad():
        for name, parameter in source.named_parameters():
            if "pos" in name:
                parameter.normal_()
    model = a_model("sam-vit-b16").eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    pretrained.fill(model, a_file(tmp_path, source.state_dict()), "sam-vit-b16")

    with torch.inference_mode():
        torch.testing.assert_close(model(images)[0], source(images))


def without(tensors: Tensors) -> None:
    del tensors["layer2.0.conv2.weight"]


def misshaped(tensors: Tensors) -> None:
    tensors["layer2.0.conv2.weight"] = torch.zeros(3, 3)


def deeper(tensors: Tensors) -> None:
    tensors["layer2.1.conv1.weight"] = torch.zeros(24, 24, 3, 3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without, "no tensor 'layer2.0.conv2.weight'"),
        (misshaped, r"tensor 'layer2.0.conv2.weight' is \(3, 3\), not \(24, 24, 3, 3\)"),
        (deeper, "no place for tensor 'layer2.1.conv1.weight'"),
    ],
)
def test_weights_of_another_architecture_name_the_first_tensor(
    tmp_path: Path, change: Callable[[Tensors], None], sentence: str
) -> None:
    tensors = tensors_of(a_model())
    change(tensors)

    with pytest.raises(InvalidWeights, match=rf"weights.safetensors for 'resnet18': {sentence}"):
        pretrained.fill(a_model(), a_file(tmp_path, tensors), "resnet18")


@pytest.mark.parametrize("ending", ["pt", "pth", "bin", "ckpt"])
def test_files_that_may_hold_a_pickle_are_not_opened(tmp_path: Path, ending: str) -> None:
    with pytest.raises(InvalidWeights, match=f"a.{ending} is not a .safetensors file, and other"):
        pretrained.choose(["resnet18"], Scale.NANO, 2, {"resnet18": tmp_path / f"a.{ending}"})


def test_a_pickle_in_disguise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    torch.save({"weight": torch.ones(1)}, path)

    with pytest.raises(InvalidWeights, match="not in the safetensors format"):
        pretrained.choose(["resnet18"], Scale.NANO, 2, {"resnet18": path})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights, match="no weights at "):
        pretrained.choose(
            ["resnet18"], Scale.NANO, 2, {"resnet18": tmp_path / "nowhere.safetensors"}
        )


def test_a_file_that_changes_during_the_training_is_refused(tmp_path: Path) -> None:
    file = a_file(tmp_path, tensors_of(a_model()))
    a_file(tmp_path, tensors_of(a_model(seed=1)))

    with pytest.raises(InvalidWeights, match="has changed since it was chosen"):
        pretrained.fill(a_model(), file, "resnet18")


def test_weights_of_a_backbone_that_is_not_trained_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights, match="weights for 'vgg16', which is not among resnet18"):
        pretrained.choose(["resnet18"], Scale.NANO, 2, {"vgg16": tmp_path / "a.safetensors"})


def test_radimagenet_wants_a_file_of_ones_own() -> None:
    with pytest.raises(InvalidWeights, match="'radimagenet-densenet121' begins from weights of"):
        pretrained.choose(["radimagenet-densenet121"], Scale.FULL, 2, {})


def test_of_another_specialist_the_trunk_is_taken_and_its_name(
    task: Task, lights: Dataset, tmp_path: Path
) -> None:
    other = train(task, lights, tmp_path / "other", {}).folder
    chosen = pretrained.choose(["resnet18"], Scale.NANO, 2, {"resnet18": other / loader.WEIGHTS})
    model = a_model(seed=3)
    pretrained.fill(model, chosen["resnet18"], "resnet18")

    theirs = loader.load(other, task).model.backbone.state_dict()
    assert chosen["resnet18"].name == f"{task.name}/resnet18"
    assert torch.equal(model.backbone.state_dict()["conv1.weight"], theirs["conv1.weight"])
    assert not torch.equal(model.backbone.state_dict()["fc.weight"], theirs["fc.weight"])


@pytest.mark.parametrize(
    "told",
    [{"task": "Muster, Hans *1970-01-01"}, {"backbone": "a/b"}, {"weights_sha256": "0" * 64}],
)
def test_a_manifest_about_something_else_names_nothing(
    task: Task, lights: Dataset, tmp_path: Path, told: dict[str, str]
) -> None:
    other = train(task, lights, tmp_path / "other", {}).folder
    manifest = other / loader.MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | told))

    chosen = pretrained.choose(["resnet18"], Scale.NANO, 2, {"resnet18": other / loader.WEIGHTS})

    assert chosen["resnet18"].name == loader.WEIGHTS


def test_the_manifest_records_what_the_training_began_from(
    task: Task, lights: Dataset, tmp_path: Path
) -> None:
    file = a_file(tmp_path, tensors_of(a_model(seed=9)))

    plain = train(task, lights, tmp_path / "plain", {})
    begun = train(task, lights, tmp_path / "begun", {"resnet18": file.path})

    assert begun.manifest.recipe["begun_from_sha256"] == file.sha256
    assert begun.manifest.recipe["begun_from"] == "weights.safetensors"
    assert file.sha256 in (tmp_path / "begun" / "resnet18" / loader.CARD).read_text()
    assert "begun_from_sha256" not in plain.manifest.recipe
    assert begun.manifest.weights_sha256 != plain.manifest.weights_sha256


def test_another_file_is_another_training(task: Task, lights: Dataset, tmp_path: Path) -> None:
    weights = {"resnet18": a_file(tmp_path, tensors_of(a_model(seed=9))).path}
    train(task, lights, tmp_path / "out", weights)
    again = train(task, lights, tmp_path / "out", weights)
    a_file(tmp_path, tensors_of(a_model(seed=10)))
    other = train(task, lights, tmp_path / "out", weights)

    assert (again.skipped, other.skipped) == (True, False)
