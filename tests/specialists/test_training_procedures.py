"""Other ways to train: linear probes, several seeds, balanced labels, half precision."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from specialists import catalogue, loader, trunk
from specialists.catalogue import Augmentation, Precision, Procedure, Scale
from specialists.errors import InvalidRecipe, InvalidSpecialist, InvalidWeights
from specialists.exchange import outgoing
from specialists.exchange.incoming import add
from specialists.loader import CARD, MANIFEST, WEIGHTS, Manifest
from specialists.task import Task
from specialists.training import dataset, heads, numerics, procedures
from specialists.training.batches import ResizedImages
from specialists.training.calibration import label_weights
from specialists.training.dataset import Dataset
from specialists.training.evaluate import evaluate, load_panel
from specialists.training.finetune import Trained, finetune
from specialists.training.heads import Known
from specialists.training.probe import embeddings


@pytest.fixture
def file(tmp_path: Path, task: Task, new_specialist) -> Path:
    """Weights to begin from."""
    new_specialist(tmp_path / "theirs" / "resnet18", task, "resnet18")
    return tmp_path / "theirs" / "resnet18" / WEIGHTS


Probe = Callable[..., Trained]


@pytest.fixture
def probe(file: Path) -> Probe:
    """A linear probe of ResNet-18 on the weights of the file."""

    def probe(lights: Dataset, out: Path, **options: Any) -> Trained:
        given = {"procedure": Procedure.LINEAR_PROBE, "weights": {"resnet18": file}, **options}
        (trained,) = finetune(lights.task, lights, ["resnet18"], Scale.NANO, out, **given)
        return trained

    return probe


def train(lights: Dataset, out: Path, **options: Any) -> Manifest:
    given = {"epochs": 1, "batch_size": 8, **options}
    (trained,) = finetune(lights.task, lights, ["alexnet"], Scale.NANO, out, **given)
    return trained.manifest


def rewrite(folder: Path, **fields: object) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_linear_probe_changes_nothing_but_the_last_layer(
    lights: Dataset, tmp_path: Path, file: Path, probe: Probe
) -> None:
    probe(lights, tmp_path / "out")

    before, after = load_file(file), load_file(tmp_path / "out" / "resnet18" / WEIGHTS)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"backbone.fc.weight", "backbone.fc.bias"}


def test_a_linear_probe_tells_dark_from_bright(
    lights: Dataset, tmp_path: Path, task: Task, probe: Probe
) -> None:
    probe(lights, tmp_path)

    (result,) = evaluate(tmp_path, task, lights.split("test")).results

    assert result.metrics.accuracy == 1.0


def test_a_linear_probe_is_the_same_every_time(
    lights: Dataset, tmp_path: Path, probe: Probe
) -> None:
    one, other = (probe(lights, tmp_path / name) for name in ("one", "other"))
    again = probe(lights, tmp_path / "one")

    assert one.manifest.weights_sha256 == other.manifest.weights_sha256
    assert again.skipped


def test_probes_of_two_tasks_name_the_trunk_that_they_share(
    lights: Dataset, tmp_path: Path, file: Path, probe: Probe, new_task
) -> None:
    other = replace(lights, task=new_task(name="brightness", labels=["dark", "bright", "other"]))
    one, two = probe(lights, tmp_path / "one"), probe(other, tmp_path / "two")

    assert one.manifest.weights_sha256 != two.manifest.weights_sha256
    assert one.manifest.trunk_sha256 == two.manifest.trunk_sha256
    assert one.manifest.trunk_sha256 == trunk.sha256(load_file(file), {"fc.weight", "fc.bias"})
    assert one.manifest.trunk_sha256[:16] in (one.folder / CARD).read_text()


def test_a_trunk_that_was_trained_is_nobody_elses(lights: Dataset, tmp_path: Path) -> None:
    assert train(lights, tmp_path).trunk_sha256 == ""


def test_a_trunk_that_is_not_the_promised_one_is_refused(
    lights: Dataset, tmp_path: Path, task: Task, probe: Probe
) -> None:
    folder = probe(lights, tmp_path).folder
    rewrite(folder, trunk_sha256="0" * 64)

    with pytest.raises(InvalidSpecialist, match="the trunk of 'resnet18' is not the one"):
        loader.load(folder, task)


def test_a_linear_probe_is_handed_on_with_its_trunk(
    lights: Dataset, tmp_path: Path, task: Task, probe: Probe
) -> None:
    probed = probe(lights, tmp_path / "mine", licence="CC0-1.0")

    exported = outgoing.export(probed.folder, tmp_path / "out")
    added = add(tmp_path / "out", tmp_path / "home", lambda _: task)

    assert exported.dropped == ()
    assert added.manifest.trunk_sha256 == probed.manifest.trunk_sha256
    assert added.manifest.recipe["procedure"] == "linear-probe"


def test_several_labels_can_be_probed(tmp_path: Path, new_task, new_arrays, probe: Probe) -> None:
    several = new_task(kind="multi-label", labels=["dark", "bright", "any"])
    arrays = new_arrays()
    for key in [key for key in arrays if key.endswith("labels")]:
        arrays[key] = np.array([[1, 0, 1], [0, 1, 1]], dtype=np.uint8)[arrays[key][:, 0]]
    np.savez(tmp_path / "marks.npz", **arrays)

    probed = probe(dataset.read(tmp_path / "marks.npz", several), tmp_path / "out")

    assert probed.manifest.validation["accuracy"] == 1.0


def test_a_linear_probe_needs_a_trunk_that_has_learnt_something(
    lights: Dataset, tmp_path: Path, probe: Probe
) -> None:
    with pytest.raises(InvalidWeights, match=r"name its weights, resnet18=FILE\.safetensors"):
        probe(lights, tmp_path, weights={})


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"epochs": 3}, "epochs"),
        ({"learning_rate": 1e-3}, "learning rate"),
        ({"augmentation": Augmentation(flip=True)}, "augmentation"),
        ({"seeds": 3}, "several seeds"),
    ],
)
def test_what_a_linear_probe_has_no_use_for_is_a_mistake(
    lights: Dataset, tmp_path: Path, probe: Probe, options: dict[str, Any], what: str
) -> None:
    with pytest.raises(InvalidRecipe, match=f"has no use for {what}: leave it out"):
        probe(lights, tmp_path, **options)


def test_the_head_is_that_of_logistic_regression(task: Task) -> None:
    from sklearn.linear_model import LogisticRegression

    chance = np.random.default_rng(0)
    features = chance.normal(size=(60, 5)).astype(np.float32)
    targets = (features[:, 0] + chance.normal(size=60) > 0).astype(np.int64)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)

    known = Known(features, targets)
    head = heads.linear(task, known, known, [0.05])

    # Two rows w and -w are penalised together half as much as the one of 2 w.
    theirs = LogisticRegression(C=2 / (0.05 * 60), tol=1e-8).fit(scaled, targets)
    np.testing.assert_allclose(
        head.logits(features).softmax(-1).numpy(), theirs.predict_proba(scaled), atol=1e-3
    )


def test_a_number_that_never_changes_has_no_say(task: Task) -> None:
    features = np.array([[1, 7], [2, 7], [3, 7], [4, 7]], dtype=np.float32)
    known = Known(features, np.array([0, 0, 1, 1]))

    head = heads.linear(task, known, known, [0.1])

    assert head.weight[:, 1].tolist() == [0, 0]
    assert head.logits(np.array([[4, 9]], dtype=np.float32)).argmax() == 1


def test_the_nearest_vote_with_one_voice_each(task: Task) -> None:
    known = Known(
        np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 2]], dtype=np.float32), np.array([0, 0, 0, 1])
    )

    shares = heads.nearest(task, known, np.array([[0, 3]], dtype=np.float32), count=2)

    assert shares.tolist() == [[0.5, 0.5]]


def test_fewer_images_than_neighbours_all_vote(task: Task) -> None:
    known = Known(np.eye(2, dtype=np.float32), np.array([0, 1]))

    assert heads.nearest(task, known, np.eye(2, dtype=np.float32)).tolist() == [[0.5, 0.5]] * 2


def test_procedures_stand_side_by_side(lights: Dataset, tmp_path: Path, task: Task) -> None:
    train(lights, tmp_path)
    members, _ = load_panel(tmp_path, task)

    outcomes = procedures.beside(members, lights, "test")

    assert [(one.specialist, one.procedure) for one in outcomes] == [
        ("alexnet", "linear probe"),
        ("alexnet", "11 nearest"),
    ]
    assert all(one.metrics.accuracy == 1.0 for one in outcomes)


def test_a_probe_beside_is_the_probe_that_would_be_trained(
    lights: Dataset, tmp_path: Path, task: Task, probe: Probe
) -> None:
    probe(lights, tmp_path, balanced=False)
    members, _ = load_panel(tmp_path, task)

    (linear, _) = procedures.beside(members, lights, "test")

    assert linear.metrics == evaluate(tmp_path, task, lights.split("test")).results[0].metrics


def test_of_several_seeds_the_best_on_validation_is_kept(lights: Dataset, tmp_path: Path) -> None:
    alone = [train(lights, tmp_path / str(seed), seed=seed) for seed in (4, 5, 6)]

    kept = train(lights, tmp_path / "out", seed=4, seeds=3)

    losses = [one.validation["loss"] for one in alone]
    best = alone[int(np.argmin(losses))]
    assert kept.weights_sha256 == best.weights_sha256
    assert (kept.recipe["seed"], kept.recipe["seeds"]) == (best.recipe["seed"], 3)
    assert kept.validation["loss_mean"] == pytest.approx(np.mean(losses))
    assert kept.validation["loss_sd"] == pytest.approx(np.std(losses, ddof=1))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["alexnet"]


def test_seeds_that_were_trained_are_not_trained_again(lights: Dataset, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 1, "batch_size": 8, "seeds": 2}
    finetune(lights.task, lights, ["alexnet"], Scale.NANO, tmp_path, **options)

    (again,) = finetune(lights.task, lights, ["alexnet"], Scale.NANO, tmp_path, **options)
    (more,) = finetune(
        lights.task, lights, ["alexnet"], Scale.NANO, tmp_path, **options | {"seeds": 3}
    )

    assert again.skipped
    assert not more.skipped


def test_all_that_a_training_of_seeds_writes_may_be_handed_on(
    lights: Dataset, tmp_path: Path
) -> None:
    train(lights, tmp_path, seeds=2, licence="CC0-1.0")

    exported = outgoing.export(tmp_path / "alexnet", tmp_path / "out")

    assert exported.dropped == ()
    assert exported.manifest.recipe["seeds"] == 2
    assert "accuracy_sd" in exported.manifest.validation


def test_half_precision_learns_as_well_and_says_so(lights: Dataset, tmp_path: Path) -> None:
    whole = train(lights, tmp_path / "whole", epochs=4, precision=Precision.FLOAT32)
    half = train(lights, tmp_path / "half", epochs=4, precision=Precision.BFLOAT16)

    assert half.validation["accuracy"] == 1.0
    assert half.recipe["precision"] == "bfloat16"
    assert half.weights_sha256 != whole.weights_sha256


def test_precision_follows_the_hardware_unless_told(lights: Dataset, tmp_path: Path) -> None:
    manifest = train(lights, tmp_path, precision=Precision.AUTO)

    natural = numerics.has_bfloat16("cpu")
    assert manifest.recipe["precision"] == ("bfloat16" if natural else "float32")
    assert catalogue.recipe_of(Scale.FULL).precision is Precision.AUTO


def test_the_callers_choice_of_algorithms_comes_back() -> None:
    with numerics.deterministic("cpu"):
        inside = torch.are_deterministic_algorithms_enabled()

    assert inside
    assert not torch.are_deterministic_algorithms_enabled()


def test_rare_labels_weigh_more(task: Task, new_task) -> None:
    several = new_task(kind="multi-label", labels=["a", "b"])

    single = label_weights(task, np.array([0, 0, 0, 1]))
    marks = label_weights(several, np.array([[1, 0], [1, 0], [1, 0], [1, 1]]))

    torch.testing.assert_close(single, torch.tensor([4 / 6, 2.0]))
    torch.testing.assert_close(marks, torch.tensor([0.1, 3.0]))


def test_balanced_is_another_training(lights: Dataset, tmp_path: Path) -> None:
    few = lights.split("train").choose([0, 2, 4, 6, 8, 10, 12, 1])
    uneven = replace(lights, splits={**lights.splits, "train": few})

    one, other = (
        train(uneven, tmp_path / str(balanced), balanced=balanced) for balanced in (True, False)
    )

    assert one.recipe["run"] != other.recipe["run"]
    assert one.weights_sha256 != other.weights_sha256


def test_full_size_training_is_augmented_when_asked() -> None:
    assert catalogue.recipe_of(Scale.FULL).augmentation == Augmentation()
    assert catalogue.augmentation_of(Scale.FULL).rotation > 0
    assert catalogue.augmentation_of(Scale.NANO) == catalogue.recipe_of(Scale.NANO).augmentation


def test_embeddings_are_what_the_last_layer_reads(
    lights: Dataset, tmp_path: Path, task: Task, new_specialist
) -> None:
    new_specialist(tmp_path / "resnet18", task, "resnet18")
    model = loader.load(tmp_path / "resnet18").model
    architecture = catalogue.find("resnet18").at(Scale.NANO)

    found = embeddings(model, ResizedImages(lights.split("val").images, 64), architecture)

    assert found.shape == (8, 64)
    assert not np.allclose(np.linalg.norm(found, axis=1), 1)
