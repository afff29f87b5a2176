"""MedDr-nano's training: what it is shown, what happens to the evidence, that it can be resumed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import a_multi_label_task, a_task
from tiny_training import (
    a_curriculum,
    a_material,
    a_reader,
    a_tiny_recipe,
    bright_and_dark,
    nobody,
)
from torch import nn

from service.domain import Evidence
from service.generalist import template
from service.generalist.architecture import preprocess
from service.generalist.training import (
    arbitrating,
    batches,
    examples,
    judging,
    panels,
    reading,
    recipe,
    seeing,
)
from service.generalist.training.arbitrating import Reader
from service.generalist.training.augment import EVERYDAY, varied
from service.generalist.training.evidence import EvidenceMix, forced
from service.generalist.training.lessons import Lesson
from service.generalist.training.optimisation import Optimisation, Progress, Stage
from service.generalist.training.train import Contest
from specialists.prediction import SpecialistPrediction
from specialists.task import Label

NOTHING_SPECIAL = EvidenceMix(1, 0, 0, 0, 0, 0, 0, 0)


# -- what is shown --


def test_another_acquisition_keeps_shape_and_shows_the_same_otherwise() -> None:
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)

    changed = varied(image, EVERYDAY, np.random.default_rng(1))

    assert (changed.shape, changed.dtype) == (image.shape, image.dtype)
    assert not np.array_equal(changed, image)


def test_no_strength_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)

    same = varied(image, EVERYDAY.scaled(0.0, mirrored=False), np.random.default_rng(1))

    assert np.abs(same.astype(int) - image).max() <= 1


def test_pixel_values_are_those_of_the_engine() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)

    assert torch.allclose(batches.pixel_values(pixels[None])[0], preprocess(pixels, 32), atol=1e-6)


def test_a_tower_learns_to_tell_bright_from_dark(tmp_path: Path) -> None:
    images, targets = bright_and_dark()
    reader, seen = a_reader(tmp_path, a_task()), list[Progress]()

    heads, _ = seeing.learn_to_see(
        reader.model, [Lesson("shade", images, targets)], a_tiny_recipe().vision, 1, seen.append
    )

    marks = seeing.marks(reader.model, heads[0], images)
    assert marks.shape == (40, 2)
    assert (marks.argmax(1).numpy() == targets.argmax(1)).all()
    assert [at.step for at in seen] == list(range(1, 31))


# -- what happens to the evidence --


def test_material_survives_its_file(tmp_path: Path) -> None:
    pool = a_material()
    panels.write(pool, tmp_path / "pool.npz")

    again = panels.read(pool.task, tmp_path / "pool.npz")

    assert again.evidence(5) == pool.evidence(5)
    assert again.labels(5) == pool.labels(5)


def test_evidence_is_mostly_faithful_sometimes_absent_sometimes_biased() -> None:
    pool, mix = a_material(), recipe.nano().evidence["arbitration"]
    drawn = [mix.draw(pool, 3, np.random.default_rng(seed)) for seed in range(600)]

    counts = Counter(
        "none" if one == Evidence() else "faithful" if one == pool.evidence(3) else "other"
        for one in drawn
    )

    assert 0.01 < counts["none"] / 600 < 0.08
    assert 0.45 < counts["faithful"] / 600 < 0.7


def test_a_forced_specialist_names_the_label_as_surely_as_its_own_answer() -> None:
    prediction = SpecialistPrediction("one", (0.7, 0.2, 0.1), "")
    task = a_task(labels=tuple(Label(name) for name in "abc"))

    assert forced(prediction, task, 2).probabilities == (0.1, 0.2, 0.7)


def test_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="add up to one"):
        replace(NOTHING_SPECIAL, faithful=0.9)


# -- what is asked --


def test_arbitration_begins_with_the_words_of_the_first_look() -> None:
    pool, rich = a_material(), template.find("rich")

    alone = examples.diagnosis(rich, pool.task, 0, pool.labels(0))
    helped = examples.diagnosis(rich, pool.task, 0, pool.labels(0), pool.evidence(0))

    assert helped.text.startswith(alone.text)
    assert alone.answer == helped.answer == pool.labels(0)[0]


def test_labels_are_single_tokens(tmp_path: Path) -> None:
    tokenizer = a_reader(tmp_path, a_task()).tokenizer

    assert all(len(tokenizer.encode(name)) == 1 for name in a_task().label_names)


def test_only_the_answer_is_learned(tmp_path: Path) -> None:
    reader = a_reader(tmp_path, a_task())
    rows = reader.rows([examples.diagnosis(template.find("rich"), a_task(), 0, ("pneumonia",))])

    learned = reader.tokenizer.decode(rows.ids[0][rows.starts[0] :])

    assert learned == "pneumonia<|im_end|>"


def test_closed_questions_are_answered_yes_or_no_and_open_ones_in_words() -> None:
    pool, rich, rng = a_material(), template.find("rich"), np.random.default_rng(0)
    asked_of = replace(a_task(), name="questions", kind=examples.TaskKind.QUESTION, labels=())

    asked = [examples.about(rich, asked_of, pool.task, 0, pool.labels(0), rng) for _ in range(60)]

    assert {"yes", "no", pool.task.modality} <= {one.answer for one in asked}
    assert all(one.answer in {"yes", "no"} for one in asked if "permitted answers" in one.text)


# -- reading answers --


def test_probabilities_of_single_labels_add_up_to_one(tmp_path: Path) -> None:
    reader, task = a_reader(tmp_path, a_task()), a_task()
    question = examples.diagnosis(template.find("rich"), task, 0, ())

    (said,) = reader.read(reader.features([a_material().images[0]]), [question], [task])

    assert sum(said) == pytest.approx(1, abs=1e-5)


def test_several_labels_are_read_as_the_sum_of_all_answers_that_hold_them(tmp_path: Path) -> None:
    task = a_multi_label_task()
    reader = a_reader(tmp_path, task)
    read = reading.answers(task, reader.tokenizer)
    scores = torch.randn(len(read.partings), len(reader.tokenizer))

    said = reading.probabilities(read, list(scores))

    nothing = task.label_names.index(task.nothing_found or "")
    assert all(0 <= p <= 1 for p in said)
    assert sum(said) >= 1 - 1e-6  # something is always named
    assert said[nothing] <= 1 - max(p for place, p in enumerate(said) if place != nothing) + 1e-6


# -- learning --


def test_training_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    def run(file: Path, stop_at: int | None) -> list[float]:
        torch.manual_seed(0)
        layer = nn.Linear(64, 64)
        learning = Optimisation(
            list(layer.named_parameters()), Stage(120, 1, 1e-2, 1e-2), "x", nobody, file
        )
        for step in learning.remaining():
            if step == stop_at:
                break
            noise = torch.from_numpy(np.random.default_rng(step).normal(size=(4, 64))).float()
            learning.step(layer(noise).square().mean(), 0.0)
        return layer.weight.flatten().tolist()

    whole = run(tmp_path / "whole.safetensors", None)
    run(tmp_path / "parts.safetensors", 110)

    assert run(tmp_path / "parts.safetensors", None) == whole


def test_a_step_that_was_kept_but_not_judged_is_judged_when_training_goes_on(
    tmp_path: Path,
) -> None:
    pool, file = a_material(), tmp_path / "state.safetensors"
    reader, judged = a_reader(tmp_path, pool.task), list[int]()
    stage = replace(a_tiny_recipe(2).arbitration, batch=2)

    def learn(on_judged: Callable[[int], None]) -> None:
        arbitrating.learn_to_arbitrate(
            reader.model, reader.tokenizer, a_curriculum(pool), stage, 1, nobody, file, on_judged
        )

    with pytest.raises(KeyboardInterrupt):
        learn(interrupt)
    learn(judged.append)

    assert judged == [2]


def test_what_was_judged_before_an_interruption_is_neither_judged_again_nor_forgotten(
    tmp_path: Path,
) -> None:
    pool, notes = a_material(), list[str]()
    reader = a_reader(tmp_path, pool.task)

    def contest() -> Contest:
        return Contest(reader, template.find("rich"), [pool], tmp_path, notes.append)

    first = contest()
    first.enter(250)
    first.enter(500)
    again = contest()
    again.enter(250)

    assert len(notes) == 2
    assert again.judgements == first.judgements
    again.forget_after(250)
    assert [one["step"] for one in again.judgements] == [250]


def test_mixtures_of_a_base_and_what_it_became_are_judged_and_the_best_is_crowned(
    tmp_path: Path,
) -> None:
    pool, notes = a_material(), list[str]()
    reader = a_reader(tmp_path, pool.task)
    contest = Contest(reader, template.find("rich"), [pool], tmp_path, notes.append)
    became = {name: value.clone() for name, value in reader.model.state_dict().items()}
    before = {name: torch.zeros_like(value) for name, value in became.items()}

    contest.enter_mixed(8, before)
    again = Contest(reader, template.find("rich"), [pool], tmp_path, notes.append)
    reader.model.load_state_dict(became)
    again.enter_mixed(8, before)
    again.crown(reader.model)

    best = max(again.judgements, key=lambda one: float(one["score"]))["share"]
    assert [one["share"] for one in again.judgements] == [0.25, 0.5, 0.75]
    assert len(notes) == 3
    assert notes[0].startswith("step 8, 25% of what it became: judged")
    for name, value in reader.model.state_dict().items():
        assert torch.allclose(value, best * became[name])


def test_a_model_learns_to_answer_and_is_judged(tmp_path: Path) -> None:
    pool = a_material(cases=24)
    reader, judged = a_reader(tmp_path, pool.task), list[int]()
    stage = replace(a_tiny_recipe(160).arbitration, batch=8)

    arbitrating.learn_to_arbitrate(
        reader.model, reader.tokenizer, a_curriculum(pool), stage, 1, nobody, None, judged.append
    )
    judgement = judging.judge(
        Reader(reader.model.eval(), reader.tokenizer), template.find("rich"), pool
    )

    assert judged == [160]
    assert judgement.cases == 24
    assert judgement.final > 0.8


def interrupt(step: int) -> None:
    del step
    raise KeyboardInterrupt
