"""A trunk on a GPU: bfloat16, replayed as CUDA graphs of a few batch sizes in a stream of its own.

A replay is one launch instead of hundreds, which is most of the time of a small batch. Images
travel from pinned memory, so that the copy for one specialist runs beside another's computing.
"""

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from specialists.architectures import EmbeddingClassifier, shortened

BATCHES = (1, 2, 4, 8, 16, 32, 64)
"""A batch between two sizes is filled up to the larger; a larger one is taken in parts."""


def refusal(device: str) -> str:
    """Why torch cannot compute on a device, in one sentence; nothing where it can."""
    try:
        torch.ones(1, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:  # as torch raises them
        return str(error).partition("\n")[0][:200]
    return ""


@dataclass(frozen=True, slots=True)
class Captured:
    """One batch size: what is replayed, and the places where it reads and writes."""

    graph: torch.cuda.CUDAGraph
    pinned: Tensor  # where images wait in the host's memory
    images: Tensor
    embeddings: Tensor


class CapturedTrunk:
    """Several threads may call it; they take turns."""

    def __init__(
        self, model: EmbeddingClassifier, size: int, batches: Sequence[int] = BATCHES
    ) -> None:
        device = next(model.parameters()).device
        half = shortened(copy.deepcopy(model).to(torch.bfloat16))
        self._model = half.to(memory_format=torch.channels_last)
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._turn = threading.Lock()
        self._captured = {batch: self._capture(batch, size, device) for batch in batches}

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """(batch, 3, size, size) float32 → embeddings (batch, dimension), on the GPU."""
        with self._turn, torch.cuda.stream(self._stream):
            parts = [self._replay(part) for part in torch.split(images, max(self._captured))]
            embeddings = torch.cat(parts)
            self._stream.synchronize()
        return embeddings

    def _replay(self, images: Tensor) -> Tensor:
        batch = min(size for size in self._captured if size >= len(images))
        one = self._captured[batch]
        self._stream.synchronize()  # the copy of the part before may still read from there
        one.pinned[: len(images)].copy_(images)
        one.images.copy_(one.pinned, non_blocking=True)
        one.graph.replay()
        return one.embeddings[: len(images)].float()

    @torch.inference_mode()
    def _capture(self, batch: int, size: int, device: torch.device) -> Captured:
        shape, layout = (batch, 3, size, size), torch.channels_last
        pinned = torch.zeros(shape, dtype=torch.bfloat16).to(memory_format=layout).pin_memory()
        images = pinned.to(device)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            for _ in range(3):  # libraries choose and allocate before anything is captured
                self._model.embed(images)
            self._stream.synchronize()
            with torch.cuda.graph(captured, stream=self._stream, capture_error_mode="thread_local"):
                embeddings = self._model.embed(images)
        return Captured(captured, pinned, images, embeddings)
