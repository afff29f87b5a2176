import numpy as np
import pytest
import torch

from specialists.forward import probabilities
from specialists.task import Task
from specialists.training.calibration import fit_temperature
from specialists.training.metrics import measure


def test_two_labels_are_measured_by_the_last(task: Task) -> None:
    predicted = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]], np.float32)

    metrics = measure(task, predicted, np.array([0, 0, 1, 1]))

    assert metrics.accuracy == 0.75
    assert metrics.auc == 0.75
    assert metrics.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)


def test_several_labels_are_measured_each_for_itself(new_task) -> None:
    task = new_task(kind="multi-label", labels=["a", "b", "c"])
    predicted = np.array([[0.9, 0.6, 0.1], [0.2, 0.4, 0.1]], np.float32)

    metrics = measure(task, predicted, np.array([[1, 0, 0], [0, 1, 0]]))

    assert metrics.accuracy == pytest.approx(4 / 6)
    assert metrics.auc == pytest.approx((1 + 0) / 2)  # c never occurs, so it has no AUC


def test_thresholds_of_the_task_are_obeyed(new_task) -> None:
    task = new_task(kind="multi-label", thresholds=[0.3, 0.7])
    predicted = np.array([[0.4, 0.6], [0.2, 0.8]], np.float32)

    assert measure(task, predicted, np.array([[1, 0], [0, 1]])).accuracy == 1


def test_without_both_kinds_of_cases_there_is_no_auc(task: Task) -> None:
    predicted = np.array([[0.9, 0.1], [0.6, 0.4]], np.float32)

    assert measure(task, predicted, np.array([0, 0])).auc is None


def test_overconfident_logits_get_the_temperature_that_made_them_so() -> None:
    generator = torch.Generator().manual_seed(0)
    honest = torch.randn(20_000, 3, generator=generator)
    drawn = torch.multinomial(honest.softmax(dim=1), 1, generator=generator)[:, 0]

    assert fit_temperature("single-label", 4 * honest, drawn) == pytest.approx(4, rel=0.1)


def test_a_temperature_changes_how_sure_but_not_what() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]])

    sure, unsure = (probabilities("single-label", logits, t)[0] for t in (1.0, 5.0))

    assert sure[0] > unsure[0] > unsure[1]
