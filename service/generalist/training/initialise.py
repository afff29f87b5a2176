"""A vision tower that starts out looking at images, not at noise.

A vision transformer trained from scratch on a few thousand images spends most of its training on
learning that neighbouring pixels belong together. Three starting values give it that: patches
are seen in cosine waves (as in JPEG), places are sines of row and column, and attention begins
as an average over near places ("mimetic initialisation", Trockman and Kolter, 2023).
"""

import math
import re
from typing import Any, cast

import torch
from torch import Tensor

from service.generalist.architecture import (
    InternVLChat,
    VisionAttention,
    VisionEmbeddings,
    VisionLayer,
)

NUMBER_WAVES = 6
_PERCENT = re.compile(r" ?(\d{1,3})%[,.]?")

POSITION_SCALE = 0.5
LONGEST_WAVE = 100.0
# Shares of identity and of noise in query·key and in value·projection, as in the paper.
QUERY_KEY = (0.7, 0.7)
VALUE_PROJECTION = (-0.4, 0.4)


@torch.no_grad()
def know_numbers(model: InternVLChat, tokenizer: Any) -> None:
    """Let the embeddings of percentages begin as smooth functions of their value.

    Evidence is full of them, and a token says nothing of its digits: without this, that 92 % lies
    between 91 % and 93 % has to be learned for every number anew.
    """
    table = model.language_model.get_input_embeddings().weight
    spread = float(table.std())
    numbers = {
        place: int(found[1]) / 100
        for text, place in tokenizer.get_vocab().items()
        if (found := _PERCENT.fullmatch(tokenizer.convert_tokens_to_string([text])))
    }
    if not numbers:
        return
    value = torch.tensor(list(numbers.values())).clamp(0.005, 0.995)
    waves = [torch.cos(math.pi * k * value) for k in range(1, NUMBER_WAVES + 1)]
    known = torch.stack([torch.logit(value) / 2, *waves], dim=1)
    meaning = known @ torch.randn(known.shape[1], table.shape[1]) / math.sqrt(known.shape[1])
    rows = torch.tensor(list(numbers))
    table[rows] = 0.3 * table[rows] + spread * meaning / meaning.std()


@torch.no_grad()
def initialise(model: InternVLChat) -> None:
    """Set the vision tower's starting values; draws from torch's random numbers."""
    vision = model.vision_model
    _see_waves(vision.embeddings)
    _know_places(vision.embeddings)
    for layer in vision.encoder.layers:
        _look_nearby(cast("VisionLayer", layer).attn)


def _see_waves(embeddings: VisionEmbeddings) -> None:
    """The patch embedding as two-dimensional cosines, the slowest first, grey before colours."""
    weight = embeddings.patch_embedding.weight
    patch = weight.shape[-1]
    ticks = torch.arange(patch) + 0.5
    waves = torch.stack([torch.cos(math.pi * ticks * k / patch) for k in range(patch)])
    waves = waves / waves.norm(dim=1, keepdim=True)
    colours = torch.tensor([[1.0, 1, 1], [1, -1, 0], [1, 1, -2]])
    colours = colours / colours.norm(dim=1, keepdim=True)
    slowest_first = sorted((i + j, i, j) for i in range(patch) for j in range(patch))
    filters = [
        torch.einsum("c,y,x->cyx", colour, waves[i], waves[j])
        for _, i, j in slowest_first
        for colour in colours
    ][: len(weight)]
    weight[: len(filters)] = torch.stack(filters)


def _know_places(embeddings: VisionEmbeddings) -> None:
    places = embeddings.position_embedding
    side, quarter = math.isqrt(places.shape[1] - 1), places.shape[2] // 4
    frequency = LONGEST_WAVE ** -(torch.arange(quarter) / quarter)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequency for axis in (rows, columns)]
    waves = [wave for angle in angles for wave in (angle.sin(), angle.cos())]
    places.zero_()
    places[0, 1:, : 4 * quarter] = torch.cat(waves, dim=1) * POSITION_SCALE


def _look_nearby(attention: VisionAttention) -> None:
    width = attention.proj.out_features
    head = width // attention.heads
    query, key, value = attention.qkv.weight.chunk(3)
    for start in range(0, width, head):
        left, right = _factors(width, *QUERY_KEY)
        query[start : start + head] = left[:, :head].T
        key[start : start + head] = right[:head]
    left, right = _factors(width, *VALUE_PROJECTION)
    value.copy_(right)
    attention.proj.weight.copy_(left)
    attention.proj.bias.zero_()


def _factors(width: int, identity: float, noise: float) -> tuple[Tensor, Tensor]:
    """Two matrices whose product is about that much identity and that much noise."""
    wanted = identity * torch.eye(width) + noise / math.sqrt(width) * torch.randn(width, width)
    left, strengths, right = torch.linalg.svd(wanted)
    roots = strengths.sqrt()
    return left * roots, roots[:, None] * right
