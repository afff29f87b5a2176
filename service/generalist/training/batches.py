"""Questions as padded token batches, and what the model makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from service.generalist.architecture import IMAGENET_MEAN, IMAGENET_STD, InternVLChat
from service.generalist.chat import END_OF_TURN, chat_ids
from service.generalist.training.examples import Question

LONG_ANSWER_TOKENS = 8
LONG_ANSWER_WEIGHT = 3.0


@dataclass(frozen=True, slots=True)
class Rows:
    """Token sequences and the row of the image each is about; `starts` are those of the answers."""

    ids: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    images: tuple[int, ...]

    def chosen(self, places: Sequence[int]) -> "Rows":
        return Rows(
            tuple(self.ids[place] for place in places),
            tuple(self.starts[place] for place in places),
            tuple(self.images[place] for place in places),
        )


def rows(questions: Sequence[Question], tokenizer: Any, image_tokens: int) -> Rows:
    """The questions as the model reads them, prompt and answer."""
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    ids, starts = [], []
    for question in questions:
        prompt = chat_ids(tokenizer, question.text, image_tokens)
        answer = tokenizer.encode(question.answer, add_special_tokens=False)
        ids.append((*prompt, *answer, end))
        starts.append(len(prompt))
    return Rows(tuple(ids), tuple(starts), tuple(one.image for one in questions))


def by_length(questions: Rows, groups: int) -> list[Rows]:
    """The same in a few groups of similar length, so that little is padded."""
    order = np.argsort([len(ids) for ids in questions.ids], kind="stable")
    return [questions.chosen(part.tolist()) for part in np.array_split(order, groups) if len(part)]


def hidden(model: InternVLChat, features: Tensor, questions: Rows) -> Tensor:
    """(rows, tokens, width): the last hidden states, rows padded to the right.

    Attention looks back only, so padding needs no mask.
    """
    longest = max(map(len, questions.ids))
    ids = torch.zeros((len(questions.ids), longest), dtype=torch.long, device=features.device)
    for place, row in enumerate(questions.ids):
        ids[place, : len(row)] = torch.tensor(row, device=features.device)
    embeddings = model.embed(ids, features[list(questions.images)])
    states: Tensor = model.language_model.model(
        inputs_embeds=embeddings, use_cache=False
    ).last_hidden_state
    return states


def answer_loss(model: InternVLChat, features: Tensor, questions: Rows) -> tuple[Tensor, int]:
    """Sum over the questions of the mean loss of the answer's tokens, and how many are all right.

    Long answers count more: each of their tokens would otherwise weigh next to nothing.
    """
    states = hidden(model, features, questions)
    places = [
        (row, at)
        for row, (ids, start) in enumerate(zip(questions.ids, questions.starts, strict=True))
        for at in range(start, len(ids))
    ]
    device = features.device
    at_row = torch.tensor([row for row, _ in places], device=device)
    at_token = torch.tensor([at for _, at in places], device=device)
    logits = model.language_model.lm_head(states[at_row, at_token - 1]).float()
    truth = torch.tensor([questions.ids[row][at] for row, at in places], device=device)
    losses = functional.cross_entropy(logits, truth, reduction="none")
    lengths = torch.bincount(at_row, minlength=len(questions.ids)).float()
    weights = 1 + (LONG_ANSWER_WEIGHT - 1) * (lengths > LONG_ANSWER_TOKENS)
    wrong = torch.zeros_like(lengths).index_add(0, at_row, (logits.argmax(1) != truth).float())
    return (losses * (weights / lengths)[at_row]).sum(), int((wrong == 0).sum())


def next_scores(model: InternVLChat, features: Tensor, questions: Rows) -> Tensor:
    """(rows, vocabulary): the scores of the token after each row."""
    states = hidden(model, features, questions)
    last = torch.tensor([len(ids) - 1 for ids in questions.ids], device=features.device)
    each = torch.arange(len(last), device=features.device)
    scores: Tensor = model.language_model.lm_head(states[each, last])
    return scores


def place_of(model: nn.Module) -> torch.device:
    """Where a model's weights are, and so where it computes."""
    return next(model.parameters()).device


def fastest() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def at_half_precision(model: nn.Module) -> torch.autocast:
    """bfloat16 where it is safe, on whatever the model is on."""
    return torch.autocast(place_of(model).type, torch.bfloat16)


def pixel_values(images: NDArray[np.uint8]) -> Tensor:
    """(n, size, size, 3) uint8 → (n, 3, size, size) float32, normalised as in `preprocess`."""
    scaled = (images.astype(np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    return torch.from_numpy(scaled).permute(0, 3, 1, 2).contiguous()
