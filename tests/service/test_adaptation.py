"""LoRA: tuning a checkpoint to one site's data, and serving what came out."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import a_task
from safetensors.torch import load_file, save_file
from tiny_training import a_tiny_recipe, bright_and_dark, nobody

from service.errors import InvalidCheckpoint
from service.generalist import checkpoint, lora, template
from service.generalist.training import adapt, examples, recipe
from service.generalist.training.adapt import Adaptation
from service.generalist.training.arbitrating import Reader
from service.generalist.training.optimisation import Progress
from specialists.training.dataset import Dataset
from specialists.training.split import ArrayImages, Split


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    words = list(examples.corpus(template.find("rich"), a_task())) * 4
    tokenizer = checkpoint.create_tokenizer(words, 1024)
    size = a_tiny_recipe().model
    checkpoint.create(tmp_path / "base", recipe.configuration(size), tokenizer, seed=1)
    return tmp_path / "base"


def a_site(count: int = 32) -> Dataset:
    images, targets = bright_and_dark(count)
    split = Split(
        ArrayImages(images), targets.argmax(1), (None,) * count, tuple(map(str, range(count)))
    )
    return Dataset("site", a_task(), {"train": split, "val": split})


def adapted(folder: Path, out: Path, steps: int = 2) -> Path:
    how = Adaptation(rank=4, steps=steps, batch=8, learning_rate=1e-2)
    adapt.adapt(folder, a_site(), how, out, nobody)
    return out


def interrupted_at(step: int) -> Callable[[Progress], None]:
    def show(at: Progress) -> None:
        if at.step == step:
            raise KeyboardInterrupt

    return show


def test_an_adapter_is_small_and_holds_only_the_language_model(
    folder: Path, tmp_path: Path
) -> None:
    out = adapted(folder, tmp_path / "adapter")

    names = set(load_file(out / lora.WEIGHTS))

    assert names
    assert all(name.startswith("base_model.model.language_model.") for name in names)
    assert json.loads((out / lora.CONFIG).read_text())["r"] == 4


def test_an_adapted_checkpoint_answers_as_the_tuned_model_did(folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    out = adapted(folder, tmp_path / "adapter", steps=20)
    served = checkpoint.load(folder, out)
    base = checkpoint.load(folder)
    tuned = PeftModel.from_pretrained(base.model, str(out)).eval()
    question = examples.diagnosis(template.find("rich"), a_task(), 0, ())
    image = np.full((32, 32, 3), 40, np.uint8)

    said = [
        reader.read(reader.features([image]), [question], [a_task()])[0]
        for reader in (
            Reader(served.model, served.tokenizer),
            Reader(tuned.base_model.model, base.tokenizer),
        )
    ]

    assert said[0] == pytest.approx(said[1], abs=1e-3)
    assert served.weights_sha256 != base.weights_sha256


def test_an_interrupted_tuning_goes_on_and_ends_with_the_same_adapter(
    folder: Path, tmp_path: Path
) -> None:
    how = Adaptation(rank=2, steps=103, batch=2)
    state = adapt.state_file(tmp_path, folder, a_site(), how)

    adapt.adapt(folder, a_site(), how, tmp_path / "whole", nobody)
    with pytest.raises(KeyboardInterrupt):
        adapt.adapt(folder, a_site(), how, tmp_path / "parts", interrupted_at(101), state)
    adapt.adapt(folder, a_site(), how, tmp_path / "parts", nobody, state)

    whole, parts = ((tmp_path / name / lora.WEIGHTS).read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    assert not state.exists()


def test_another_tuning_has_a_state_of_its_own(folder: Path, tmp_path: Path) -> None:
    how = Adaptation(rank=2)
    others = [(a_site(30), how), (a_site(), replace(how, rank=4)), (a_site(), replace(how, seed=1))]

    files = {adapt.state_file(tmp_path, folder, data, way) for data, way in others}

    assert len(files | {adapt.state_file(tmp_path, folder, a_site(), how)}) == 4


def test_tuning_starts_at_the_base_and_leaves_its_files_alone(folder: Path, tmp_path: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()

    adapted(folder, tmp_path / "adapter", steps=1)

    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda out: (out / lora.WEIGHTS).unlink(), "only safetensors are read"),
        (lambda out: (out / lora.CONFIG).write_text("{}"), "no readable adapter_config.json"),
        (
            lambda out: (out / lora.CONFIG).write_text(
                '{"r": 4, "lora_alpha": 8, "alpha_pattern": {"q_proj": 2}}'
            ),
            "no plain LoRA",
        ),
        (lambda out: (out / lora.WEIGHTS).write_bytes(b"x" * 100), "is damaged"),
        (
            lambda out: save_file({"base_model.model.x.lora_A.weight": torch.ones(4, 4)},
                                  out / lora.WEIGHTS),
            "holds the unknown",
        ),
    ],
)  # fmt: skip
def test_a_broken_adapter_is_refused_in_a_sentence(
    folder: Path, tmp_path: Path, damage: object, sentence: str
) -> None:
    out = adapted(folder, tmp_path / "adapter", steps=1)
    damage(out)  # type: ignore[operator]

    with pytest.raises(InvalidCheckpoint, match=sentence):
        checkpoint.load(folder, out)
