"""Examples as padded token batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.generalist.architecture import IMAGENET_MEAN, IMAGENET_STD
from service.generalist.chat import END_OF_TURN, chat_ids

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of one image of the batch, and the answer to learn."""

    image: int
    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """(questions, tokens) each, padded to the right; labels are -100 where nothing is learned."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    image_of: Tensor  # (questions,) row of the image each question is about


def tokens(questions: Sequence[Question], tokenizer: Any, image_tokens: int) -> TokenBatch:
    """The questions as the model reads them, prompt and answer; only the answer is learned."""
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    rows, starts = [], []
    for question in questions:
        prompt = chat_ids(tokenizer, question.text, image_tokens)
        answer = tokenizer.encode(question.answer, add_special_tokens=False)
        rows.append([*prompt, *answer, end])
        starts.append(len(prompt))
    return _padded(rows, starts, [q.image for q in questions], tokenizer.pad_token_id)


def _padded(rows: list[list[int]], starts: list[int], images: list[int], pad: int) -> TokenBatch:
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for place, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
        labels[place, start : len(row)] = ids[place, start : len(row)]
    return TokenBatch(ids, mask, labels, torch.tensor(images))


def pixel_values(images: NDArray[np.uint8]) -> Tensor:
    """(n, size, size, 3) uint8 → (n, 3, size, size) float32, normalised as in `preprocess`."""
    scaled = (images.astype(np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    return torch.from_numpy(scaled).permute(0, 3, 1, 2).contiguous()


def augmented(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Shifted, brightened and, half of the time, mirrored: what another exposure might show."""
    return np.stack([_augment(image, rng) for image in images])


def _augment(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    reach = max(1, len(image) // 12)
    down, right = (int(shift) for shift in rng.integers(-reach, reach + 1, size=2))
    moved = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    size = len(image)
    moved = moved[reach + down : reach + down + size, reach + right : reach + right + size]
    if rng.random() < 0.5:
        moved = moved[:, ::-1]
    contrast, brightness = rng.uniform(0.75, 1.3), rng.uniform(-25, 25)
    bright = (moved.astype(np.float32) - 128) * contrast + 128 + brightness
    if rng.random() < 0.3:
        bright += rng.normal(0, rng.uniform(2, 12), size=bright.shape[:2])[..., None]
    return bright.clip(0, 255).astype(np.uint8)
