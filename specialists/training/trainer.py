"""One backbone's training: each epoch depends only on the one before it and the seed."""

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from timm.optim import param_groups_weight_decay
from torch import Generator, Tensor

from specialists.architectures import EmbeddingClassifier, build, on_device
from specialists.catalogue import Architecture, Recipe
from specialists.errors import TrainingDiverged
from specialists.task import Task
from specialists.training import batches, checkpoint, numerics, pretrained
from specialists.training.batches import ResizedImages
from specialists.training.calibration import label_weights, loss
from specialists.training.checkpoint import Checkpoint, Progress, Tensors
from specialists.training.pretrained import Pretrained
from specialists.training.split import Targets

GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Images at the input size with their targets."""

    images: ResizedImages
    targets: Targets


@dataclass(frozen=True, slots=True)
class Epoch:
    """One finished epoch, for whoever watches."""

    backbone: str
    number: int  # from 1
    of: int
    training_loss: float
    validation_loss: float
    best: bool
    seconds: float
    seed: int


class Trainer:
    """Trains one model; killed at any moment and made again, it goes on from its last epoch."""

    def __init__(
        self,
        task: Task,
        backbone: str,
        architecture: Architecture,
        recipe: Recipe,
        seed: int,
        run: str,
        path: Path,
        device: str = "cpu",
        weights: Pretrained | None = None,
    ) -> None:
        self._weights = weights
        self._task, self.backbone, self._architecture = task, backbone, architecture
        self._recipe, self._seed, self._path, self._device = recipe, seed, path, device
        self.model = self._fresh_model()
        groups = param_groups_weight_decay(self.model, recipe.weight_decay)
        self._optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
        self._best: Tensors = {}
        self.progress = Progress(run)
        self._resume()

    def train(self, training: Examples, validation: Examples) -> Iterator[Epoch]:
        """Epoch after epoch, until the last or until patience is lost; then `model` is the best."""
        weights = self._weights_of_labels(training.targets)
        while not self._finished():
            started = time.monotonic()
            trained = self._train_epoch(training, weights)
            validated = self._validate(validation, weights)
            yield self._conclude(trained, validated, time.monotonic() - started)
        self.model.load_state_dict(self._best)

    def _finished(self) -> bool:
        waited = self.progress.epochs_done - self.progress.best_epoch
        return self.progress.epochs_done >= self._recipe.epochs or waited >= self._recipe.patience

    def _train_epoch(self, examples: Examples, weights: Tensor | None) -> float:
        self.model.train()
        total = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed_of_epoch())
            steps = self._batches(examples)
            count = -(-len(examples.images) // self._recipe.batch_size)
            for step, (images, targets) in enumerate(steps):
                self._set_learning_rate(self.progress.epochs_done + step / count)
                total += self._step(images, targets, weights)
        return total / count

    def _batches(self, examples: Examples) -> Iterator[tuple[Tensor, Tensor]]:
        recipe = self._recipe
        return batches.shuffled(
            examples.images,
            torch.from_numpy(examples.targets),
            self._architecture,
            recipe.augmentation,
            recipe.batch_size,
            Generator().manual_seed(self._seed_of_epoch()),
        )

    def _step(self, images: Tensor, targets: Tensor, weights: Tensor | None) -> float:
        with numerics.autocast(self._recipe.precision, self._device):
            logits, _ = self.model(self._to_device(images))
        cost = loss(self._task.kind, logits.float(), targets.to(self._device), weights)
        value = self._check(float(cost.detach()))
        self._optimizer.zero_grad(set_to_none=True)
        cost.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        self._optimizer.step()
        return value

    def _validate(self, examples: Examples, weights: Tensor | None) -> float:
        with numerics.autocast(self._recipe.precision, self._device):
            logits = predict(
                self.model, examples.images, self._architecture, self._recipe.batch_size
            )
        targets = torch.from_numpy(examples.targets)
        on_cpu = None if weights is None else weights.cpu()
        return self._check(float(loss(self._task.kind, logits, targets, on_cpu)))

    def _check(self, cost: float) -> float:
        """What is no number is never stored: the last good epoch's checkpoint stays."""
        if math.isfinite(cost):
            return cost
        raise TrainingDiverged(
            f"training of {self.backbone!r} diverged in epoch {self.progress.epochs_done + 1}: its "
            f"loss is {cost}; a lower learning rate than {self._recipe.learning_rate:g} may help"
        )

    def _conclude(self, trained: float, validated: float, seconds: float) -> Epoch:
        done, best = self.progress.epochs_done + 1, validated < self.progress.best_loss
        if best or not self._best:
            self._best = {
                name: t.detach().cpu().clone() for name, t in self.model.state_dict().items()
            }
        if best:
            self.progress = replace(self.progress, best_epoch=done, best_loss=validated)
        total = self.progress.seconds + seconds
        self.progress = replace(self.progress, epochs_done=done, seconds=total)
        self._save()
        return Epoch(
            self.backbone,
            done,
            self._recipe.epochs,
            trained,
            validated,
            best,
            seconds,
            self._seed,
        )

    def _save(self) -> None:
        optimizer = checkpoint.optimizer_tensors(self._optimizer)
        model = self.model.state_dict()
        checkpoint.write(self._path, Checkpoint(self.progress, model, self._best, optimizer))

    def _resume(self) -> None:
        saved = checkpoint.read(self._path, self.progress.run)
        if saved is None:
            return
        self.progress, self._best = saved.progress, saved.best
        self.model.load_state_dict(saved.model)
        checkpoint.restore_optimizer(self._optimizer, saved.optimizer)

    def _fresh_model(self) -> EmbeddingClassifier:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed_of(f"weights {self.backbone}"))
            model = build(self._architecture, len(self._task.labels))
        if self._weights is not None:
            pretrained.fill(model, self._weights, self.backbone)
        return on_device(model, self._device)

    def _to_device(self, images: Tensor) -> Tensor:
        return images.to(self._device, memory_format=torch.channels_last)

    def _set_learning_rate(self, epoch: float) -> None:
        """A linear warm-up, then a cosine down to zero; `epoch` counts from 0 with fractions."""
        recipe = self._recipe
        if epoch < recipe.warmup_epochs:
            share = (epoch + 0.01) / recipe.warmup_epochs
        else:
            left = max(recipe.epochs - recipe.warmup_epochs, 1e-9)
            share = (1 + math.cos(math.pi * (epoch - recipe.warmup_epochs) / left)) / 2
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.learning_rate * share

    def _weights_of_labels(self, targets: Targets) -> Tensor | None:
        if not self._recipe.balanced:
            return None
        return label_weights(self._task, targets).to(self._device)

    def _seed_of_epoch(self) -> int:
        return self._seed_of(f"epoch {self.progress.epochs_done}")

    def _seed_of(self, purpose: str) -> int:
        digest = hashlib.sha256(f"{self._seed} {purpose}".encode()).digest()
        return int.from_bytes(digest[:6], "big")


@torch.inference_mode()
def predict(
    model: EmbeddingClassifier, images: ResizedImages, architecture: Architecture, batch_size: int
) -> Tensor:
    """(images, labels) logits on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    answers = [
        model(batch.to(device, memory_format=torch.channels_last))[0].float().cpu()
        for batch in batches.in_order(images, architecture.mean, architecture.std, batch_size)
    ]
    return torch.cat(answers)
