"""Agreement of readers: known values, and simulated readers whose agreement is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import friedmanchisquare, rankdata

from service.evaluation.agreement import Agreement, Preference, Reading, analyse, kendall

SYSTEMS = ("a", "b", "c", "d")
Ranks = NDArray[np.float64]


def random_ranks(rng: np.random.Generator, judges: int, systems: int = 4) -> Ranks:
    return np.array([rng.permutation(systems) + 1.0 for _ in range(judges)])


def readings(ranks: Ranks, readers: int = 1) -> list[Reading]:
    """Row by row: case 0 by every reader, then case 1, …"""
    return [
        Reading(place % readers + 1, f"case-{place // readers}", tuple(map(float, row)))
        for place, row in enumerate(ranks)
    ]


def preference(found: Agreement, first: str, second: str) -> Preference:
    return next(one for one in found.preferences if (one.first, one.second) == (first, second))


def planted(rng: np.random.Generator, probability: float, cases: int, readers: int) -> Ranks:
    """Readers who prefer the first of two systems that often, alike within a case."""
    taste = rng.beta(4 * probability, 4 * (1 - probability), size=cases).repeat(readers)
    first = rng.random(cases * readers) < taste
    return np.where(first[:, None], (1.0, 2.0), (2.0, 1.0))


# -- Kendall's W --


def test_w_of_an_example_worked_by_hand() -> None:
    ranks = [[1, 2, 3, 4], [2, 1, 3, 4], [1, 3, 2, 4]]

    found = kendall(ranks)

    # Sums 4, 6, 8, 12 about 7.5: S = 12.25 + 2.25 + 0.25 + 20.25 = 35; W = 12 · 35 / (9 · 60).
    assert found is not None
    assert found.w == pytest.approx(7 / 9)
    assert (found.chi_square, found.degrees) == (pytest.approx(7.0), 3)
    assert found.p == pytest.approx(0.0718978, abs=1e-6)


def test_w_with_ties_of_an_example_worked_by_hand() -> None:
    found = kendall([[1, 1, 3], [1, 2, 3]])

    # Ranks 1.5, 1.5, 3 and 1, 2, 3; sums 2.5, 3.5, 6 about 4: S = 6.5; T = 2³ - 2 = 6.
    assert found is not None
    assert found.w == pytest.approx(12 * 6.5 / (4 * 24 - 2 * 6))


@given(
    st.integers(2, 8).flatmap(
        lambda systems: st.lists(
            st.lists(st.integers(1, systems), min_size=systems, max_size=systems),
            min_size=2,
            max_size=9,
        ).filter(lambda rows: systems > 2 and any(len(set(row)) > 1 for row in rows))
    )
)
def test_w_is_that_of_friedmans_test(rows: list[list[int]]) -> None:
    reference = friedmanchisquare(*np.array(rows, dtype=float).T)

    found = kendall(rows)

    assert found is not None
    assert found.w == pytest.approx(
        reference.statistic / (len(rows) * (len(rows[0]) - 1)), abs=1e-6
    )
    assert found.chi_square == pytest.approx(reference.statistic, abs=1e-6)
    assert found.p == pytest.approx(reference.pvalue, abs=1e-6)


@pytest.mark.parametrize("ranks", [[[1, 2, 3]], [[1, 1, 1], [2, 2, 2]]])
def test_w_of_one_judge_or_of_nothing_but_ties_is_undefined(ranks: list[list[int]]) -> None:
    assert kendall(ranks) is None


# -- simulated readers --


def test_readers_who_rank_alike_agree_wholly() -> None:
    once = random_ranks(np.random.default_rng(1), judges=10)

    found = analyse(SYSTEMS, readings(once.repeat(3, axis=0), readers=3))

    assert found.by_case is not None
    assert found.by_case.w == pytest.approx(1)
    assert found.across_readers is not None
    assert found.across_readers.w == pytest.approx(1)
    assert (found.readers, found.cases, found.readings) == (3, 10, 30)


def test_readers_who_rank_at_random_agree_by_chance_alone() -> None:
    ranks = random_ranks(np.random.default_rng(2), judges=400 * 3)

    found = analyse(SYSTEMS, readings(ranks, readers=3))

    assert found.by_case is not None
    assert found.by_case.w == pytest.approx(1 / 3, abs=0.03)  # 1 / readers
    assert found.within_readers is not None
    assert found.within_readers.w < 0.01  # 1 / cases
    assert min(found.by_case.p, found.within_readers.p) > 0.05


def test_the_test_of_random_readers_alarms_no_more_often_than_promised() -> None:
    rng = np.random.default_rng(3)

    studies = [analyse(SYSTEMS, readings(random_ranks(rng, 30), readers=3)) for _ in range(150)]

    alarms = [one.by_case.p < 0.05 for one in studies if one.by_case]
    assert np.mean(alarms) < 0.09


@pytest.mark.parametrize("probability", [0.5, 0.7])
def test_intervals_hold_a_planted_preference_about_as_often_as_they_say(
    probability: float,
) -> None:
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(100):
        ranks = planted(rng, probability, cases=40, readers=3)
        interval = preference(analyse(("a", "b"), readings(ranks, 3)), "a", "b").interval
        assert interval is not None
        held += interval.low <= probability <= interval.high

    assert held >= 88


def test_more_readers_of_the_same_cases_are_not_more_cases() -> None:
    ranks = planted(np.random.default_rng(5), 0.6, cases=30, readers=1)

    one = preference(analyse(("a", "b"), readings(ranks)), "a", "b")
    nine = preference(analyse(("a", "b"), readings(ranks.repeat(9, axis=0), 9)), "a", "b")

    assert nine.share == one.share
    assert nine.interval == one.interval


# -- preferences --


def test_a_tie_is_half_a_preference() -> None:
    found = analyse(("a", "b"), readings(np.array([[1.0, 2], [1, 1], [1, 1], [2, 1]])))

    pair = preference(found, "a", "b")
    assert (pair.share, pair.better, pair.ties, pair.worse) == (0.5, 1, 2, 1)


def test_the_two_sides_of_a_pair_make_one() -> None:
    ranks = rankdata(np.random.default_rng(6).integers(1, 5, (40, 4)), axis=1)

    found = analyse(SYSTEMS, readings(ranks, readers=2))

    for one in found.preferences:
        other = preference(found, one.second, one.first)
        assert one.share + other.share == pytest.approx(1)
        assert one.readers + other.readers == one.of_readers


def test_a_rank_counts_by_its_order_not_its_number() -> None:
    skipped = analyse(("a", "b", "c"), readings(np.array([[1.0, 1, 2], [1, 3, 3]])))
    shared = analyse(("a", "b", "c"), readings(np.array([[1.5, 1.5, 3], [1, 2.5, 2.5]])))

    assert skipped == shared


def test_one_voice_in_few_cases_is_no_certainty() -> None:
    found = analyse(("a", "b"), readings(np.array([[1.0, 2]] * 5)))

    for_first, for_second = (preference(found, *pair).interval for pair in ("ab", "ba"))
    assert for_first is not None
    assert for_second is not None
    assert for_first.low == pytest.approx(0.025 ** (1 / 5))  # Clopper and Pearson
    assert for_second.high == pytest.approx(1 - for_first.low)


def test_one_case_has_no_interval() -> None:
    found = analyse(("a", "b"), readings(np.array([[1.0, 2], [2, 1]]), readers=2))

    assert found.mean_ranks[0].interval is None
    assert preference(found, "a", "b").interval is None


def test_the_best_system_comes_first() -> None:
    found = analyse(("worst", "best"), readings(np.array([[2.0, 1]] * 3)))

    assert [(row.system, row.mean) for row in found.mean_ranks] == [("best", 1.0), ("worst", 2.0)]
