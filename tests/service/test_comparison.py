"""`gsco compare`: the better teacher on few patients, in one command; killed, it goes on."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import task_toml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from service.cli.main import main
from service.errors import Misconfigured
from service.evaluation import comparison, comparison_figures, comparison_table
from service.evaluation.comparison import Advance, Comparison, Wish
from service.evaluation.comparison_folder import Plan, Run
from service.evaluation.few import few, groups_of, stands_alone
from specialists import catalogue
from specialists.architectures import build
from specialists.catalogue import Scale
from specialists.task import Task, from_mapping
from specialists.training import dataset
from specialists.training.dataset import Dataset
from specialists.training.split import ArrayImages, Split

TWO = ("alexnet", "resnet18")
LEVELS = (60, 190)  # grey of a dark and of a bright image


def a_light_task(**fields: object) -> Task:
    light = {"name": "light", "kind": "single-label", "modality": "photograph"}
    return from_mapping({**light, "labels": ["dark", "bright"], **fields})


def lights(folder: Path, noise: int = 0, **counts: int) -> Path:
    """A MedMNIST file of dark and bright images, two of each patient, with its index."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(noise)
    arrays, rows = {}, []
    for split, count in {"train": 48, "val": 8, "test": 16, **counts}.items():
        labels = np.arange(count) // 2 % 2
        images = rng.normal(np.take(LEVELS, labels)[:, None, None], 20, (count, 16, 16))
        arrays[f"{split}_images"] = images.clip(0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
        rows += [(split, row, f"{split}-{row // 2}") for row in range(count)]
    np.savez(folder / "lights.npz", **arrays)
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("split", "row", "group"), *rows])
    return folder / "lights.npz"


@pytest.fixture
def task() -> Task:
    return a_light_task()


@pytest.fixture
def data(tmp_path: Path, task: Task) -> Dataset:
    return dataset.read(lights(tmp_path / "data"), task)


def compare(task: Task, data: Dataset, out: Path, *keys: str, **options: Any) -> Comparison:
    wish = Wish(
        keys or TWO, **{"seeds": 2, "fraction": 0.5, "epochs": 1, **options.pop("wish", {})}
    )
    return comparison.compare(
        task, data, wish, comparison.plan_of(task, data, wish), out, **options
    )


class Watcher:
    """Remembers who was trained; stands for a kill after so many epochs."""

    def __init__(self, killed_after: int | None = None) -> None:
        self.seen: list[tuple[str, int]] = []
        self.last: Advance | None = None
        self._left = killed_after

    def __call__(self, advance: Advance) -> None:
        self.seen.append((advance.epoch.backbone, advance.seed))
        self.last = advance
        if len(self.seen) == self._left:
            raise Killed


class Killed(Exception):
    """Stands for whatever may end a comparison."""


# -- the whole --


def test_two_backbones_are_ranked_on_the_same_cases(
    task: Task, data: Dataset, tmp_path: Path
) -> None:
    found = compare(task, data, tmp_path / "out")

    rows = comparison_figures.standings(task, found)
    text = comparison_table.markdown(task, found, rows)
    document = json.loads(json.dumps(comparison_table.as_json(task, found, rows)))

    assert {row.backbone for row in rows} == set(TWO)
    assert rows[0].figures["macro_f1"].mean >= rows[1].figures["macro_f1"].mean
    assert (rows[0].less_best, set(rows[1].less_best)) == ({}, {"accuracy", "macro_f1", "auc"})
    assert "training images 24, patients 12 (fraction 0.5), epochs 1, seeds 2" in text
    assert "Measured on test: images 16, patients 8." in text
    assert document["best"] == rows[0].backbone
    assert len(document["backbones"][0]["figures"]["auc"]["seeds"]) == 2
    assert all(run.training_seconds > 0 < run.milliseconds_per_image for run in found.runs)


def test_every_backbone_sees_the_same_patients_and_every_seed_others(
    task: Task, data: Dataset
) -> None:
    one, again, other = (few(task, data.split("train"), 0.5, seed) for seed in (0, 0, 1))

    assert one.ids == again.ids
    assert one.ids != other.ids


def test_what_is_finished_is_not_trained_again(task: Task, data: Dataset, tmp_path: Path) -> None:
    first, again = Watcher(), Watcher()

    one = compare(task, data, tmp_path / "out", on_advance=first)
    other = compare(task, data, tmp_path / "out", on_advance=again)

    assert len(first.seen) == 4
    assert (first.last.done, first.last.of) == (4, 4)
    assert again.seen == []
    assert one.runs == other.runs


@pytest.mark.parametrize("epochs_before", [1, 3, 5, 7])
def test_a_killed_comparison_ends_as_if_it_had_not_been(
    task: Task, data: Dataset, tmp_path: Path, epochs_before: int
) -> None:
    wish, rest = {"epochs": 2}, Watcher()
    whole = compare(task, data, tmp_path / "whole", wish=wish)

    with pytest.raises(Killed):
        compare(task, data, tmp_path / "parts", wish=wish, on_advance=Watcher(epochs_before))
    parts = compare(task, data, tmp_path / "parts", wish=wish, on_advance=rest)

    assert len(rest.seen) == 8 - epochs_before
    assert [run.probabilities for run in parts.runs] == [run.probabilities for run in whole.runs]
    assert not (tmp_path / "parts" / "work").exists()


def test_more_backbones_and_seeds_join_a_finished_comparison(
    task: Task, data: Dataset, tmp_path: Path
) -> None:
    watcher = Watcher()
    compare(task, data, tmp_path / "out", "alexnet", wish={"seeds": 1})

    compare(task, data, tmp_path / "out", *TWO, wish={"seeds": 2}, on_advance=watcher)

    assert sorted(watcher.seen) == [("alexnet", 1), ("resnet18", 0), ("resnet18", 1)]


def test_a_damaged_run_is_trained_again(task: Task, data: Dataset, tmp_path: Path) -> None:
    watcher = Watcher()
    compare(task, data, tmp_path / "out")
    run = tmp_path / "out" / "runs" / "alexnet-1.json"
    run.write_text(run.read_text()[:-20])

    compare(task, data, tmp_path / "out", on_advance=watcher)

    assert watcher.seen == [("alexnet", 1)]


# -- a folder of something else --


def test_a_folder_of_another_recipe_task_or_data_is_refused(
    task: Task, data: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    compare(task, data, out, "alexnet", wish={"seeds": 1})
    named = a_light_task(name="lamp")
    noisy = dataset.read(lights(tmp_path / "noisy", noise=1), task)

    for one, its, wish, sentence in [
        (task, data, {"epochs": 2}, "its epochs is 1, not 2"),
        (task, data, {"fraction": 0.75}, "its fraction is 0.5, not 0.75"),
        (task, data, {"split": "val"}, "its split is 'test', not 'val'"),
        (named, replace(data, task=named), {}, "its task is 'light', not 'lamp'"),
        (task, noisy, {}, "its data fingerprint differs"),
    ]:
        with pytest.raises(Misconfigured, match=f"holds another comparison: {sentence}"):
            compare(one, its, out, "alexnet", wish={"seeds": 1, **wish})


def test_a_folder_with_other_things_in_it_is_left_alone(
    task: Task, data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(Misconfigured, match="is no comparison: it holds 'data'"):
        compare(task, data, tmp_path)


def test_a_run_that_began_from_other_weights_is_not_taken_for_this_one(
    task: Task, data: Dataset, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(build(catalogue.find("alexnet").at(Scale.NANO), 5).backbone.state_dict(), weights)
    compare(task, data, tmp_path / "out", "alexnet", wish={"seeds": 1})

    with pytest.raises(Misconfigured, match="holds a 'alexnet' that began from other weights"):
        compare(
            task, data, tmp_path / "out", "alexnet", wish={"seeds": 1}, weights={"alexnet": weights}
        )


def test_the_table_tells_which_file_a_backbone_began_from(
    task: Task, data: Dataset, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(build(catalogue.find("alexnet").at(Scale.NANO), 5).backbone.state_dict(), weights)

    found = compare(task, data, tmp_path / "out", wish={"seeds": 1}, weights={"alexnet": weights})

    text = comparison_table.markdown(task, found, comparison_figures.standings(task, found))
    assert "| alexnet | weights.safetensors |" in text
    assert "| resnet18 | random numbers |" in text


# -- few patients --


def a_split(targets: np.ndarray, groups: list[str]) -> Split:
    ids = tuple(map(str, range(len(targets))))
    return Split(ArrayImages(np.zeros((len(ids), 2, 2), np.uint8)), targets, tuple(groups), ids)


@given(seed=st.integers(0, 50), share=st.sampled_from([0.1, 0.3, 0.6]))
def test_patients_stay_whole_and_no_label_is_lost(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    targets = np.where(rng.random(120) < 0.05, 1, 0)
    targets[:2] = 0, 1
    groups = [f"p{number}" for number in rng.integers(0, 50, 120)]
    split = a_split(targets, groups)

    found = few(a_light_task(), split, share, seed)

    kept = set(found.groups)
    assert set(found.targets.tolist()) == {0, 1}
    assert len(found) == sum(group in kept for group in groups)
    assert len(kept) < len(set(groups))


@given(seed=st.integers(0, 30))
def test_a_label_that_is_nobodys_rarest_is_not_lost(seed: int) -> None:
    task = a_light_task(kind="multi-label", labels=["common", "often", "rare"])
    targets = np.zeros((40, 3), np.int64)
    targets[:4] = 1  # `often` is only met beside `rare`, and once more with `common`
    targets[4] = 1, 1, 0
    targets[:, 0] |= np.arange(40) % 2

    found = few(task, a_split(targets, [f"p{row}" for row in range(40)]), 0.1, seed)

    assert found.targets.any(axis=0).all()


def test_an_image_without_a_patient_stands_alone() -> None:
    split = replace(a_split(np.array([0, 1]), ["", ""]), groups=(None, None))

    assert len(set(groups_of(split))) == 2
    assert all(stands_alone(group) for group in groups_of(split))


def test_a_fraction_too_small_says_what_would_do(task: Task, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(
        Misconfigured, match=r"0\.01 is 0 of 24 patients, too few for 2 labels: take at least 0\.08"
    ):
        compare(task, data, tmp_path / "out", wish={"fraction": 0.01})

    assert not (tmp_path / "out").exists()


def test_a_label_without_a_training_image_is_named(tmp_path: Path) -> None:
    task = a_light_task(labels=["dark", "bright", "green"])
    data = dataset.read(lights(tmp_path / "data"), task)

    with pytest.raises(Misconfigured, match="no training image has the label 'green'"):
        compare(task, data, tmp_path / "out")


# -- figures --


def a_comparison(task: Task, said: dict[str, list[list[float]]], targets: list[int]) -> Comparison:
    """Hand-made: of each backbone, the probability of the last label by seed and case."""
    recipe = {"epochs": 1}
    plan = Plan("light", "single-label", task.label_names, "x", "0", "test", Scale.NANO, 1, recipe)
    runs = tuple(
        Run(key, seed, None, None, 8, 8, 100, 1, 1.0, 1.0, tuple((1 - p, p) for p in row))
        for key, rows in said.items()
        for seed, row in enumerate(rows)
    )
    groups = tuple(f"p{place}" for place in range(len(targets)))
    return Comparison(plan, tuple(said), runs, np.array(targets), groups, 0)


def test_a_better_teacher_is_told_apart_and_an_equal_one_is_not(task: Task) -> None:
    truth = [0, 1] * 20
    right = [0.1 if label == 0 else 0.9 for label in truth]
    wrong = [p if place % 3 else 1 - p for place, p in enumerate(right)]
    said = {"alexnet": [wrong, wrong], "resnet18": [right, right], "vgg16": [right, right]}

    rows = comparison_figures.standings(task, a_comparison(task, said, truth))

    assert [row.backbone for row in rows] == ["resnet18", "vgg16", "alexnet"]
    assert rows[1].less_best["macro_f1"].high == 0
    assert rows[2].less_best["macro_f1"].high < 0


def test_a_figure_is_the_mean_over_seeds_and_tells_every_seeds_own(task: Task) -> None:
    found = a_comparison(
        task, {"alexnet": [[0.1, 0.9, 0.8, 0.2], [0.9, 0.9, 0.8, 0.2]]}, [0, 1, 1, 0]
    )

    accuracy = comparison_figures.standings(task, found)[0].figures["accuracy"]

    assert accuracy.seeds == (1.0, 0.75)
    assert accuracy.mean == 0.875
    assert accuracy.interval.low < 0.875 <= accuracy.interval.high


def test_cases_of_one_label_have_no_auc_and_the_table_says_so(task: Task) -> None:
    found = a_comparison(
        task, {"alexnet": [[0.1, 0.9, 0.2]], "vgg16": [[0.1, 0.1, 0.2]]}, [0, 0, 0]
    )

    rows = comparison_figures.standings(task, found)
    text = comparison_table.markdown(task, found, rows)

    assert [row.figures["auc"] for row in rows] == [None, None]
    assert "No AUC of dark, bright" in text


def test_patients_on_both_sides_are_told(task: Task, data: Dataset, tmp_path: Path) -> None:
    cases = data.split("test")
    leaking = replace(cases, groups=("train-0", *cases.groups[1:]))
    data = replace(data, splits={**data.splits, "test": leaking})

    found = compare(task, data, tmp_path / "out", "alexnet", wish={"seeds": 1})

    text = comparison_table.markdown(task, found, comparison_figures.standings(task, found))
    assert found.shared_groups == 1
    assert "Patients both among the training images and the cases: 1;" in text


# -- the command line --


@pytest.fixture
def gsco(tmp_path: Path, task: Task, capsys: pytest.CaptureFixture[str]):
    """`gsco compare` on a home folder that knows the task; gives its exit code and what it said."""
    home = tmp_path / "home"
    (home / "tasks").mkdir(parents=True)
    (home / "tasks" / "light.toml").write_text(task_toml(task), "utf-8")
    data = lights(tmp_path / "data")

    def run(*arguments: object) -> tuple[int, str, str]:
        command = ["--home", home, "compare", "--task", "light", "--data", data, *arguments]
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in command])
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run


def test_the_command_prints_json_and_keeps_both_tables(gsco, tmp_path: Path) -> None:
    code, out, _ = gsco(
        "--backbones", "alexnet,resnet18", "--seeds", 1, "--fraction", 0.5, "--epochs", 1, "--json"
    )

    (folder,) = (tmp_path / "home" / "comparisons").iterdir()
    assert code == 0
    assert json.loads(out) == json.loads((folder / "comparison.json").read_text())
    assert (folder / "comparison.md").read_text().startswith("# Backbones compared: light")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--backbones", "vgg99"], "unknown backbone 'vgg99'"),
        (["--backbones", "alexnet", "--fraction", "0"], "leaves nothing to train on"),
        (["--backbones", "alexnet", "--weights", "a.pth"], "a.pth is not a .safetensors file"),
        (["--weights", "a.safetensors"], "for which backbone? write BACKBONE=FILE"),
        (["--backbones", "alexnet", "--weights", "vgg16=a.safetensors"], "weights for 'vgg16'"),
        (["--backbones", "radimagenet-densenet121"], "has no scale 'nano'"),
        (["--scale", "full", "--backbones", "radimagenet-densenet121"], "weights of your own"),
    ],
)
def test_wrong_use_is_one_sentence_and_trains_nothing(
    gsco, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    code, _, err = gsco(*arguments)

    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert not (tmp_path / "home" / "comparisons").exists()
