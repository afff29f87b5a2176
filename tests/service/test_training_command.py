"""`gsco generalist train`: what it refuses, and that it survives being killed."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import a_multi_label_task, a_question_task, a_task, png_bytes, task_toml
from safetensors.torch import load_file

from service.cli.main import main
from service.errors import Misconfigured
from service.generalist import checkpoint
from service.generalist.training import gather, plan, recipe
from service.generalist.training.train import Sources
from service.settings import NANO_GENERALIST
from specialists.task import Label, Task

TASK = "cxr-pneumonia"
Gsco = Callable[..., tuple[int, str]]

# One layer everywhere, steps enough to keep and to judge between others.
MINIATURE = {
    "image_size = 64": "image_size = 32",
    "vision_width = 192": "vision_width = 64",
    "vision_layers = 6": "vision_layers = 1",
    "vision_heads = 3": "vision_heads = 1",
    "language_width = 256": "language_width = 64",
    "language_layers = 4": "language_layers = 1",
    "language_heads = 4": "language_heads = 1",
    "vocabulary = 4096": "vocabulary = 1024",
    "cases_at_least = 1600": "cases_at_least = 8\nstand_in_steps = 2\nstand_in_epochs = 2",
    "cases_to_judge = 120": "cases_to_judge = 6",
    "steps = 10000\nbatch = 64": "steps = 104\nbatch = 4",
    "steps = 1300\nbatch = 32": "steps = 104\nbatch = 2",
    "steps = 700\nbatch = 32": "steps = 104\nbatch = 2",
}


@pytest.fixture
def gsco(home: Path, capsys: pytest.CaptureFixture[str]) -> Gsco:
    def run(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main(["--home", str(home), "generalist", *map(str, arguments)])
        return int(end.value.code or 0), capsys.readouterr().err

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Dark and bright images of twenty-four patients."""
    path, arrays = tmp_path / "shades.npz", {}
    for split, count in {"train": 24, "val": 8, "test": 4}.items():
        truth = np.arange(count) % 2
        noise = np.random.default_rng(count).normal(0, 20, (count, 16, 16))
        shades = np.take((60, 190), truth)[:, None, None]
        arrays[f"{split}_images"] = (shades + noise).clip(0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = truth[:, None].astype(np.uint8)
    np.savez(path, **arrays)
    return path


@pytest.fixture
def miniature(tmp_path: Path) -> Path:
    """The recipe of MedDr-nano, as small as it goes."""
    text = (Path(recipe.__file__).parent / "nano.toml").read_text("utf-8")
    for whole, part in MINIATURE.items():
        assert whole in text
        text = text.replace(whole, part)
    (tmp_path / "miniature.toml").write_text(text, "utf-8")
    return tmp_path / "miniature.toml"


# -- bad input is one sentence and exit code 2, before anything is computed --


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--no-phantoms",), "nothing to train on"),
        (("--data", TASK), "--data is TASK=PATH, not 'cxr-pneumonia'"),
        (("--data", f"{TASK}=nowhere.npz"), "there is no 'nowhere.npz'"),
        (("--data", "gout=x.npz"), "gout"),
        (("--questions", f"{TASK}=nowhere"), "there is no 'nowhere'"),
        (("--no-phantoms", "--instructions", f"{TASK}=DATA"), f"needs --data {TASK}=PATH"),
        (("--data", f"{TASK}=DATA", "--data", f"{TASK}=DATA"), f"task '{TASK}' is given twice"),
        (("--recipe", "nowhere.toml"), "no recipe at 'nowhere.toml'"),
        (("--recipe", "DATA"), "is no recipe"),
        (("--out", "DATA"), "--out is a folder"),
        (("--work", "DATA"), "--work is a folder"),
        (("--data", f"{TASK}=DATA", "--base", "nowhere"), "no checkpoint at 'nowhere'"),
        (("--base", "DATA"), "no checkpoint at"),
        (("--base", str(NANO_GENERALIST), "--out", str(NANO_GENERALIST)), "not --base"),
        (("--lora", "4"), "give --data TASK=PATH once"),
        (("--lora", "4", "--data", f"{TASK}=DATA", "--base", "nowhere"), "no checkpoint at"),
        (("--lora", "4", "--recipe", "DATA"), "--recipe is for training anew"),
        (("--lora", "0"), "greater than or equal to 1"),
    ],
)
def test_wrong_use_is_one_sentence(
    gsco: Gsco, data: Path, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    given = [one.replace("DATA", str(data)) for one in arguments]
    places = {"--out": tmp_path / "out", "--work": tmp_path / "work"}
    named = [part for pair in places.items() if pair[0] not in given for part in pair]

    code, said = gsco("train", *named, *given)

    assert code == 2
    assert sentence in " ".join(said.split())
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_lacks_a_field_names_it(gsco: Gsco, tmp_path: Path) -> None:
    (tmp_path / "half.toml").write_text("seed = 1\n[model]\nimage_size = 32\n", "utf-8")

    code, said = gsco("train", "--out", tmp_path / "out", "--recipe", tmp_path / "half.toml")

    assert code == 2
    assert "half.toml" in said
    assert "vision_width" in said or "patch_size" in said


def test_too_many_labels_that_may_hold_together_are_refused(
    gsco: Gsco, home: Path, data: Path, tmp_path: Path
) -> None:
    labels = tuple(Label(f"finding {number}") for number in range(14))
    many = a_multi_label_task(labels=labels, nothing_found=None, thresholds=())
    (home / "tasks" / f"{many.name}.toml").write_text(task_toml(many), "utf-8")

    code, said = gsco("train", "--no-phantoms", "--out", tmp_path / "out",
                      "--work", tmp_path / "work", "--data", f"{many.name}={data}")  # fmt: skip

    assert code == 2
    assert "has 14 labels that may hold together" in said


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 1 of"),
        ('{"question": "Is it?"}', "has no 'answer'"),
        ('{"image_name": "1.png", "image_split": "test", "question": "?", "answer": "no"}',
         "no question of the split 'train'"),
        ('{"image_name": "1.png", "image_split": "train", "question": "?", "answer": "no"}',
         "1.png cannot be read"),
    ],
)  # fmt: skip
def test_questions_that_cannot_be_read_are_refused_in_a_sentence(
    gsco: Gsco, home: Path, data: Path, tmp_path: Path, line: str, sentence: str
) -> None:
    task, folder = a_question_task(), tmp_path / "questions"
    (home / "tasks" / f"{task.name}.toml").write_text(task_toml(task), "utf-8")
    folder.mkdir()
    (folder / "qa.jsonl").write_text(line, "utf-8")

    code, said = gsco("train", "--no-phantoms", "--out", tmp_path / "out",
                      "--work", tmp_path / "work", "--data", f"{TASK}={data}",
                      "--questions", f"{task.name}={folder}")  # fmt: skip

    assert code == 2
    assert sentence in " ".join(said.split())


def test_a_work_folder_of_another_training_is_not_gone_on_from(
    gsco: Gsco, data: Path, miniature: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "plan.json").write_text(json.dumps({"data": {}, "recipe": {}}), "utf-8")

    code, said = gsco("train", "--no-phantoms", "--out", tmp_path / "out", "--work", work,
                      "--data", f"{TASK}={data}", "--recipe", miniature)  # fmt: skip

    assert code == 2
    assert "belongs to a training with another choice of data" in " ".join(said.split())


# -- killed at any moment, the same command goes on --


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_killed_training_ends_with_the_same_weights(
    home: Path, data: Path, miniature: Path, tmp_path: Path
) -> None:
    task, folder = a_question_task(), tmp_path / "questions"
    (home / "tasks" / f"{task.name}.toml").write_text(task_toml(task), "utf-8")
    panel = a_task(panel=("alexnet", "resnet18"))
    (home / "tasks" / f"{TASK}.toml").write_text(task_toml(panel), "utf-8")
    some_questions(folder)
    arguments = ["--no-phantoms", "--data", f"{TASK}={data}", "--recipe", str(miniature),
                 "--questions", f"{task.name}={folder}"]  # fmt: skip

    whole = Training(home, tmp_path / "whole", arguments)
    whole.run()
    parts = Training(home, tmp_path / "parts", arguments)
    for begun in ("vision.safetensors", "arbitration.safetensors", "polish.safetensors"):
        parts.killed_when(begun)
    parts.run()

    assert parts.weights() == whole.weights()
    assert parts.judgements() == whole.judgements()


# -- panels have changed: a trained generalist learns anew whom to trust --


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (a_task(panel=("resnet18",)), "choice of specialists"),
        (a_task(panel=("alexnet",)), "--base"),
    ],
)
def test_a_work_folder_of_another_panel_or_base_is_not_gone_on_from(
    home: Path, data: Path, tmp_path: Path, task: Task, words: str
) -> None:
    before = sources_of(a_task(panel=("alexnet",)), data)
    base = checkpoint.load(NANO_GENERALIST)
    plan.claim(tmp_path / "work", before, recipe.nano(), base)
    plan.claim(tmp_path / "work", before, recipe.nano(), base)

    with pytest.raises(Misconfigured, match=f"another {words}"):
        plan.claim(tmp_path / "work", sources_of(task, data), recipe.nano())


def sources_of(task: Task, data: Path) -> Sources:
    """What there is to learn from of one task."""
    one = gather.hospital(task, data, recipe.nano())
    return Sources((one,), (), (), (), NANO_GENERALIST)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_trained_generalist_takes_the_last_stage_again(
    home: Path, data: Path, miniature: Path, tmp_path: Path
) -> None:
    panel = a_task(panel=("alexnet", "convnext-tiny"))
    (home / "tasks" / f"{TASK}.toml").write_text(task_toml(panel), "utf-8")
    arguments = ["--no-phantoms", "--data", f"{TASK}={data}", "--recipe", str(miniature)]
    first = Training(home, tmp_path / "first", arguments)
    first.run()

    again = Training(home, tmp_path / "again", [*arguments, "--base", str(first.out)])
    again.run()

    entered = [(one["step"], one["share"]) for one in again.judgements()]
    assert entered == [(0, 1), (104, 1), (104, 0.25), (104, 0.5), (104, 0.75)]
    assert not list(again.work.glob("vision*"))
    assert begun_from(again.work / "panels" / TASK) == ["phantom-cxr/alexnet", None]
    assert seeing(again.out) == seeing(first.out)


def test_a_checkpoint_that_sees_other_images_is_refused(
    gsco: Gsco, data: Path, miniature: Path, tmp_path: Path
) -> None:
    code, said = gsco("train", "--no-phantoms", "--out", tmp_path / "out", "--work",
                      tmp_path / "work", "--data", f"{TASK}={data}", "--recipe", miniature,
                      "--base", NANO_GENERALIST)  # fmt: skip

    assert code == 2
    assert "sees 64 pixels, the recipe 32" in " ".join(said.split())
    assert not (tmp_path / "work").exists()


def test_a_checkpoint_with_a_damaged_tokenizer_is_refused(gsco: Gsco, tmp_path: Path) -> None:
    base = shutil.copytree(NANO_GENERALIST, tmp_path / "base")
    (base / "tokenizer.json").write_text("{}", "utf-8")

    code, said = gsco("train", "--out", tmp_path / "out", "--work", tmp_path / "work",
                      "--base", base)  # fmt: skip

    assert code == 1
    assert "tokenizer.json' is damaged" in " ".join(said.split())


def begun_from(panel: Path) -> list[str | None]:
    """By backbone, what a stand-in began from."""
    manifests = (json.loads(file.read_text()) for file in sorted(panel.glob("*/manifest.json")))
    return [one["recipe"].get("begun_from") for one in manifests]


def seeing(folder: Path) -> dict[str, bytes]:
    """The vision tower's weights."""
    kept = load_file(folder / "model.safetensors")
    return {n: v.float().numpy().tobytes() for n, v in kept.items() if n.startswith("vision_model")}


class Training:
    """The command in a process of its own, with its own folders."""

    def __init__(self, home: Path, folder: Path, arguments: list[str]) -> None:
        self.work, self.out = folder / "work", folder / "out"
        places = ["--out", str(self.out), "--work", str(self.work)]
        code = "from service.cli.main import main; main()"
        self._command = [sys.executable, "-c", code, "--home", str(home), "generalist", "train",
                         *places, *arguments]  # fmt: skip

    def run(self) -> None:
        subprocess.run(self._command, env=alone(), check=True, capture_output=True, timeout=120)

    def killed_when(self, pattern: str) -> None:
        """Killed as soon as a file of that name is there: the stage has been kept for once."""
        process = subprocess.Popen(
            self._command, env=alone(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while not any(self.work.glob(pattern)) and time.monotonic() < deadline:
            assert process.poll() is None, f"it ended before there was '{pattern}'"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        assert not self.out.exists()

    def weights(self) -> str:
        return hashlib.sha256((self.out / "model.safetensors").read_bytes()).hexdigest()

    def judgements(self) -> list[dict[str, object]]:
        told: list[dict[str, object]] = json.loads((self.work / "judgements.json").read_text())
        return told


def alone() -> dict[str, str]:
    """One thread: sums are then always added up in the same order."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def some_questions(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(4):
        name = f"{number}.png"
        (folder / "images" / name).write_bytes(png_bytes())
        entry = {"image_name": name, "image_split": "train", "image_organ": "chest"}
        lines.append(json.dumps({**entry, "question": "Is it?", "answer": "Yes"}))
    (folder / "qa.jsonl").write_text("\n".join(lines), "utf-8")
