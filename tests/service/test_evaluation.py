"""Measuring: figures, intervals, and how the generalist decides where others disagree."""

from dataclasses import replace

import numpy as np
import pytest
from builders import (
    a_case,
    a_diagnosis,
    a_multi_label_task,
    a_panel,
    a_picture,
    a_prediction,
    a_task,
    an_image,
    some_evidence,
)
from fakes import FakeGeneralist, FakeRetriever, FakeSpecialists, FakeStore
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from service.domain import Diagnosis, LabelledAnswer, predicted_labels
from service.evaluation import intervals, run, table
from service.evaluation.arbitration import Rate, arbitration
from service.evaluation.biased import BiasedPanel, forced, wrong_label
from service.evaluation.metrics import score
from service.evaluation.run import LabelledCase
from service.pipeline import Pipeline

NORMAL, PNEUMONIA = (0.9, 0.1), (0.1, 0.9)
Odds = tuple[float, ...]


def said(initial: Odds, panel: Odds, final: Odds) -> Diagnosis:
    names = a_task().label_names

    def answer(probabilities: Odds) -> LabelledAnswer:
        return LabelledAnswer((names[int(np.argmax(probabilities))],), probabilities)

    evidence = some_evidence(moed=a_panel(panel))
    return a_diagnosis(initial=answer(initial), final=answer(final), evidence=evidence)


def labelled(*labels: str) -> list[LabelledCase]:
    return [
        LabelledCase(a_case(id=str(place), image=an_image(a_picture(seed=place))), (label,))
        for place, label in enumerate(labels)
    ]


# -- arbitration --


def test_rates_are_kept_with_their_denominators() -> None:
    truth = np.array([0, 0, 0, 1, 1, 1])
    initial = np.array([0, 0, 0, 0, 0, 1])
    majority = np.array([1, 1, 0, 1, 1, 1])
    final = np.array([0, 1, 0, 1, 0, 1])

    found = arbitration(truth, initial, majority, final)

    assert (found.uphold, found.misled) == (Rate(1, 2), Rate(1, 2))
    assert (found.self_correct, found.stubborn) == (Rate(1, 2), Rate(1, 2))


def test_a_rate_of_no_cases_is_none() -> None:
    assert Rate(0, 0).share is None


def test_a_forced_specialist_is_as_sure_of_the_wrong_label_as_it_was_of_its_own() -> None:
    assert forced(a_prediction(probabilities=(0.7, 0.2, 0.1)), 2).probabilities == (0.1, 0.2, 0.7)


@given(truth=st.integers(0, 5), labels=st.integers(6, 9), id=st.text(max_size=8))
def test_the_wrong_label_is_wrong_and_always_the_same(truth: int, labels: int, id: str) -> None:
    assert wrong_label(id, truth, labels) != truth
    assert wrong_label(id, truth, labels) == wrong_label(id, truth, labels)


async def test_a_biased_panel_names_one_wrong_label_and_embeds_as_before() -> None:
    case, panel = a_case(), FakeSpecialists()
    biased = BiasedPanel(panel, {case.image.pixels_sha256: 0})

    plain = await panel.consult(case.image.pixels, case.task)
    found = await biased.consult(case.image.pixels, case.task)

    assert {predicted_labels(case.task, one) for one in found.predictions} == {("normal",)}
    assert [p.probabilities[0] for p in found.predictions] == [0.8] * 10
    assert found.embeddings[0].vector.tolist() == plain.embeddings[0].vector.tolist()


# -- figures --


def test_several_labels_are_measured_one_by_one() -> None:
    task = a_multi_label_task()
    truth = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 0]], dtype=bool)
    probabilities = np.array([[0.9, 0.1, 0.2], [0.1, 0.8, 0.4], [0.2, 0.7, 0.3]])

    found = score(task, "one", truth, probabilities)

    assert found.accuracy == pytest.approx(8 / 9)
    assert found.macro_f1 == pytest.approx(2 / 3)
    assert found.auc == pytest.approx(1.0)


def test_the_best_single_specialist_is_chosen_on_validation_not_on_these_cases() -> None:
    panel = (
        a_prediction("lucky", PNEUMONIA, validation_accuracy=0.6),
        a_prediction("proven", NORMAL, validation_accuracy=0.9),
    )
    diagnosis = replace(said(NORMAL, NORMAL, NORMAL), evidence=some_evidence(moed=panel))

    found = run.evaluate(a_task(), [diagnosis] * 2, labelled("pneumonia", "normal"))

    row = next(one for one in found.scores if one.system == run.BEST_SINGLE)
    assert found.best_single == "proven"
    assert row.accuracy == 0.5


# -- intervals --


def test_weighted_macro_f1_is_that_of_the_resampled_cases() -> None:
    rng = np.random.default_rng(0)
    truth, named = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    weights = intervals.resamples([str(case) for case in range(40)], count=5)
    one_hot = np.eye(3, dtype=bool)

    found = intervals.macro_f1s(one_hot[truth], one_hot[named], weights)

    for value, drawn in zip(found, weights.astype(int), strict=True):
        rows = np.repeat(np.arange(40), drawn)
        wanted = f1_score(truth[rows], named[rows], average="macro", labels=[0, 1, 2])
        assert value == pytest.approx(wanted)


def test_images_of_one_patient_are_drawn_together() -> None:
    weights = intervals.resamples(["a", "a", "b", "b"], count=20)

    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights.sum(axis=1) == 4).all()


def test_a_system_that_is_always_better_has_a_difference_above_zero() -> None:
    truth = np.eye(2, dtype=bool)[np.arange(60) % 2]
    worse = truth.copy()
    worse[:20] = ~worse[:20]
    groups = [str(case) for case in range(60)]

    found = intervals.differences(truth, {"ours": truth, "other": worse}, groups, "ours")

    assert found["other"].low > 0


# -- the whole --


async def test_everything_is_told_in_tables_and_in_json() -> None:
    cases = labelled("normal", "pneumonia", "pneumonia", "normal")
    pipeline = Pipeline(FakeSpecialists(), FakeRetriever(), FakeGeneralist(), FakeStore())

    diagnoses = await run.diagnose_all(pipeline, cases, lambda: None)
    against = await run.diagnose_all(run.with_biased_panel(pipeline, cases), cases, lambda: None)
    found = run.evaluate(a_task(), diagnoses, cases, against)

    text, document = table.markdown(found), table.as_json(found)
    assert "| GSCo | 4 | 0.500 | 0.333 (" in text
    assert "| stubborn | 1.00 | 2 of 2 |" in text
    assert document["arbitration"]["self_correct"] == {
        "numerator": 0, "denominator": 2, "share": 0.0
    }  # fmt: skip
    assert document["arbitration"]["biased_panel_truth_named"]["denominator"] == 4
    assert set(document["macro_f1_of_gsco_less"]) >= {"majority vote", "generalist alone"}
