"""Whether similar cases help is read off the reference cases, patient by patient."""

import numpy as np
import pytest
from builders import a_reference_case
from library import ENCODER, TASK
from sqlalchemy import Engine

from retrieval import ingest
from retrieval.assess import Verdict, assess
from retrieval.bootstrap import Estimate, counts, difference, macro_f1
from retrieval.errors import NothingToAssess

LABELS = ("normal", "pneumonia")


def fill(engine: Engine, patients: int, told: dict[str, float], images: int = 2) -> None:
    """Specialists that place a patient's images by their label as far apart as told, plus noise
    that is the same for all images of a patient."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, patients)
    names = [(p, f"case {p}-{i}") for p in range(patients) for i in range(images)]
    ingest.ingest(
        engine,
        [a_reference_case(n, labels=(LABELS[labels[p]],), group=f"patient {p}") for p, n in names],
    )
    for specialist, apart in told.items():
        own = random.normal(size=(patients, 16)).astype(np.float32)
        own[:, 0] += apart * (2 * labels - 1)
        vectors = {name: own[p] for p, name in names}
        ingest.store_vectors(engine, TASK, specialist, ENCODER, vectors)


def test_neighbours_that_share_the_label_help(engine: Engine) -> None:
    fill(engine, 80, {"resnet18": 3, "vgg16": 2, "vit-b16": 0})
    told = assess(engine, TASK)
    assert told.verdict == Verdict.HELPS
    assert told.fused.value > 0.8 > told.prior.high
    assert told.single == "resnet18"
    assert (told.cases, told.groups, told.folds) == (160, 80, 5)


def test_neighbours_that_share_nothing_but_the_patient_do_not_help(engine: Engine) -> None:
    """Looked up among their own patient's images they would seem perfect."""
    fill(engine, 60, {"resnet18": 0}, images=3)
    told = assess(engine, TASK)
    assert told.over_prior.low < 0.2
    assert told.fused.value < 0.7


def test_where_almost_all_cases_are_alike_the_prior_is_no_worse(engine: Engine) -> None:
    cases = [
        a_reference_case(f"case {n}", labels=("normal",), group=f"patient {n}") for n in range(40)
    ]
    ingest.ingest(engine, cases)
    random = np.random.default_rng(0)
    vectors = {case.id: random.normal(size=8).astype(np.float32) for case in cases}
    ingest.store_vectors(engine, TASK, "resnet18", ENCODER, vectors)
    told = assess(engine, TASK)
    assert told.over_prior == Estimate(0, 0, 0)
    assert told.verdict == Verdict.DOES_NOT_HELP


def test_assessing_twice_tells_the_same(engine: Engine) -> None:
    fill(engine, 30, {"resnet18": 1})
    assert assess(engine, TASK) == assess(engine, TASK)


@pytest.mark.parametrize("patients", [0, 10])
def test_too_few_patients_tell_nothing(engine: Engine, patients: int) -> None:
    if patients:
        fill(engine, patients, {"resnet18": 3})
    with pytest.raises(NothingToAssess, match="20 are needed"):
        assess(engine, TASK)


def test_macro_f1_is_that_of_the_textbook() -> None:
    truth = [("a",), ("a",), ("b",), ("a", "b")]
    told = [("a",), ("b",), ("b",), ("a",)]
    table = counts(told, truth, list("wxyz"), ("a", "b", "never"))
    assert macro_f1(table).value == pytest.approx((0.8 + 0.5) / 2)
    assert difference(table, table) == Estimate(0, 0, 0)


def test_the_interval_of_many_images_of_few_patients_is_that_of_few(engine: Engine) -> None:
    truth = [("a",) if n % 2 else ("b",) for n in range(400)]
    told = [("a",) if n % 4 else ("b",) for n in range(400)]
    each = macro_f1(counts(told, truth, [str(n) for n in range(400)], ("a", "b")))
    few = macro_f1(counts(told, truth, [str(n // 40) for n in range(400)], ("a", "b")))
    assert each.low < each.value < each.high
    assert few.value == each.value
