"""The probability of every label from the model being trained, as the engines compute it.

The engines ask step by step (`service.generalist.choice`); here all steps of a whole batch are
one forward: every answer that a task permits is known beforehand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from service.generalist.chat import END_OF_TURN
from specialists.task import Task, TaskKind

MOST_LABELS = 6
"""Of a multi-label task whose first look is told in training: it has 2^n answers."""

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """The permitted answers of a task as tokens, and the beginnings where they part."""

    task: Task
    whole: tuple[tuple[tuple[int, ...], Ids], ...]  # labels named, tokens with the end
    partings: tuple[Ids, ...]
    following: tuple[tuple[int, ...], ...]  # what may come next, per parting


def permitted(task: Task) -> list[tuple[int, ...]]:
    """The answers a task permits, as places of labels."""
    places = range(len(task.labels))
    if task.kind is TaskKind.SINGLE_LABEL:
        return [(place,) for place in places]
    nothing = task.label_names.index(task.nothing_found) if task.nothing_found else None
    some = [place for place in places if place != nothing]
    subsets = [s for count in range(1, len(some) + 1) for s in combinations(some, count)]
    return subsets if nothing is None else [(nothing,), *subsets]


def answers(task: Task, tokenizer: Any) -> Answers:
    """The answers of a single-label task, or of a multi-label task of few labels."""
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    whole = []
    for places in permitted(task):
        text = ", ".join(task.label_names[place] for place in places)
        ids = tokenizer.encode(text, add_special_tokens=False)
        whole.append((places, (*ids, end)))
    nexts: dict[Ids, set[int]] = {}
    for _, ids in whole:
        for length in range(len(ids)):
            nexts.setdefault(ids[:length], set()).add(ids[length])
    partings = tuple(begun for begun, following in nexts.items() if len(following) > 1)
    following = tuple(tuple(sorted(nexts[begun])) for begun in partings)
    return Answers(task, tuple(whole), partings, following)


def can_read(task: Task) -> bool:
    return task.kind is TaskKind.SINGLE_LABEL or len(task.labels) <= MOST_LABELS


def probabilities(read: Answers, scores: Sequence[Tensor]) -> tuple[float, ...]:
    """Per label, from the scores (vocabulary,) of the token after each parting, in their order."""
    shares: dict[tuple[Ids, int], float] = {}
    for begun, following, row in zip(read.partings, read.following, scores, strict=True):
        allowed = torch.softmax(row[list(following)].float(), 0).tolist()
        shares |= {(begun, token): p for token, p in zip(following, allowed, strict=True)}
    found = [0.0] * len(read.task.labels)
    for places, ids in read.whole:
        probability = 1.0
        for length in range(len(ids)):
            probability *= shares.get((ids[:length], ids[length]), 1.0)
        for place in places:
            found[place] += probability
    return tuple(found)
