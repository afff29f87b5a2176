"""LoRA: tune the generalist itself to one task, instead of training small specialists for it.

The alternative that users ask for, on any checkpoint of MedDr's architecture. Ranks and targets
are MedDr's own (train.sh: rank 16, alpha 32, dropout 0.05, all projections of the language
model; vision tower and projector frozen). The adapter is a folder in peft's layout, which vLLM
serves with `--enable-lora` and the embedded engine adds to the weights when it loads.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from service.generalist import checkpoint, lora, template
from service.generalist.architecture import InternVLChat
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
    folder: Path,
    dataset: Dataset,
    how: Adaptation,
    out: Path,
    on_progress: OnProgress,
    state: Path | None = None,
) -> None:
    """An adapter in `out` for the checkpoint in `folder`, learned from the train split.

    With a file for its `state`, an interrupted tuning goes on from there. Raises
    InvalidCheckpoint and InvalidDataset. On a GPU where there is one.
    """
    loaded = checkpoint.load(folder)
    loaded.model.to(batches.fastest())
    torch.manual_seed(how.seed)
    tuned = wrapped(loaded.model, how.rank)
    learning = [pair for pair in tuned.named_parameters() if pair[1].requires_grad]
    stage = Stage(how.steps, how.batch, how.learning_rate, how.learning_rate)
    optimisation = Optimisation(learning, stage, NAME, on_progress, state)
    split, reader = dataset.split("train"), Reader(loaded.model, loaded.tokenizer)
    loaded.model.train()
    for step in optimisation.remaining():
        rng = np.random.default_rng((how.seed, _STREAM, step))
        torch.manual_seed(int(rng.integers(2**63)))  # of the dropout, after an interruption too
        rows = _balanced(dataset.task, split, how.batch, rng)
        with sdpa_kernel(SDPBackend.MATH):
            optimisation.step(*_learned(reader, dataset.task, split, rows, rng))
    save(tuned, out)
    if state is not None:
        state.unlink(missing_ok=True)


def state_file(work: Path, folder: Path, dataset: Dataset, how: Adaptation) -> Path:
    """Where this very tuning, and no other, keeps its state until it is done."""
    what = (checkpoint.fingerprint(folder), dataset.fingerprint(), *map(str, astuple(how)))
    digest = hashlib.sha256(" ".join(what).encode()).hexdigest()
    return work / f"{NAME}-{digest[:16]}.safetensors"


def wrapped(model: InternVLChat, rank: int) -> PeftModel:
    """The model with an adapter that adds nothing yet, and is all that learns."""
    configuration = LoraConfig(
        r=rank,
        lora_alpha=ALPHA_PER_RANK * rank,
        lora_dropout=DROPOUT,
        target_modules=TARGETS,
        bias="none",
    )
    frozen = model.requires_grad_(requires_grad=False)
    return cast("PeftModel", get_peft_model(cast("Any", frozen), configuration))


def save(tuned: PeftModel, out: Path) -> None:
    """Write the adapter's two files to `out`, each whole or not at all; others there stay."""
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".adapter-", dir=out) as staging:
        tuned.save_pretrained(staging)
        for name in (lora.CONFIG, lora.WEIGHTS):  # peft's card is a form to fill in
            file = Path(staging) / name
            file.chmod(0o644)  # safetensors keeps it to its owner, a server may be another
            file.replace(out / name)


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


def _balanced(task: Task, split: Split, count: int, rng: np.random.Generator) -> list[int]:
    """Rows of the split, every label as likely where labels exclude each other."""
    targets = np.asarray(split.targets)
    if task.kind is TaskKind.MULTI_LABEL:
        return [int(row) for row in rng.integers(len(split), size=count)]
    present = np.unique(targets)
    chosen = rng.choice(present, size=count)
    return [int(rng.choice(np.flatnonzero(targets == label))) for label in chosen]
