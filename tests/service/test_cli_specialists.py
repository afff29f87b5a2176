"""Stories of the command line: where specialists looked, and specialists that come and go."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from builders import a_report_task, task_toml
from command_line import over
from PIL import Image

from service.demo import lesions, phantoms, tasks
from specialists.loader import MANIFEST, WEIGHTS

SHIPPED = Path(lesions.__file__).parent / "specialists" / "phantom-cxr"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home that knows phantom-cxr and has two of its specialists."""
    home = tmp_path / "home"
    (home / "tasks").mkdir(parents=True)
    (home / "tasks" / "phantom-cxr.toml").write_text(tasks.toml("phantom-cxr"))
    for key in ("resnet18", "vit-b16"):
        shutil.copytree(SHIPPED / key, home / "specialists" / "phantom-cxr" / key)
    return home


@pytest.fixture
def gsco(home: Path, capsys: pytest.CaptureFixture[str]):
    return over(home, capsys)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    phantoms.write_png(phantoms.draw("chest", ["pneumonia"], 5, tasks.SIZE), tmp_path / "case.png")
    return tmp_path / "case.png"


def test_one_specialist_shows_where_it_looked(gsco, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"

    outcome = gsco("explain", image, "--task", "phantom-cxr", "--specialist", "resnet18",
                   "--label", "pneumonia", "--out", out, "--json")  # fmt: skip

    (row,) = json.loads(outcome.out)
    heat = np.load(out / "resnet18.npy", allow_pickle=False)
    assert (row["specialist"], row["label"]) == ("resnet18", "pneumonia")
    assert (heat.shape, heat.dtype) == ((128, 128), np.float32)
    assert 0.5 < heat.max() <= 1
    with Image.open(out / "resnet18.png") as picture:
        assert picture.size == (128, 128)


def test_all_that_can_answer_are_shown_and_the_others_named(
    gsco, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps"

    outcome = gsco("explain", image, "--task", "phantom-cxr", "--out", out, "--json")

    rows = json.loads(outcome.out)
    assert len(rows) == 10
    assert [row["specialist"] for row in rows if row["map"]] == ["resnet18", "vit-b16"]
    assert "no specialist 'vgg16'" in rows[0]["missing"]
    assert len(list(out.iterdir())) == 4


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--specialist", "vgg99"], 2, "no specialist 'vgg99' on the panel"),
        (["--specialist", "vgg16"], 1, "specialist 'vgg16' cannot answer"),
        (["--specialist", "resnet18", "--label", "gout"], 2, "no label 'gout'"),
    ],
)
def test_what_cannot_be_explained_is_one_sentence(
    gsco, image: Path, tmp_path: Path, options: list[str], code: int, sentence: str
) -> None:
    outcome = gsco("explain", image, "--task", "phantom-cxr", "--out", tmp_path / "m", *options)

    assert outcome.code == code
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_a_report_task_is_explained_by_the_one_it_consults(
    gsco, home: Path, image: Path, tmp_path: Path
) -> None:
    (home / "tasks" / "report.toml").write_text(task_toml(a_report_task()))

    outcome = gsco("explain", image, "--task", "cxr-report", "--out", tmp_path / "m")

    assert outcome.code == 2
    assert "use --task cxr-findings" in outcome.err


def test_a_specialist_is_exported_removed_and_added_again(gsco, home: Path, tmp_path: Path) -> None:
    names = ("--task", "phantom-cxr", "--backbone", "resnet18")
    folder, parcel = home / "specialists" / "phantom-cxr" / "resnet18", tmp_path / "mine.tar"
    weights = (folder / WEIGHTS).read_bytes()

    exported = gsco("specialists", "export", *names, "--out", parcel, "--json")
    gsco("specialists", "remove", *names)
    gone = not folder.exists()
    added = gsco("specialists", "add", parcel, "--json")

    assert gone
    assert json.loads(exported.out)["left behind"] == "licence (shortened)"
    assert "normal, pneumonia, effusion, nodule. See that they name nobody." in exported.err
    assert json.loads(added.out)["replaced"] is False
    assert (folder / WEIGHTS).read_bytes() == weights
    assert json.loads((folder / MANIFEST).read_text())["licence"] == "CC0-1.0"


def test_who_is_there_is_replaced_only_when_told_so(gsco) -> None:
    refused = gsco("specialists", "add", SHIPPED / "resnet18")
    replaced = gsco("specialists", "add", SHIPPED / "resnet18", "--replace", "--json")

    assert refused.code == 2
    assert "--replace to replace it" in refused.err
    assert json.loads(replaced.out)["replaced"] is True


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["add", "nowhere"], "there is nothing at nowhere"),
        (["export", "--task", "phantom-cxr", "--backbone", "vgg16", "--out", "x"],
         "there is no specialist 'vgg16' of task 'phantom-cxr'"),
        (["remove", "--task", "phantom-cxr", "--backbone", "vgg16"], "there is no specialist"),
        (["remove", "--task", "../tasks", "--backbone", "vgg16"], "unknown task '../tasks'"),
        (["remove", "--task", "phantom-cxr", "--backbone", ".."], "unknown backbone '..'"),
        (["import-gsco", "nowhere.pth", "--task", "phantom-cxr", "--backbone", "resnet18"],
         "there is nothing at nowhere.pth"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_sentence(gsco, arguments: list[str], sentence: str) -> None:
    outcome = gsco("specialists", *arguments)

    assert outcome.code == 2
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_full_disk_is_one_sentence_and_loses_nothing(
    gsco, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    outcome = gsco("specialists", "add", SHIPPED / "resnet18", "--replace")

    assert outcome.code == 1
    assert "No space left on device" in outcome.err
    assert (home / "specialists" / "phantom-cxr" / "resnet18" / WEIGHTS).exists()


# -- segmentation --


@pytest.fixture
def masks(home: Path, tmp_path: Path) -> Path:
    """Phantoms with masks, and a task that has them outlined by two models."""
    phantoms.write_masks("chest", tmp_path / "masks", 8, 4, 4, size=32)
    task = home / "tasks" / "phantom-cxr.toml"
    task.write_text(task.read_text().replace('["unet"]', '["unet", "fpn"]'))
    return tmp_path / "masks"


def test_segmentation_specialists_are_trained_measured_listed_and_removed(
    gsco, masks: Path
) -> None:
    on = ("--task", "phantom-cxr", "--data", masks, "--json")
    verb = ("specialists", "segmentation")

    (trained,) = json.loads(gsco(*verb, "finetune", *on, "--backbones", "unet", "--epochs", 1).out)
    outcome = gsco(*verb, "evaluate", *on)

    (row,) = json.loads(outcome.out)
    assert trained["backbone"] == row["system"] == "unet"
    assert 0 <= row["dice"] <= 1
    assert row["images"] == 4
    assert "fpn" in outcome.err  # expected by the task, and missing
    listed = json.loads(gsco("specialists", "list", "--json").out)
    assert {one["backbone"]: one["dice"] for one in listed}["unet"] == trained["dice"]
    assert gsco("specialists", "remove", "--task", "phantom-cxr", "--backbone", "unet").code == 0
    assert gsco(*verb, "evaluate", *on).code == 1


def test_an_unknown_model_is_refused_with_those_there_are(gsco, masks: Path) -> None:
    outcome = gsco("specialists", "segmentation", "finetune", "--task", "phantom-cxr", "--data",
                   masks, "--backbones", "vgg16")  # fmt: skip
    assert outcome.code == 2
    assert "unknown segmentation model 'vgg16'; known: unet, fpn" in outcome.err


def test_a_task_that_names_no_segment_has_nothing_to_outline(gsco, home: Path, masks: Path) -> None:
    (home / "tasks" / "phantom-fundus.toml").write_text(tasks.toml("phantom-fundus"))
    outcome = gsco("specialists", "segmentation", "finetune", "--task", "phantom-fundus",
                   "--data", masks, "--backbones", "unet")  # fmt: skip
    assert outcome.code == 2
    assert "names no segment" in outcome.err
