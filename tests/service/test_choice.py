"""Constrained decoding over choices, against enumeration of every way to spell them."""

import math
from collections.abc import Mapping
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import UnparsableAnswer
from service.generalist.choice import END, Distribution, Step, best, continuations, probabilities

LABELS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=5, unique=True)
TOKENS = ["a", "b", "ab", "ba", "aa", "abb"]


def model_of(seed: int, tokens: list[str]) -> Step:
    """A language model whose distribution after a text is arbitrary but fixed."""

    async def step(text: str) -> Distribution:
        weights = {t: 1 + crc32(f"{seed} {text} {t}".encode()) % 97 for t in [*tokens, END]}
        return {t: w / sum(weights.values()) for t, w in weights.items()}

    return step


async def enumerated(choices: list[str], step: Step, text: str = "") -> dict[str, float]:
    """The probability of every choice, spelling by spelling."""
    allowed = allowed_tokens(choices, text, await step(text))
    found = dict.fromkeys(choices, 0.0)
    for token, weight in allowed.items():
        share = weight / sum(allowed.values())
        if token == END:
            found[text] += share
            continue
        for choice, mass in (await enumerated(choices, step, text + token)).items():
            found[choice] += share * mass
    return found


def allowed_tokens(choices: list[str], text: str, given: Distribution) -> Mapping[str, float]:
    def fits(token: str) -> bool:
        return any(choice.startswith(text + token) for choice in choices)

    allowed = {token: weight for token, weight in given.items() if token and fits(token)}
    return {**allowed, END: given[END]} if text in choices else allowed


@given(choices=LABELS, seed=st.integers(0, 1000))
async def test_equals_the_enumeration_of_every_spelling(choices: list[str], seed: int) -> None:
    step = model_of(seed, TOKENS)

    computed = await probabilities(choices, step, negligible=0.0)

    expected = await enumerated(choices, step)
    assert computed == pytest.approx([expected[choice] for choice in choices])


@given(choices=LABELS, seed=st.integers(0, 1000))
async def test_sums_to_one_however_much_is_neglected(choices: list[str], seed: int) -> None:
    computed = await probabilities(choices, model_of(seed, TOKENS), negligible=0.2)

    assert math.isclose(sum(computed), 1.0)
    assert min(computed) >= 0.0


@given(choices=LABELS, seed=st.integers(0, 1000), data=st.data())
async def test_does_not_depend_on_the_order_of_the_choices(
    choices: list[str], seed: int, data: st.DataObject
) -> None:
    step = model_of(seed, TOKENS)
    shuffled = data.draw(st.permutations(choices))

    one, other = await probabilities(choices, step), await probabilities(shuffled, step)

    assert dict(zip(choices, one, strict=True)) == pytest.approx(
        dict(zip(shuffled, other, strict=True))
    )


async def test_asks_once_when_first_tokens_decide() -> None:
    asked: list[str] = []

    async def step(text: str) -> Distribution:
        asked.append(text)
        return {"nor": 0.6, "pneu": 0.2, "never": 0.2}

    assert await probabilities(("normal", "pneumonia"), step) == pytest.approx((0.75, 0.25))
    assert asked == [""]


async def test_asks_further_where_labels_share_a_beginning() -> None:
    distributions = {"": {"no": 0.5, "mass": 0.5}, "no": {"rmal": 0.9, "dule": 0.1}}

    async def step(text: str) -> Distribution:
        return distributions[text]

    computed = await probabilities(("normal", "nodule", "mass"), step)

    assert computed == pytest.approx((0.45, 0.05, 0.5))


async def test_a_label_that_begins_another_gets_what_the_continuation_leaves() -> None:
    async def step(text: str) -> Distribution:
        return {"": {"normal": 1.0}, "normal": {" variant": 0.3, ".": 0.1}}[text]

    assert await probabilities(("normal", "normal variant"), step) == pytest.approx((0.7, 0.3))


async def test_a_single_choice_is_certain_without_asking() -> None:
    async def step(text: str) -> Distribution:
        raise AssertionError(text)

    assert await probabilities(("normal",), step) == (1.0,)


async def test_refuses_an_answer_outside_the_choices() -> None:
    async def step(text: str) -> Distribution:
        return {"Sorry": 1.0}

    with pytest.raises(UnparsableAnswer, match="Sorry"):
        await probabilities(("normal", "pneumonia"), step)


@pytest.mark.parametrize("choices", [(), ("",), ("a", "a")])
async def test_refuses_choices_that_cannot_be_told_apart(choices: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="distinct"):
        await probabilities(choices, model_of(0, TOKENS))


def test_the_earlier_choice_wins_a_tie() -> None:
    assert best(("b", "a"), (0.5, 0.5)) == "b"


def test_continuations_are_what_may_follow() -> None:
    assert continuations(("normal", "nodule", "mass", "no"), "no") == ("rmal", "dule", END)
