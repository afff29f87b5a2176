"""MedDr-nano's training: what it is shown, and that it learns from it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import a_task

from service.generalist import checkpoint
from service.generalist.training import batches, evidence, recipe, train
from service.generalist.training.batches import Question
from service.generalist.training.evidence import EvidenceMix
from service.generalist.training.recipe import Recipe, Stage
from service.generalist.training.sources import Source, source


def bright_and_dark(count: int = 40) -> Source:
    """A task that can be learned in seconds."""
    shades = [40 if place % 2 else 200 for place in range(count)]
    images = [np.full((20, 20, 3), shade, np.uint8) for shade in shades]
    return source(a_task(), images, [place % 2 for place in range(count)], size=32)


def a_tiny_recipe(steps: int = 30) -> Recipe:
    nano = recipe.nano()
    size = replace(
        nano.model, image_size=32, vision_width=64, vision_heads=1, vision_layers=1,
        language_width=64, language_heads=1, language_layers=1, vocabulary=512,
    )  # fmt: skip
    stage = Stage(steps, 16, 3e-3, 0.02)
    return replace(nano, model=size, vision=stage, arbitration=stage)


def test_a_trained_checkpoint_answers_and_can_be_loaded(tmp_path: Path) -> None:
    seen: list[train.Progress] = []

    train.train([bright_and_dark()], a_tiny_recipe(), tmp_path / "nano", seen.append)

    assert {at.stage for at in seen} == set(train.STAGES)
    assert seen[29].accuracy > 0.8
    assert checkpoint.load(tmp_path / "nano").config.image_tokens == 4


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    for name in ("one", "other"):
        train.train([bright_and_dark()], a_tiny_recipe(2), tmp_path / name, lambda at: None)

    one, other = (checkpoint.load(tmp_path / name).weights_sha256 for name in ("one", "other"))
    assert one == other


def test_only_the_answer_is_learned() -> None:
    tokenizer = checkpoint.create_tokenizer(recipe.corpus([a_task()]), 512)

    batch = batches.tokens([Question(0, "What is it?", "pneumonia")], tokenizer, 4)

    learned = batch.input_ids[batch.labels != batches.IGNORED]
    assert tokenizer.decode(learned) == "pneumonia<|im_end|>"


def test_labels_of_a_task_are_single_tokens_in_its_tokenizer() -> None:
    tokenizer = checkpoint.create_tokenizer(recipe.corpus([a_task()]), 512)

    assert all(len(tokenizer.encode(name)) == 1 for name in a_task().label_names)


def test_evidence_is_sometimes_absent_sometimes_wrong_and_mostly_right() -> None:
    rng, mix = np.random.default_rng(0), EvidenceMix()
    drawn = [mix.draw(rng, truth=1, labels=3) for _ in range(2000)]

    absent = sum(not one.predicted or not one.retrieved for one in drawn) / len(drawn)
    right = np.mean([one.predicted.count(1) > 5 for one in drawn if one.predicted])

    assert 0.1 < absent < 0.22
    assert 0.5 < right < 0.8


def test_a_biased_panel_is_of_one_mind_whatever_the_truth() -> None:
    only = EvidenceMix(0, 0, 0, 1, 0, 0)

    drawn = [only.draw(np.random.default_rng(seed), 0, 4) for seed in range(40)]

    assert all(len(set(one.predicted)) == 1 for one in drawn)
    assert {one.predicted[0] for one in drawn} == {0, 1, 2, 3}


def test_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="add up to one"):
        EvidenceMix(faithful=0.9)


def test_evidence_is_written_as_labels() -> None:
    assert evidence.names((1, 0), ("normal", "pneumonia")) == [("pneumonia",), ("normal",)]


def test_augmented_images_keep_their_shape_and_differ() -> None:
    images = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)

    changed = batches.augmented(images, np.random.default_rng(1))

    assert changed.shape == images.shape
    assert changed.dtype == np.uint8
    assert not np.array_equal(changed, images)


def test_pixel_values_are_those_of_the_engine() -> None:
    from service.generalist.architecture import preprocess

    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)

    assert torch.allclose(batches.pixel_values(pixels[None])[0], preprocess(pixels, 32), atol=1e-6)
