"""One probability per choice from next-token distributions: constrained decoding, computed.

A state is the text emitted so far. A token is allowed when the text with it is the beginning of
some choice; the allowed tokens share the whole probability. What a token carries goes to the
choice that is then the only one possible, or on to the next state. Ways of spelling the same text
meet in one state, so no text is asked for twice. Usually one step decides.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from service.errors import UnparsableAnswer

END = ""  # the token text that stands for the end of the answer

Distribution = Mapping[str, float]  # probability by the text of the next token
Step = Callable[[str], Awaitable[Distribution]]


async def probabilities(
    choices: Sequence[str], step: Step, *, negligible: float = 1e-3
) -> tuple[float, ...]:
    """The probability of each choice, in their order; their sum is 1.

    `step` gives the distribution after an emitted text. Tokens it leaves out are impossible; where
    it does not name END, ending has the probability that no listed continuation takes. A state of
    at most `negligible` probability is not asked for: the choices still possible share it evenly.
    Raises UnparsableAnswer when no listed token begins a choice, ValueError when the choices are
    none, empty or given twice.
    """
    _demand_distinct(choices)
    decided = dict.fromkeys(choices, 0.0)
    states = {"": 1.0}
    while states:
        text = min(states, key=_shortest_first)
        mass, possible = states.pop(text), [c for c in choices if c.startswith(text)]
        if len(possible) == 1 or mass <= negligible:
            _share(mass, possible, decided)
            continue
        for token, share in _allowed(text, possible, await step(text)).items():
            target = decided if token == END else states
            target[text + token] = target.get(text + token, 0.0) + mass * share
    return tuple(decided[choice] for choice in choices)


def best(choices: Sequence[str], weights: Sequence[float]) -> str:
    """The most probable choice; the earlier one wins a tie."""
    return choices[max(range(len(choices)), key=weights.__getitem__)]


def continuations(choices: Sequence[str], emitted: str) -> tuple[str, ...]:
    """What may still follow an emitted text, in the choices' order; END where one is whole."""
    return tuple(c.removeprefix(emitted) for c in choices if c.startswith(emitted))


def _demand_distinct(choices: Sequence[str]) -> None:
    if not choices or END in choices or len(set(choices)) < len(choices):
        raise ValueError(f"choices must be given, not empty and distinct: {list(choices)}")


def _shortest_first(text: str) -> tuple[int, str]:
    """No token is empty, so nothing flows back to a shorter text: each state is met complete."""
    return len(text), text


def _share(mass: float, possible: Sequence[str], decided: dict[str, float]) -> None:
    for choice in possible:
        decided[choice] += mass / len(possible)


def _allowed(text: str, possible: Sequence[str], distribution: Distribution) -> dict[str, float]:
    """The allowed tokens with shares of 1; END among them where the text is itself a choice."""
    weights = {
        token: weight
        for token, weight in distribution.items()
        if token != END and any(choice.startswith(text + token) for choice in possible)
    }
    if text in possible:
        weights[END] = distribution.get(END, max(0.0, 1.0 - sum(weights.values())))
    total = sum(weights.values())
    if total <= 0.0:
        raise UnparsableAnswer(
            f"after '{text}' the generalist continues with {list(distribution)[:5]}, "
            f"which none of {list(possible)} does"
        )
    return {token: weight / total for token, weight in weights.items()}
