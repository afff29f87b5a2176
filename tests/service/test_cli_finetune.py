"""Stories of the command line: specialists trained on one's own data, in one's own way."""

import json
import os
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from command_line import Gsco, Outcome, over
from PIL import Image

from service.demo import phantoms, tasks
from service.demo.export import write_dicom
from service.demo.home import trunks
from specialists.loader import MANIFEST, WEIGHTS

LIGHT = """
name = "light"
kind = "single-label"
modality = "photograph"
panel = ["resnet18"]
labels = ["dark", "bright"]
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with two tasks and no specialist."""
    (tmp_path / "home" / "tasks").mkdir(parents=True)
    (tmp_path / "home" / "tasks" / "light.toml").write_text(LIGHT)
    (tmp_path / "home" / "tasks" / "chest.toml").write_text(
        tasks.toml("phantom-cxr").replace("phantom-cxr", "chest")
    )
    return tmp_path / "home"


@pytest.fixture
def gsco(home: Path, capsys: pytest.CaptureFixture[str]) -> Gsco:
    return over(home, capsys)


@pytest.fixture
def lights(tmp_path: Path) -> Path:
    """A MedMNIST file of dark and bright images."""
    noise = np.random.default_rng(0)
    arrays = {}
    for split, count in {"train": 24, "val": 8, "test": 8}.items():
        labels = np.arange(count) % 2
        images = noise.normal(60 + 130 * labels[:, None, None], 20, (count, 16, 16))
        arrays[f"{split}_images"] = images.clip(0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    np.savez(tmp_path / "lights.npz", **arrays)
    return tmp_path / "lights.npz"


@pytest.fixture
def train(gsco: Gsco, lights: Path) -> Gsco:
    """One short training of ResNet-18 alone."""

    def train(*options: object, data: Path = lights, task: str = "light") -> Outcome:
        given = ("--task", task, "--data", data, "--backbones", "resnet18", "--json")
        return gsco("specialists", "finetune", *given, *options)

    return train


def test_several_seeds_are_told_with_mean_and_spread(train: Gsco) -> None:
    (row,) = json.loads(train("--epochs", 1, "--seeds", 2).out)

    assert row["backbone"] == "resnet18"
    assert row["loss"] <= row["loss_mean"]
    assert row["loss_sd"] >= 0


def test_a_linear_probe_stands_beside_the_nearest(
    train: Gsco, gsco: Gsco, home: Path, lights: Path, tmp_path: Path
) -> None:
    train("--epochs", 1)
    weights = tmp_path / "mine.safetensors"
    (home / "specialists" / "light" / "resnet18" / WEIGHTS).rename(weights)

    probed = train("--procedure", "linear-probe", "--weights", weights)
    both = ("--task", "light", "--data", lights, "--json")
    own = gsco("specialists", "evaluate", *both, "--probes", "own")
    begun = gsco("specialists", "evaluate", *both, "--probes", "pretrained", "--weights", weights)

    assert probed.code == 0
    systems = ["resnet18", "resnet18, linear probe", "resnet18, 11 nearest"]
    assert [row["system"] for row in json.loads(own.out)][:3] == systems
    assert json.loads(begun.out) == json.loads(own.out)


def test_nano_specialists_begin_from_the_shipped_ones(train: Gsco, home: Path) -> None:
    manifest = home / "specialists" / "light" / "resnet18" / MANIFEST
    short, probe = ("--epochs", 1), ("--procedure", "linear-probe")
    begun = []
    for options in (short, (*short, "--from-scratch"), probe):
        assert train(*options).code == 0
        begun.append(json.loads(manifest.read_text())["recipe"].get("begun_from"))

    assert begun == ["phantom-cxr/resnet18", None, "phantom-cxr/resnet18"]


def test_what_began_from_a_shipped_one_can_be_handed_on(
    train: Gsco, gsco: Gsco, home: Path, tmp_path: Path
) -> None:
    train("--epochs", 1)
    folder = tmp_path / "theirs"
    (home / "specialists" / "light" / "resnet18").rename(folder)

    assert gsco("specialists", "add", folder).code == 0


def test_the_shipped_weights_stand_beside_those_only_that_began_from_them(
    train: Gsco, gsco: Gsco, lights: Path
) -> None:
    asked = ("--task", "light", "--data", lights, "--json", "--probes", "pretrained")
    train("--epochs", 1, "--from-scratch")
    refused = gsco("specialists", "evaluate", *asked)
    train("--epochs", 1)
    told = gsco("specialists", "evaluate", *asked)

    assert refused.code == 2
    assert "resnet18 did not begin from the shipped weights" in refused.err
    assert "resnet18, linear probe" in [row["system"] for row in json.loads(told.out)]


def test_the_shipped_task_itself_begins_from_random_numbers() -> None:
    assert trunks("phantom-cxr") == {}
    assert "resnet18" in trunks("light")


def test_a_nano_backbone_that_is_not_shipped_begins_from_random_numbers(
    train: Gsco, home: Path
) -> None:
    train("--epochs", 1, "--backbones", "convnext-tiny")

    manifest = home / "specialists" / "light" / "convnext-tiny" / MANIFEST
    assert "begun_from" not in json.loads(manifest.read_text())["recipe"]


def test_the_recipe_is_changed_by_options(train: Gsco, home: Path) -> None:
    train("--epochs", 1, "--unbalanced", "--augment", 0, "--flip", "--precision", "bfloat16")

    folder = home / "specialists" / "light" / "resnet18"
    recipe = json.loads((folder / MANIFEST).read_text())["recipe"]
    assert (recipe["balanced"], recipe["precision"]) == (False, "bfloat16")
    assert recipe["augmentation"] == {
        "flip": True, "shift": 0, "rotation": 0, "zoom": 0, "contrast": 0, "brightness": 0,
    }  # fmt: skip


def test_a_csv_of_any_name_is_learnt_from(train: Gsco, tmp_path: Path) -> None:
    rows = ["split,image,label,group"]
    for number in range(12):
        label, level = (("dark", 60), ("bright", 190))[number % 2]
        Image.new("L", (20, 20), level + number).save(tmp_path / f"{number}.png")
        rows.append(f"train,{number}.png,{label},patient-{number}")
    (tmp_path / "mine.csv").write_text("\n".join(rows))

    outcome = train("--epochs", 1, data=tmp_path / "mine.csv")

    assert (outcome.code, json.loads(outcome.out)[0]["images"]) == (0, 1)


@pytest.mark.parametrize("indexed", [True, False])
def test_dicom_files_are_learnt_from(train: Gsco, tmp_path: Path, indexed: bool) -> None:
    folder, rows = tmp_path / "dicom", ["split,image,label"]
    for number in range(12):
        label = phantoms.CHEST_LABELS[number % 4]
        image = f"train/{label}/{number}.dcm"
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        write_dicom(phantoms.draw("chest", [label], number), folder / image)
        rows.append(f"train,{image},{label}")
    (folder / "train" / "normal" / "0.dcm").write_bytes(b"not an image")
    if indexed:
        os.rename(folder / "train" / "nodule" / "11.dcm", folder / "a")
        rows[-1] = "val,a,nodule"
        (folder / "index.csv").write_text("\n".join(["split,image,label", *rows[2:], rows[1]]))

    outcome = train("--epochs", 1, data=folder, task="chest")

    assert outcome.code == 0
    assert "1 of 12 images of dicom cannot be read and are left out" in outcome.err
    assert json.loads(outcome.out)[0]["images"] == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--procedure", "linear-probe", "--epochs", 3], "has no use for epochs"),
        (["--procedure", "linear-probe", "--from-scratch"], "needs a trunk that has learnt"),
        (["--backbones", "convnext-tiny", "--pretrained"], "no pretrained weights of a nano"),
        (["--scale", "full"], "hf download timm/resnet18.a1_in1k model.safetensors"),
        (["--weights", "mine.pth"], "is not a .safetensors file"),
    ],
)
def test_wrong_wishes_are_one_sentence(
    train: Gsco, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    options: list[object], sentence: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    outcome = train(*options)

    assert outcome.code == 2
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_label_that_nobody_could_learn_is_one_sentence(
    train: Gsco, home: Path, lights: Path
) -> None:
    task = home / "tasks" / "light.toml"
    task.write_text(task.read_text().replace('"bright"]', '"bright", "never"]'))

    outcome = train("--epochs", 1)

    assert outcome.code == 2
    assert "no training image of lights.npz has the label 'never'" in outcome.err


def test_a_training_that_diverges_is_one_sentence(train: Gsco, home: Path) -> None:
    outcome = train("--epochs", 3, "--learning-rate", 1e30)

    assert outcome.code == 1
    assert "training of 'resnet18' diverged in epoch" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (home / "specialists" / "light" / "resnet18").exists()
