"""Label sets: that they hold the truth as often as promised, and where they do not apply."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import a_diagnosis, a_multi_label_task, a_task
from numpy.typing import NDArray

from service import calibration
from service.calibrated import Calibrated
from service.calibration import Calibration
from service.domain import Diagnosis, LabelledAnswer
from service.errors import InvalidInput

NAMES = ("normal", "pneumonia")


def said(probability: float) -> Diagnosis:
    """A diagnosis whose second label has this probability."""
    place = int(probability >= 0.5)
    return a_diagnosis(final=LabelledAnswer((NAMES[place],), (1 - probability, probability)))


def a_calibration(count: int = 200, coverage: float = 0.9, seed: int = 0) -> Calibration:
    shares = np.random.default_rng(seed).uniform(0.3, 1.0, count)
    truth = np.tile([False, True], (count, 1))
    return calibrated(shares, truth, coverage)


def calibrated(shares: NDArray[Any], truth: NDArray[Any], coverage: float = 0.9) -> Calibration:
    """From the probabilities of the second label."""
    odds = np.stack([1 - shares, shares], axis=1)
    valid_for = calibration.conditions(a_diagnosis().provenance)
    return calibration.calibrate(a_task(), odds, truth, valid_for, coverage)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_new_cases_of_the_same_kind_are_covered_on_average(coverage: float) -> None:
    held = [_held(a_calibration(200, coverage, seed), seed) for seed in range(30)]

    assert np.mean(held) >= coverage - 0.01


def _held(found: Calibration, seed: int) -> float:
    """The share of fresh cases whose label set holds the truth, the second label."""
    fresh = np.random.default_rng(seed + 10_000).uniform(0.3, 1.0, 1000)
    return float(np.mean([NAMES[1] in calibration.label_set(found, (1 - p, p)) for p in fresh]))


def test_the_threshold_is_the_one_that_the_count_of_cases_demands() -> None:
    odds = np.arange(1, 30) / 30  # of 29 true labels the third smallest: 0.1 * (29 + 1) = 3
    probabilities, truth = np.stack([odds, 1 - odds], axis=1), np.array([[True, False]] * 29)

    found = calibration.calibrate(a_task(), probabilities, truth, {}, 0.9)

    assert found.thresholds[0] == pytest.approx(3 / 30)


def test_a_label_set_is_never_empty() -> None:
    found = replace(a_calibration(), thresholds=(0.99, 0.99))

    assert calibration.label_set(found, (0.4, 0.6)) == ("pneumonia",)


def test_of_several_labels_each_has_a_threshold_of_its_own() -> None:
    odds = np.random.default_rng(0).uniform(0.2, 0.8, (60, 3))
    truth = np.array([[True, True, False], [True, False, True]] * 30)

    found = calibration.calibrate(a_multi_label_task(), odds, truth, {})

    assert len(set(found.thresholds)) == 3


@pytest.mark.parametrize("count", [0, 19])
def test_too_few_cases_promise_nothing(count: int) -> None:
    with pytest.raises(InvalidInput, match="too few"):
        calibrated(np.full(count, 0.9), np.ones((count, 2), bool))


def test_a_close_call_shows_both_labels_and_asks_for_review(tmp_path: Path) -> None:
    calibration.write(tmp_path, replace(a_calibration(), thresholds=(0.35, 0.35)))
    close = replace(said(0.55), review_reasons=("low probability: 0.55 for the likeliest label",))

    found = Calibrated(tmp_path)(close)

    assert found.label_set == NAMES
    assert found.coverage == 0.9
    assert found.review_reasons == ("the label set holds normal or pneumonia",)


def test_other_weights_make_it_say_nothing(tmp_path: Path) -> None:
    calibration.write(tmp_path, a_calibration())
    diagnosis = said(0.9)
    other = replace(diagnosis.provenance, prompt_template="mine/1@0")

    found = Calibrated(tmp_path)(replace(diagnosis, provenance=other))

    assert found.coverage is None
    assert "prompt template" in str(a_calibration().does_not_fit(other))


def test_a_new_file_is_noticed_and_a_damaged_one_ignored(tmp_path: Path) -> None:
    calibrated = Calibrated(tmp_path)
    assert calibrated(said(0.9)).coverage is None

    path = calibration.write(tmp_path, a_calibration())
    assert calibrated(said(0.9)).coverage == 0.9

    path.write_text(json.dumps({"task": "cxr-pneumonia"}))
    assert calibrated(said(0.9)).coverage is None
