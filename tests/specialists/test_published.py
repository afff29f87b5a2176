"""Stories of those who take in the checkpoints that GSCo published."""

import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from specialists import loader, transforms
from specialists.errors import SpecialistRefused
from specialists.exchange import unpickle
from specialists.exchange.incoming import Added
from specialists.exchange.published import name_of, take_in
from specialists.forward import forward
from specialists.prediction import Pixels
from specialists.task import Task

NAME = "pneumoniamnist_224_endToEnd_resnet18_s9930641_best.pth"


@pytest.fixture(scope="session")
def resnet18() -> dict[str, torch.Tensor]:
    """What a training of two labels by the published code saves."""
    torch.manual_seed(1)
    return timm.create_model("resnet18", num_classes=2).state_dict()


@pytest.fixture
def take(tmp_path: Path, task: Task) -> Callable[..., Added]:
    return lambda file, **options: take_in(file, task, tmp_path / "home", **options)


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_a_published_checkpoint_becomes_a_specialist_with_the_same_answers(
    tmp_path: Path, resnet18, take, task: Task, pixels: Pixels
) -> None:
    file = save(tmp_path / NAME, resnet18)

    added = take(file, licence="CC-BY-4.0")
    specialist = loader.load(added.folder, task)

    how = specialist.manifest.preprocessing
    images = transforms.normalise(transforms.resize(pixels, 224)[None], how.mean, how.std)
    probabilities, _ = forward(specialist, images)
    theirs = timm.create_model("resnet18", num_classes=2).eval()
    theirs.load_state_dict(resnet18)
    with torch.inference_mode():
        expected = theirs(images).softmax(-1).numpy()
    np.testing.assert_allclose(probabilities, expected, atol=2e-3)  # stored as float16
    assert specialist.manifest.recipe["seed"] == 9930641
    assert specialist.manifest.licence == "CC-BY-4.0"
    assert "not measured" in (added.folder / loader.CARD).read_text()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: {"state_dict": tensors},
        lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
    ],
)
def test_usual_wrappings_are_understood(tmp_path: Path, resnet18, take, wrap) -> None:
    assert take(save(tmp_path / NAME, wrap(resnet18))).manifest.backbone == "resnet18"


def test_the_name_says_the_backbone_and_the_seed() -> None:
    name = name_of(Path("octmnist_224_endToEnd_vit_base_patch16_224.dino_s115149041_best.pth"))

    assert name is not None
    assert (name.architecture, name.seed) == ("vit_base_patch16_224.dino", 115149041)
    assert name_of(Path("model.pth")) is None


def test_without_a_telling_name_the_backbone_must_be_given(tmp_path: Path, resnet18, take) -> None:
    file = save(tmp_path / "model.pth", resnet18)

    with pytest.raises(SpecialistRefused, match="does not name its backbone: --backbone"):
        take(file)
    assert take(file, backbone="resnet18").manifest.backbone == "resnet18"


def test_name_and_backbone_must_agree(tmp_path: Path, resnet18, take) -> None:
    with pytest.raises(SpecialistRefused, match="is a resnet18, not a 'vgg16'"):
        take(save(tmp_path / NAME, resnet18), backbone="vgg16")


def test_weights_of_another_architecture_are_refused(tmp_path: Path, resnet18, take) -> None:
    name = "layer1.0.conv1.weight"
    rest = {other: tensor for other, tensor in resnet18.items() if other != name}

    with pytest.raises(SpecialistRefused, match=f"no tensor '{name}'"):
        take(save(tmp_path / NAME, rest))


def test_another_number_of_labels_is_refused(tmp_path: Path, take) -> None:
    nine = timm.create_model("resnet18", num_classes=9).state_dict()

    with pytest.raises(SpecialistRefused, match="knows 9 labels, the task has 2"):
        take(save(tmp_path / NAME, nine))


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, resnet18, take) -> None:
    spoiled = {**resnet18, "fc.bias": torch.tensor([torch.nan, 0])}

    with pytest.raises(SpecialistRefused, match=r"'fc\.bias' holds numbers that are not finite"):
        take(save(tmp_path / NAME, spoiled))


class Hostile:
    """What runs a command when a plain loader opens it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("plain", [True, False])
def test_code_in_a_checkpoint_never_runs(tmp_path: Path, resnet18, take, plain: bool) -> None:
    mark, file = tmp_path / "it-ran", tmp_path / NAME
    hostile = {**resnet18, "fc.bias": Hostile(mark)}
    if plain:
        file.write_bytes(pickle.dumps(Hostile(mark)))
    else:
        save(file, hostile)

    with pytest.raises(SpecialistRefused, match="would run code: it was not opened"):
        take(file)
    assert not mark.exists()
    assert not list((tmp_path / "home").rglob("*.*"))
    pickle.loads(pickle.dumps(Hostile(mark)))  # noqa: S301 the trap itself works
    assert mark.exists()


@pytest.mark.parametrize("content", [{"weights": [1, 2]}, [torch.ones(2)], {}, {1: torch.ones(2)}])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, take, content: Any) -> None:
    with pytest.raises(SpecialistRefused, match="not a state dict"):
        take(save(tmp_path / NAME, content))


@pytest.mark.parametrize("keep", [0, 100, 100_000])
def test_a_half_written_checkpoint_is_refused(tmp_path: Path, resnet18, take, keep: int) -> None:
    file = save(tmp_path / NAME, resnet18)
    file.write_bytes(file.read_bytes()[:keep])

    with pytest.raises(SpecialistRefused, match="damaged, or not a PyTorch checkpoint"):
        take(file)


def test_a_checkpoint_that_inflates_meets_the_memory_limit(tmp_path: Path, take) -> None:
    """Three gigabytes of zeros, compressed to some megabytes."""
    small = save(tmp_path / "small.pth", {"fc.bias": torch.zeros(1)})
    bomb = tmp_path / NAME
    with (
        zipfile.ZipFile(small) as source,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target,
    ):
        for entry in source.infolist():
            with target.open(entry.filename, "w", force_zip64=True) as file:
                if not entry.filename.endswith("/data/0"):
                    file.write(source.read(entry))
                    continue
                for _ in range(48):
                    file.write(bytes(2**26))

    with pytest.raises(SpecialistRefused, match="is refused"):
        take(bomb)


def test_a_reader_that_hangs_is_ended(tmp_path: Path, resnet18, take) -> None:
    file = save(tmp_path / NAME, resnet18)

    with pytest.raises(SpecialistRefused, match="not read within 1 seconds"):
        take(file, command=("-c", "import time; time.sleep(60)"), timeout_seconds=1)


def test_what_the_reader_writes_is_not_trusted_either(tmp_path: Path, resnet18, take) -> None:
    script = "import sys; open(sys.argv[2], 'wb').write(b'no tensors at all')"

    with pytest.raises(SpecialistRefused, match="made its reader fail"):
        take(save(tmp_path / NAME, resnet18), command=("-c", script))


def test_the_reader_is_bounded() -> None:
    script = (
        "from specialists.exchange import unpickle\n"
        "unpickle.limit(2**28, 2**20, 60)\n"
        "bytearray(2**30)\n"
    )

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)

    assert b"MemoryError" in ended.stderr


def test_the_reader_tells_how_it_went_by_its_exit_code(tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"

    assert unpickle.write({"weight": torch.ones(2)}, target) == 0
    assert target.exists()
    assert unpickle.write("no tensors", target) == unpickle.NOT_TENSORS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "key"),
    [
        ("vgg16", "vgg16"),
        ("densenet121", "densenet121"),
        ("efficientnet_b4", "efficientnet-b4"),
        ("vit_base_patch16_224", "vit-b16"),
        ("vit_base_patch16_clip_224", "clip-vit-b16"),
        ("eva02_base_patch16_clip_224", "eva02-b16"),
        ("vit_base_patch16_224.dino", "dino-vit-b16"),
        ("samvit_base_patch16", "sam-vit-b16"),
    ],
)
def test_every_published_architecture_fits(
    tmp_path: Path, take, architecture: str, key: str
) -> None:
    size = {"img_size": 224} if key == "sam-vit-b16" else {}
    tensors = timm.create_model(architecture, num_classes=2, **size).state_dict()

    file = save(tmp_path / f"x_224_endToEnd_{architecture}_s1_best.pth", tensors)
    added = take(file)
    file.unlink()  # half a gigabyte

    assert added.manifest.backbone == key


@pytest.mark.slow
def test_torchvisions_alexnet_fits_too(tmp_path: Path, take) -> None:
    from torchvision.models import alexnet

    tensors = alexnet(num_classes=2).state_dict()

    added = take(save(tmp_path / "x_224_endToEnd_alexnet_s1_best.pth", tensors))

    assert added.manifest.backbone == "alexnet"
