"""LoRA: tune the generalist itself to one task, instead of training small specialists for it.

The alternative that users ask for, on any checkpoint of MedDr's architecture. Ranks and targets
are MedDr's own (train.sh: rank 16, alpha 32, dropout 0.05, all projections of the language
model; vision tower and projector frozen). The adapter is a folder in peft's layout, which vLLM
serves with `--enable-lora` and the embedded engine adds to the weights when it loads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from service.generalist import checkpoint, template
from service.generalist.training import batches, examples
from service.generalist.training.arbitrating import Reader
from service.generalist.training.augment import EVERYDAY, varied
from service.generalist.training.optimisation import OnProgress, Optimisation, Stage
from service.generalist.training.panels import named, resize
from specialists.task import Task, TaskKind
from specialists.training.dataset import Dataset
from specialists.training.split import Split

NAME = "adaptation"
TARGETS = r"language_model\..*\.(q|k|v|o|gate|up|down)_proj"
ALPHA_PER_RANK = 2
DROPOUT = 0.05
_STREAM = 3


@dataclass(frozen=True, slots=True)
class Adaptation:
    """How to tune: an adapter of `rank`, for `steps` of `batch` images."""

    rank: int = 16
    steps: int = 300
    batch: int = 16
    learning_rate: float = 1e-3
    seed: int = 20261121


def adapt(
    folder: Path, dataset: Dataset, how: Adaptation, out: Path, on_progress: OnProgress
) -> None:
    """An adapter in `out` for the checkpoint in `folder`, learned from the train split.

    Raises InvalidCheckpoint and InvalidDataset. On a GPU where there is one.
    """
    loaded = checkpoint.load(folder)
    loaded.model.to(batches.fastest())
    torch.manual_seed(how.seed)
    tuned = get_peft_model(loaded.model.requires_grad_(requires_grad=False), _configuration(how))
    learning = [pair for pair in tuned.named_parameters() if pair[1].requires_grad]
    stage = Stage(how.steps, how.batch, how.learning_rate, how.learning_rate)
    optimisation = Optimisation(learning, stage, NAME, on_progress)
    split, reader = dataset.split("train"), Reader(loaded.model, loaded.tokenizer)
    loaded.model.train()
    for step in optimisation.remaining():
        rng = np.random.default_rng((how.seed, _STREAM, step))
        rows = _balanced(dataset.task, split, how.batch, rng)
        with sdpa_kernel(SDPBackend.MATH):
            optimisation.step(*_learned(reader, dataset.task, split, rows, rng))
    tuned.save_pretrained(str(out))


def _learned(
    reader: Reader, task: Task, split: Split, rows: Sequence[int], rng: np.random.Generator
) -> tuple[Tensor, float]:
    size = reader.model.config.vision_config.image_size
    images = [varied(resize(split.images[row], size), EVERYDAY, rng) for row in rows]
    words = template.find(template.DEFAULT)
    asked = [
        examples.diagnosis(words, task, place, _truth(task, split, row))
        for place, row in enumerate(rows)
    ]
    with batches.at_half_precision(reader.model):
        features = reader.features(images)
        loss, right = batches.answer_loss(reader.model, features, reader.rows(asked))
    return loss / len(asked), right / len(asked)


def _truth(task: Task, split: Split, row: int) -> tuple[str, ...]:
    target = np.asarray(split.targets[row])
    if task.kind is TaskKind.MULTI_LABEL:
        return named(task, target.astype(np.float32))
    return (task.label_names[int(target)],)


def _configuration(how: Adaptation) -> LoraConfig:
    return LoraConfig(
        r=how.rank,
        lora_alpha=ALPHA_PER_RANK * how.rank,
        lora_dropout=DROPOUT,
        target_modules=TARGETS,
        bias="none",
    )


def _balanced(task: Task, split: Split, count: int, rng: np.random.Generator) -> list[int]:
    """Rows of the split, every label as likely where labels exclude each other."""
    targets = np.asarray(split.targets)
    if task.kind is TaskKind.MULTI_LABEL:
        return [int(row) for row in rng.integers(len(split), size=count)]
    present = np.unique(targets)
    chosen = rng.choice(present, size=count)
    return [int(rng.choice(np.flatnonzero(targets == label))) for label in chosen]
