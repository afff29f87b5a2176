"""Reciprocal-rank fusion."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.fusion import Ranking, fuse, within_cut


def ranking(name: str, *found: tuple[int, float]) -> Ranking:
    return Ranking(name, tuple(key for key, _ in found), tuple(s for _, s in found))


@st.composite
def rankings(draw: st.DrawFn) -> list[Ranking]:
    def one(name: str) -> Ranking:
        keys = draw(st.lists(st.integers(0, 20), unique=True, max_size=8))
        similarities = [draw(st.floats(-1, 1)) for _ in keys]
        return Ranking(name, tuple(keys), tuple(sorted(similarities, reverse=True)))

    return [one(f"retriever {number}") for number in range(draw(st.integers(0, 5)))]


def test_a_case_found_by_two_wins_over_one_found_first_by_one() -> None:
    fused = fuse([ranking("a", (1, 0.9), (2, 0.8)), ranking("b", (3, 0.9), (2, 0.6))])
    assert [one.key for one in fused] == [2, 1, 3]
    assert fused[0].score == pytest.approx(2 / 62)
    assert fused[0].similarity == pytest.approx(0.7)
    assert fused[0].retrievers == ("a", "b")


def test_equal_scores_are_ordered_by_similarity_then_by_key() -> None:
    fused = fuse([ranking("a", (7, 0.5)), ranking("b", (9, 0.8)), ranking("c", (3, 0.5))])
    assert [one.key for one in fused] == [9, 3, 7]


def test_cases_far_below_the_nearest_are_cut() -> None:
    fused = fuse([ranking("a", (1, 0.8), (2, 0.61), (3, 0.59))])
    assert [one.key for one in within_cut(fused, 0.75)] == [1, 2]
    assert within_cut(fused, None) == fused


def test_backbones_that_spread_differently_are_compared_by_share() -> None:
    fused = fuse([ranking("narrow", (1, 0.99), (2, 0.98)), ranking("wide", (3, 0.4), (4, 0.1))])
    assert {one.key for one in within_cut(fused, 0.75)} == {1, 2, 3}


def test_retrievers_that_find_different_cases_do_not_cut_each_others_nearest() -> None:
    fused = fuse([ranking("a", (1, 0.8), (2, 0.1)), ranking("b", (2, 0.8), (1, 0.1))])
    assert [one.nearness for one in fused] == pytest.approx([0.5625, 0.5625])
    assert {one.key for one in within_cut(fused, 0.75)} == {1, 2}


def test_where_nothing_is_similar_nothing_is_near() -> None:
    assert within_cut(fuse([ranking("a", (1, -0.2), (2, -0.3))]), 0.75) == ()


@given(rankings())
def test_every_case_found_comes_once_with_its_finders(given_rankings: list[Ranking]) -> None:
    fused = {one.key: one for one in fuse(given_rankings)}
    assert set(fused) == {key for one in given_rankings for key in one.keys}
    for key, one in fused.items():
        assert one.retrievers == tuple(r.retriever for r in given_rankings if key in r.keys)


@given(rankings(), st.randoms())
def test_the_order_of_the_retrievers_changes_no_order_of_cases(
    given_rankings: list[Ranking], random: object
) -> None:
    shuffled = list(given_rankings)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    plain = [(one.key, one.score, one.similarity, one.nearness) for one in fuse(given_rankings)]
    assert [(o.key, o.score, o.similarity, o.nearness) for o in fuse(shuffled)] == plain


@given(rankings())
def test_scores_fall_and_similarities_stay_between_those_of_the_finders(
    given_rankings: list[Ranking],
) -> None:
    fused = fuse(given_rankings)
    assert all(a.score >= b.score for a, b in itertools.pairwise(fused))
    for one in fused:
        told = [
            similarity
            for r in given_rankings
            for key, similarity in zip(r.keys, r.similarities, strict=True)
            if key == one.key
        ]
        assert min(told) - 1e-12 <= one.similarity <= max(told) + 1e-12


@given(rankings(), st.floats(0, 1))
def test_the_cut_never_takes_the_only_retrievers_nearest(
    given_rankings: list[Ranking], cut: float
) -> None:
    alone = [one for one in given_rankings if one.similarities and one.similarities[0] > 0][:1]
    kept = within_cut(fuse(alone), cut)
    assert [one.key for one in kept][:1] == [one.keys[0] for one in alone]
    assert all(math.isfinite(one.nearness) for one in kept)
