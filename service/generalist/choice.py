"""A probability per choice from next-token distributions: constrained decoding, computed.

A state is the text emitted so far. A token is allowed when the text with it is the beginning of
some permitted answer; the allowed tokens share the whole probability. What a token carries goes
on to the next state, or to the answer that is then the only one possible. A choice is written to
its end as soon as the text identifies it. Ways of spelling the same text meet in one state, so no
text is asked for twice. One of several choices usually takes one step; subsets of n choices are
up to 2^n answers, so the likeliest states are asked for first, and only while it matters.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from service import spans
from service.domain import Completion, Prompt
from service.errors import UnparsableAnswer

END = ""  # the token text that stands for the end of the answer
SEPARATOR = ", "
NEGLIGIBLE = 1e-3
MOST_STEPS = 64
STATES_AT_ONCE = 8

Distribution = Mapping[str, float]  # probability by the text of the next token
Step = Callable[[str], Awaitable[Distribution]]
Places = tuple[int, ...]  # an answer: the places of the choices it names, ascending


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to understand a text: what it still lacks of a choice, and the choices it names.

    `lacks` is END where the text may end as it is. `names` includes the choice that is being
    written, once a character of it or of the separator before it stands.
    """

    names: Places
    lacks: str
    may_go_on: bool  # when nothing lacks any more, another choice can follow


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers that are permitted: one of the choices, or any of them, joined in their order.

    With `several`, `nothing`, one of the choices, only stands alone, and no answer is empty. A
    text that reads as two answers, because a choice holds the separator, is that of fewer choices.
    Raises ValueError for choices that are none, empty or given twice, or do not hold `nothing`.
    """

    choices: tuple[str, ...]
    several: bool = False
    nothing: str | None = None

    def __post_init__(self) -> None:
        if not self.choices or END in self.choices or len(set(self.choices)) < len(self.choices):
            raise ValueError(f"choices must be given, not empty and distinct: {self.choices}")
        if self.nothing is not None and self.nothing not in self.choices:
            raise ValueError(f"'{self.nothing}' is none of the choices {self.choices}")

    def readings(self, text: str) -> Iterator[Reading]:
        """Every way in which the text begins a permitted answer; none where it does not."""
        return self._read(text, ())

    def permits(self, text: str) -> bool:
        """Whether some answer begins with the text."""
        return any(True for _ in self.readings(text))

    def whole(self, text: str) -> Places | None:
        """The answer that the text is; None where it is none, or only the beginning of one."""
        ended = [reading.names for reading in self.readings(text) if reading.lacks == END]
        return min(ended, key=_fewest_first, default=None)

    def following(self, text: str) -> tuple[str, ...]:
        """What may come next, up to the end of a choice; END where the text is an answer."""
        return tuple(dict.fromkeys(reading.lacks for reading in self.readings(text)))

    def offered(self, text: str) -> tuple[str, ...]:
        """What may come next for a server's constraint on one token, which may end a choice and
        separate it from the next in one: at most twice as many as there are choices, and END.
        """
        offers: dict[str, None] = {}
        for reading in self.readings(text):
            offers[reading.lacks] = None
            if reading.lacks != END and reading.may_go_on:
                offers[reading.lacks + SEPARATOR] = None
        return tuple(offers)

    def completed(self, text: str) -> str:
        """The text with the rest of the choice that is the only one possible."""
        rests = self.following(text)
        return text + rests[0] if len(rests) == 1 else text

    def _read(self, text: str, named: Places) -> Iterator[Reading]:
        if named and not text:
            yield Reading(named, END, bool(self._after(named)))
        for place in self._after(named):
            names = (*named, place)
            piece = SEPARATOR + self.choices[place] if named else self.choices[place]
            if text.startswith(piece):
                yield from self._read(text[len(piece) :], names)
            elif piece.startswith(text):
                standing = named if named and not text else names
                yield Reading(standing, piece[len(text) :], bool(self._after(names)))

    def _after(self, named: Places) -> Sequence[int]:
        if not named:
            return range(len(self.choices))
        if not self.several or self.choices[named[-1]] == self.nothing:
            return ()
        rest = range(named[-1] + 1, len(self.choices))
        return [place for place in rest if self.choices[place] != self.nothing]


def permitted(prompt: Prompt, spell: Callable[[str], str] = str) -> Answers:
    """The answers that a prompt with choices permits, each choice as `spell` writes it."""
    nothing = None if prompt.nothing is None else spell(prompt.nothing)
    return Answers(tuple(map(spell, prompt.choices)), prompt.several, nothing)


async def weigh(
    answers: Answers,
    step: Step,
    *,
    negligible: float = NEGLIGIBLE,
    most_steps: int = MOST_STEPS,
    at_once: int = STATES_AT_ONCE,
    first_came: Callable[[], None] | None = None,
) -> dict[Places, float]:
    """The probability of the answers, adding up to 1; those not found have next to none.

    `step` gives the distribution after an emitted text, for up to `at_once` texts concurrently.
    Tokens it leaves out are impossible; where it does not name END, ending has the probability
    that no listed continuation takes. The search ends when the states not asked for hold at most
    `negligible` together, or after `most_steps`. What they hold goes to the answer that stands in
    them, as if it ended with the choice that is being written; where more than one may be, they
    share evenly. So no probability of a choice is off by more than what was not asked for.

    `first_came` is called when the first distributions are there: they are timed from now, unless
    by the caller. Raises UnparsableAnswer when no listed token continues an answer.
    """
    search = _Search(answers)
    search.arrive("", 1.0)
    first_came = first_came or spans.until(spans.FIRST_TOKEN)
    while texts := search.likeliest(at_once, negligible, most_steps):
        for text, distribution in zip(texts, await _together(step, texts), strict=True):
            search.expand(text, distribution)
        first_came()
    return search.settled()


def completion(prompt: Prompt, weights: Mapping[Places, float]) -> Completion:
    """The most probable answer, and the probability of every choice to be part of the answer.

    Of equally probable answers the one of fewer choices wins, then that of the earlier ones.
    """
    best = min(weights, key=lambda names: (-weights[names], _fewest_first(names)))
    marginals = [0.0] * len(prompt.choices)
    for names, weight in weights.items():
        for place in names:
            marginals[place] += weight
    text = SEPARATOR.join(prompt.choices[place] for place in best)
    return Completion(text, tuple(min(1.0, marginal) for marginal in marginals))


class _Search:
    """The states met: those asked for with where they lead, the others with what they hold."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._decided: dict[Places, float] = {}
        self._waiting: dict[str, float] = {}
        self._asked: dict[str, dict[str, float]] = {}

    def arrive(self, text: str, mass: float) -> None:
        """Mass on its way: it waits in a state not asked for and passes through the others."""
        text = self._answers.completed(text)
        if text in self._asked:
            self._pass_on(text, mass)
        elif self._answers.following(text) == (END,):
            self._decide(text, mass)
        else:
            self._waiting[text] = self._waiting.get(text, 0.0) + mass

    def expand(self, text: str, distribution: Distribution) -> None:
        self._asked[text] = _allowed(self._answers, text, distribution)
        self._pass_on(text, self._waiting.pop(text))

    def likeliest(self, count: int, negligible: float, most_steps: int) -> list[str]:
        """The states to ask for next; none when the rest does not matter."""
        unknown, texts = sum(self._waiting.values()), list[str]()
        for text in sorted(self._waiting, key=lambda t: (-self._waiting[t], len(t), t))[:count]:
            if unknown > negligible and len(self._asked) + len(texts) < most_steps:
                texts.append(text)
                unknown -= self._waiting[text]
        return texts

    def settled(self) -> dict[Places, float]:
        """The probability of every answer, what still waits given to those that stand there."""
        settled = dict(self._decided)
        for text, mass in self._waiting.items():
            standing = {reading.names for reading in self._answers.readings(text)}
            for names in standing:
                settled[names] = settled.get(names, 0.0) + mass / len(standing)
        return settled

    def _pass_on(self, text: str, mass: float) -> None:
        for token, share in self._asked[text].items():
            if token == END:
                self._decide(text, mass * share)
            else:
                self.arrive(text + token, mass * share)

    def _decide(self, text: str, mass: float) -> None:
        if (names := self._answers.whole(text)) is not None:
            self._decided[names] = self._decided.get(names, 0.0) + mass


async def _together(step: Step, texts: Sequence[str]) -> list[Distribution]:
    """The first failure ends them all."""
    if len(texts) == 1:
        return [await step(texts[0])]
    tasks = [asyncio.ensure_future(step(text)) for text in texts]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _allowed(answers: Answers, text: str, distribution: Distribution) -> dict[str, float]:
    """The allowed tokens with shares of 1; END among them where the text is an answer."""
    weights = {
        token: weight
        for token, weight in distribution.items()
        if token != END and weight > 0.0 and answers.permits(text + token)
    }
    if answers.whole(text) is not None:
        weights[END] = distribution.get(END, max(0.0, 1.0 - sum(weights.values())))
    total = sum(weights.values())
    if total <= 0.0:
        raise UnparsableAnswer(
            f"after '{text}' the generalist continues with {list(distribution)[:5]}, "
            f"which no answer among {list(answers.choices)} does"
        )
    return {token: weight / total for token, weight in weights.items()}


def _fewest_first(names: Places) -> tuple[int, Places]:
    return len(names), names
