"""How typical a case is of the reference cases."""

import numpy as np
import pytest
from library import Library

from retrieval import typicality
from retrieval.index import unit


def some_vectors(count: int, dim: int = 16) -> np.ndarray:
    return unit(np.random.default_rng(count).normal(size=(count, dim)))


def test_a_case_as_near_as_the_median_one_is_typical() -> None:
    known = typicality.quantiles(some_vectors(200))

    assert typicality.rank(known[10], known) == pytest.approx(0.5)
    assert typicality.rank(-1.0, known) == 0.0
    assert typicality.rank(1.0, known) == 1.0


def test_no_vector_is_its_own_nearest() -> None:
    assert max(typicality.quantiles(np.eye(8, dtype=np.float32))) == pytest.approx(0.0)


def test_too_few_cases_tell_nothing() -> None:
    assert typicality.quantiles(some_vectors(2)) == ()


def test_many_cases_are_sampled_evenly() -> None:
    few, many = typicality.quantiles(some_vectors(900)), typicality.quantiles(some_vectors(3000))

    assert len(few) == len(many) == typicality.QUANTILES
    assert list(many) == sorted(many)


async def test_a_search_tells_how_typical_the_case_is(library: Library) -> None:
    for degrees in (0, 10, 20, 30):
        library.put(f"at {degrees}", degrees)
    library.build()

    near, far = await library.search(degrees=15), await library.search(degrees=80)

    assert near.typicality is not None
    assert far.typicality is not None
    assert near.typicality > far.typicality
