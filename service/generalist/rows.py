"""Prompts of different lengths through the language model at once.

What is known of a prompt stands to the left, what is new to the right, each padded to the longest
of the rows. No token attends to padding, and every token has its own prompt's position, so a row
gives what it gives alone but for the last bits of float32.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache, DynamicLayer

from service.generalist.prefixes import KeysAndValues

MOST_PADDED = 1.5  # the new tokens of rows computed together, the most by the fewest


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """The new tokens of a prompt, (tokens, width), and the keys and values of those before."""

    new: Tensor
    states: KeysAndValues = ()

    @property
    def known(self) -> int:
        """How many tokens stand before the new ones."""
        return self.states[0][0].shape[2] if self.states else 0


@dataclass(frozen=True, slots=True, eq=False)
class RowRead:
    """The scores (vocabulary,) of the token after a row, and the keys and values of all of it.

    Scores are float64, so that the softmax over a few of them keeps small differences.
    """

    scores: Tensor
    states: KeysAndValues


def alike(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The places of the lengths, in groups that are worth padding to one."""
    group: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and lengths[place] > MOST_PADDED * lengths[group[0]]:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def read(language_model: Any, rows: Sequence[Row]) -> list[RowRead]:
    """What follows each of the rows, computed in one pass of a Llama with a head."""
    if len(rows) == 1:
        return [_read_alone(language_model, rows[0])]
    past = _going_on_from(_padded_states(rows))
    hidden = language_model.model(
        inputs_embeds=pad_sequence([row.new for row in rows], batch_first=True),
        attention_mask=_visible(rows),
        position_ids=_positions(rows),
        past_key_values=past,
        use_cache=True,
    ).last_hidden_state
    last = [len(row.new) - 1 for row in rows]
    scores = language_model.lm_head(hidden[torch.arange(len(rows)), last]).double()
    before = max(row.known for row in rows)
    return [
        RowRead(scores[place], _of_row(past, place, before - row.known, before + len(row.new)))
        for place, row in enumerate(rows)
    ]


def _read_alone(language_model: Any, row: Row) -> RowRead:
    past = _going_on_from(row.states)
    output = language_model(
        inputs_embeds=row.new[None], past_key_values=past, use_cache=True, logits_to_keep=1
    )
    states = tuple((layer.keys, layer.values) for layer in past.layers)
    return RowRead(output.logits[0, -1].double(), states)


def _going_on_from(states: KeysAndValues) -> DynamicCache:
    """A cache of what is known: the next tokens copy it once, where its constructor copies too."""
    past = DynamicCache()
    for keys, values in states:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        past.layers.append(layer)
    return past


def _padded_states(rows: Sequence[Row]) -> KeysAndValues:
    """(rows, heads, longest, head width) per layer, zeros before what is known of a row."""
    longest = max(row.known for row in rows)
    if not longest:
        return ()
    layers = len(next(row.states for row in rows if row.states))
    return tuple(
        (_to_the_right(rows, layer, 0, longest), _to_the_right(rows, layer, 1, longest))
        for layer in range(layers)
    )


def _to_the_right(rows: Sequence[Row], layer: int, part: int, longest: int) -> Tensor:
    one = next(row.states[layer][part] for row in rows if row.states)
    padded = one.new_zeros(len(rows), one.shape[1], longest, one.shape[3])
    for place, row in enumerate(rows):
        if row.states:
            padded[place, :, longest - row.known :] = row.states[layer][part][0]
    return padded


def _visible(rows: Sequence[Row]) -> Tensor:
    """(rows, 1, new, known + new), added to the scores: a token sees its row's up to itself.

    Numbers, because not every attention that a checkpoint may ask for understands truth values.
    """
    before, most = max(row.known for row in rows), max(len(row.new) for row in rows)
    seen = torch.arange(before + most)
    first = torch.tensor([before - row.known for row in rows])
    itself = before + torch.arange(most)
    visible = (seen >= first[:, None, None]) & (seen <= itself[:, None])
    return torch.where(visible, 0.0, -torch.inf)[:, None]


def _positions(rows: Sequence[Row]) -> Tensor:
    most = max(len(row.new) for row in rows)
    return torch.tensor([row.known for row in rows])[:, None] + torch.arange(most)


def _of_row(past: DynamicCache, place: int, first: int, end: int) -> KeysAndValues:
    """One row's keys and values, as views of all rows'."""
    return tuple(
        (layer.keys[place : place + 1, :, first:end], layer.values[place : place + 1, :, first:end])
        for layer in past.layers
    )
