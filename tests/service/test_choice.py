"""Constrained decoding over choices, against enumeration of every way to spell them."""

import asyncio
import math
from dataclasses import dataclass
from itertools import combinations
from zlib import crc32

import pytest
from builders import an_image
from hypothesis import given
from hypothesis import strategies as st

from service.domain import Completion, Prompt
from service.errors import UnparsableAnswer
from service.generalist.choice import (
    END,
    MOST_STEPS,
    SEPARATOR,
    Answers,
    Distribution,
    Step,
    completion,
    permitted,
    weigh,
)

LABELS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=5, unique=True)
# Prefixes of one another, spaces, and now and then the separator itself.
PHRASES = st.lists(st.text("ab ,", min_size=1, max_size=4), min_size=1, max_size=4, unique=True)
TOKENS = ["a", "b", "ab", "ba", "aa", "abb"]
MORE_TOKENS = [*TOKENS, ",", " ", ", ", " a", "a,", "b, a"]
EXACT = {"negligible": 0.0, "most_steps": 10_000}
FINDINGS = ("no finding", "effusion", "nodule", "mass")


def model_of(seed: int, tokens: list[str]) -> Step:
    """A language model whose distribution after a text is arbitrary but fixed."""

    async def step(text: str) -> Distribution:
        weights = {t: 1 + crc32(f"{seed} {text} {t}".encode()) % 97 for t in [*tokens, END]}
        return {t: w / sum(weights.values()) for t, w in weights.items()}

    return step


@dataclass
class Asked:
    """Counts how often a model is asked."""

    steps: int = 0

    def counted(self, step: Step) -> Step:
        async def counting(text: str) -> Distribution:
            self.steps += 1
            return await step(text)

        return counting


async def of_one(choices: tuple[str, ...], step: Step, **bounds: float) -> tuple[float, ...]:
    return (await weighed(Prompt(an_image(), "?", choices), step, **bounds)).probabilities


async def of_several(
    choices: tuple[str, ...], step: Step, nothing: str | None = None, **bounds: float
) -> Completion:
    prompt = Prompt(an_image(), "?", choices, several=True, nothing=nothing)
    return await weighed(prompt, step, **bounds)


async def weighed(prompt: Prompt, step: Step, **bounds: float) -> Completion:
    return completion(prompt, await weigh(permitted(prompt), step, **bounds))  # type: ignore[arg-type]


def subsets(choices: tuple[str, ...], nothing: str | None = None) -> list[tuple[str, ...]]:
    """Every answer of several choices, those of fewer first."""
    some = [choice for choice in choices if choice != nothing]
    found = [s for count in range(1, len(some) + 1) for s in combinations(some, count)]
    return found if nothing is None else [(nothing,), *found]


async def enumerated(
    answers: list[tuple[str, ...]], step: Step, text: str = ""
) -> dict[tuple[str, ...], float]:
    """The probability of every answer, spelling by spelling; of two alike, the first has it."""
    open_ends = {end for answer in answers if (end := next_end(answer, text))}
    if text not in whole(answers) and len(open_ends) == 1:
        return await enumerated(answers, step, open_ends.pop())
    if not open_ends:
        return {whole(answers)[text]: 1.0}
    given = await step(text)
    allowed = {t: w for t, w in given.items() if t and begins(answers, text + t)}
    if text in whole(answers):
        allowed[END] = given[END]
    found = dict.fromkeys(answers, 0.0)
    for token, weight in allowed.items():
        share = weight / sum(allowed.values())
        if token == END:
            found[whole(answers)[text]] += share
            continue
        for answer, mass in (await enumerated(answers, step, text + token)).items():
            found[answer] += share * mass
    return found


def whole(answers: list[tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {SEPARATOR.join(answer): answer for answer in reversed(answers)}


def begins(answers: list[tuple[str, ...]], text: str) -> bool:
    return any(SEPARATOR.join(answer).startswith(text) for answer in answers)


def next_end(answer: tuple[str, ...], text: str) -> str | None:
    """The text up to the end of the next choice; None where the answer has another beginning."""
    ends = [SEPARATOR.join(answer[:count]) for count in range(1, len(answer) + 1)]
    return next((e for e in ends if len(e) > len(text) and e.startswith(text)), None)


@given(choices=LABELS.map(tuple), seed=st.integers(0, 1000))
async def test_equals_the_enumeration_of_every_spelling(
    choices: tuple[str, ...], seed: int
) -> None:
    step = model_of(seed, TOKENS)

    computed = await of_one(choices, step, **EXACT)

    expected = await enumerated([(choice,) for choice in choices], step)
    assert computed == pytest.approx([expected.get((choice,), 0.0) for choice in choices])


@given(choices=PHRASES.map(tuple), seed=st.integers(0, 1000), data=st.data())
async def test_marginals_equal_the_enumeration_of_every_subset(
    choices: tuple[str, ...], seed: int, data: st.DataObject
) -> None:
    step = model_of(seed, MORE_TOKENS)
    nothing = data.draw(st.sampled_from((None, *choices)))

    computed = await of_several(choices, step, nothing, **EXACT)

    expected = await enumerated(subsets(choices, nothing), step)
    for choice, probability in zip(choices, computed.probabilities, strict=True):
        holding = sum(p for answer, p in expected.items() if choice in answer)
        assert probability == pytest.approx(holding)
    assert expected[whole(list(expected))[computed.text]] == pytest.approx(max(expected.values()))


@given(choices=PHRASES.map(tuple), seed=st.integers(0, 1000), steps=st.integers(0, 6))
async def test_what_was_not_asked_for_bounds_the_error(
    choices: tuple[str, ...], seed: int, steps: int
) -> None:
    step, asked = model_of(seed, MORE_TOKENS), Asked()

    bounded = await of_several(choices, asked.counted(step), negligible=0.05, most_steps=steps)

    exact = await of_several(choices, step, **EXACT)
    assert asked.steps <= steps
    unknown = 1.0 if asked.steps == steps else 0.05
    for one, other in zip(bounded.probabilities, exact.probabilities, strict=True):
        assert abs(one - other) <= unknown + 1e-9
    assert bounded.text in whole(subsets(choices))


@given(choices=LABELS.map(tuple), seed=st.integers(0, 1000))
async def test_sums_to_one_however_much_is_neglected(choices: tuple[str, ...], seed: int) -> None:
    computed = await of_one(choices, model_of(seed, TOKENS), negligible=0.2)

    assert math.isclose(sum(computed), 1.0)
    assert min(computed) >= 0.0


@given(choices=LABELS, seed=st.integers(0, 1000), data=st.data())
async def test_does_not_depend_on_the_order_of_the_choices(
    choices: list[str], seed: int, data: st.DataObject
) -> None:
    step = model_of(seed, TOKENS)
    shuffled = data.draw(st.permutations(choices))

    one, other = await of_one(tuple(choices), step), await of_one(tuple(shuffled), step)

    assert dict(zip(choices, one, strict=True)) == pytest.approx(
        dict(zip(shuffled, other, strict=True))
    )


@given(choices=PHRASES.map(tuple), seed=st.integers(0, 1000))
async def test_asking_for_several_states_at_once_changes_nothing(
    choices: tuple[str, ...], seed: int
) -> None:
    step = model_of(seed, MORE_TOKENS)

    one_by_one = await of_several(choices, step, **EXACT, at_once=1)
    at_once = await of_several(choices, step, **EXACT, at_once=8)

    assert at_once.probabilities == pytest.approx(one_by_one.probabilities)


async def test_asks_once_when_first_tokens_decide() -> None:
    asked: list[str] = []

    async def step(text: str) -> Distribution:
        asked.append(text)
        return {"nor": 0.6, "pneu": 0.2, "never": 0.2}

    assert await of_one(("normal", "pneumonia"), step) == pytest.approx((0.75, 0.25))
    assert asked == [""]


async def test_asks_further_where_labels_share_a_beginning() -> None:
    distributions = {"": {"no": 0.5, "mass": 0.5}, "no": {"rmal": 0.9, "dule": 0.1}}

    async def step(text: str) -> Distribution:
        return distributions[text]

    computed = await of_one(("normal", "nodule", "mass"), step)

    assert computed == pytest.approx((0.45, 0.05, 0.5))


async def test_a_label_that_begins_another_gets_what_the_continuation_leaves() -> None:
    async def step(text: str) -> Distribution:
        return {"": {"normal": 1.0}, "normal": {" variant": 0.3, ".": 0.1}}[text]

    assert await of_one(("normal", "normal variant"), step) == pytest.approx((0.7, 0.3))


async def test_a_single_choice_is_certain_without_asking() -> None:
    async def step(text: str) -> Distribution:
        raise AssertionError(text)

    assert await of_one(("normal",), step) == (1.0,)


async def test_refuses_an_answer_outside_the_choices() -> None:
    async def step(text: str) -> Distribution:
        return {"Sorry": 1.0}

    with pytest.raises(UnparsableAnswer, match="Sorry"):
        await of_one(("normal", "pneumonia"), step)


async def test_one_finding_and_the_next_are_asked_for_only_where_they_part() -> None:
    asked: list[str] = []
    distributions = {
        "": {"no": 0.5, "eff": 0.5},
        "no": {" finding": 0.6, "dule": 0.4},
        "effusion": {",": 0.25, END: 0.75},
        "effusion,": {" nod": 0.5, " mass": 0.5},
        "nodule": {", mass": 0.5, END: 0.5},
        "effusion, nodule": {END: 1.0},
    }

    async def step(text: str) -> Distribution:
        asked.append(text)
        return distributions[text]

    found = await of_several(FINDINGS, step, "no finding")

    assert found.text == "effusion"
    assert found.probabilities == pytest.approx((0.3, 0.5, 0.2 + 0.0625, 0.1 + 0.0625))
    assert sorted(asked) == sorted(distributions)


async def test_the_likeliest_states_are_asked_for_first_and_not_for_ever() -> None:
    letters, asked = "abcdefghijklmn", Asked()
    labels = tuple(f"{letter} finding" for letter in letters)

    async def step(text: str) -> Distribution:
        if text.endswith("finding"):
            return {",": 0.5, END: 0.5}
        return {f"{' ' * bool(text)}{letter}": 1 / 14 for letter in letters}

    found = await of_several(labels, asked.counted(step))

    assert asked.steps == MOST_STEPS
    assert found.text in labels
    assert all(0.05 < probability < 0.3 for probability in found.probabilities)


async def test_what_is_not_asked_for_counts_as_it_stands() -> None:
    async def step(text: str) -> Distribution:
        return {"": {"effusion, nod": 0.6, "no": 0.4}}[text]

    found = await of_several(FINDINGS, step, "no finding", most_steps=1)

    assert found.probabilities == pytest.approx((0.2, 0.6, 0.6 + 0.2, 0.0))
    assert found.text == "effusion, nodule"


async def test_the_first_failure_ends_what_is_asked_at_the_same_time() -> None:
    ended: list[str] = []

    async def step(text: str) -> Distribution:
        if text == "":
            return {"effusion": 0.5, "nodule": 0.5}
        if text == "nodule":
            raise UnparsableAnswer("nonsense")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(text)
        return {}

    with pytest.raises(UnparsableAnswer, match="nonsense"):
        await of_several(FINDINGS, step)

    await asyncio.sleep(0)
    assert ended == ["effusion"]


@pytest.mark.parametrize("choices", [(), ("",), ("a", "a")])
def test_refuses_choices_that_cannot_be_told_apart(choices: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="distinct"):
        Answers(choices)


def test_nothing_is_one_of_the_choices() -> None:
    with pytest.raises(ValueError, match="'healthy' is none"):
        Answers(FINDINGS, several=True, nothing="healthy")


def test_the_earlier_choice_wins_a_tie() -> None:
    prompt = Prompt(an_image(), "?", ("b", "a"))

    assert completion(prompt, {(1,): 0.5, (0,): 0.5}).text == "b"


def test_what_may_follow_goes_to_the_end_of_a_choice() -> None:
    answers = Answers(("normal", "nodule", "mass", "no"))

    assert answers.following("no") == ("rmal", "dule", END)
    assert answers.offered("no") == ("rmal", "dule", END)


@pytest.mark.parametrize(
    ("emitted", "following"),
    [
        ("", FINDINGS),
        ("no", (" finding", "dule")),
        ("no finding", (END,)),
        ("effusion", (END, ", nodule", ", mass")),
        ("effusion, no", ("dule",)),
        ("mass", (END,)),
        ("mass, nodule", ()),
        ("effusion, no finding", ()),
    ],
)
def test_what_may_follow_among_several(emitted: str, following: tuple[str, ...]) -> None:
    answers = Answers(FINDINGS, several=True, nothing="no finding")

    assert answers.following(emitted) == following


def test_a_server_is_offered_the_separator_after_a_choice() -> None:
    answers = Answers(FINDINGS, several=True, nothing="no finding")

    assert answers.offered("effusion") == (END, ", nodule", ", nodule, ", ", mass")


def test_a_label_like_two_others_is_one() -> None:
    answers = Answers(("a", "b", "a, b"), several=True)

    assert answers.whole("a, b") == (2,)
    assert answers.whole("a, b, a, b") == (0, 1, 2)
