"""The first stage: the vision tower and the projector learn to see, without a word."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from service.generalist.architecture import InternVLChat
from service.generalist.training import batches, lessons
from service.generalist.training.augment import Images
from service.generalist.training.lessons import Lesson
from service.generalist.training.optimisation import OnProgress, Optimisation, Progress, Stage

NAME = "vision"
_STREAM = 1  # of the random numbers, so that no other stage draws the same
BATCH = 100


def learn_to_see(
    model: InternVLChat,
    taught: Sequence[Lesson],
    stage: Stage,
    seed: int,
    on_progress: OnProgress,
    file: Path | None = None,
) -> tuple[nn.ModuleList, list[Progress]]:
    """Train the tower with a throw-away head per lesson; returns the heads and the history."""
    width = model.config.text_config.hidden_size
    heads = lessons.heads(taught, width).to(batches.place_of(model))
    model.train()
    parts = {"vision_model": model.vision_model, "mlp1": model.mlp1, "heads": heads}
    learning = [
        (f"{part}.{name}", parameter)
        for part, module in parts.items()
        for name, parameter in module.named_parameters()
    ]
    optimisation = Optimisation(learning, stage, NAME, on_progress, file)
    for step in optimisation.remaining():
        drawn = lessons.draw(taught, stage.batch, np.random.default_rng((seed, _STREAM, step)))
        with sdpa_kernel(SDPBackend.MATH):  # on a CPU, flash attention learns at half the speed
            with batches.at_half_precision(model):
                seen = _seen(model, drawn.images)
                loss, right = lessons.marked(taught, drawn, heads, seen)
            optimisation.step(loss, right)
    return heads, optimisation.history


@torch.inference_mode()
def marks(model: InternVLChat, head: nn.Module, images: Images) -> Tensor:
    """The logits (n, labels) of one lesson's head, for images never trained on."""
    model.eval()
    rows = range(0, len(images), BATCH)
    logits: Tensor = head(torch.cat([_seen(model, images[row : row + BATCH]) for row in rows]))
    return logits


def _seen(model: InternVLChat, images: Images) -> Tensor:
    pixels = batches.pixel_values(images).to(batches.place_of(model))
    return model.image_features(pixels).mean(dim=1)
