"""One segmentation model's training: each epoch depends only on the one before it and the seed."""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 the name torch's own documentation uses
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from specialists import transforms
from specialists.catalogue import Augmentation
from specialists.errors import TrainingDiverged
from specialists.prediction import Mask
from specialists.segmentation import network
from specialists.segmentation.masks import MaskedSplit
from specialists.segmentation.models import MEAN, STD, Model, Recipe
from specialists.training import checkpoint
from specialists.training.checkpoint import Checkpoint, Progress, Tensors
from specialists.training.trainer import Epoch

GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Images at the input size, (count, 3, size, size) uint8, and (count, 1, size, size) bool."""

    images: Tensor
    masks: Tensor


def drawn(split: MaskedSplit, size: int) -> Drawn:
    """A split at the input size, in memory: 48 KiB an image of 128 px."""
    pixels = np.stack([transforms.resize(one, size) for one in split.images])
    masks = np.stack([_resized(one, size) for one in split.masks()])
    return Drawn(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(masks)[:, None]
    )


def loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of every place, plus what Dice over the whole batch lacks of 1.

    Over the batch, and not image by image, so that images without the segment count, too.
    """
    chances = logits.sigmoid()
    dice = (2 * (chances * masks).sum() + 1) / (chances.sum() + masks.sum() + 1)
    return F.binary_cross_entropy_with_logits(logits, masks) + 1 - dice


class Trainer:
    """Trains one model; killed at any moment and made again, it goes on from its last epoch."""

    def __init__(
        self, model: Model, recipe: Recipe, seed: int, run: str, path: Path, device: str = "cpu"
    ) -> None:
        self._model, self._recipe, self._seed = model, recipe, seed
        self._path, self._device = path, device
        self._changes = changes(recipe.augmentation)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed_of("weights"))
            self.network = network.on_device(network.build(model), device)
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self._best: Tensors = {}
        self.progress = Progress(run)
        self._resume()

    def train(self, training: Drawn, validation: Drawn) -> Iterator[Epoch]:
        """Epoch after epoch, until the last or until patience is lost; then the best stays."""
        while not self._finished():
            started = time.monotonic()
            trained = self._train_epoch(training)
            validated = self._check(float(loss(self.predict(validation), validation.masks.float())))
            yield self._conclude(trained, validated, time.monotonic() - started)
        self.network.load_state_dict(self._best)

    @torch.inference_mode()
    def predict(self, examples: Drawn) -> Tensor:
        """(count, 1, size, size) logits on the CPU."""
        self.network.eval()
        pieces = torch.split(examples.images, self._recipe.batch_size)
        return torch.cat([self.network(self._seen(piece / 255)).float().cpu() for piece in pieces])

    def _finished(self) -> bool:
        waited = self.progress.epochs_done - self.progress.best_epoch
        return self.progress.epochs_done >= self._recipe.epochs or waited >= self._recipe.patience

    def _train_epoch(self, examples: Drawn) -> float:
        self.network.train()
        count = max(1, len(examples.images) // self._recipe.batch_size)
        total = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed_of(f"epoch {self.progress.epochs_done}"))
            order = torch.randperm(len(examples.images))
            for step, places in enumerate(order.tensor_split(count)):
                self._set_learning_rate(self.progress.epochs_done + step / count)
                total += self._step(*self._changed(examples, places))
        return total / count

    def _changed(self, examples: Drawn, places: Tensor) -> tuple[Tensor, Tensor]:
        """Image and mask moved alike, each pair in its own way."""
        pairs = [
            self._changes(
                tv_tensors.Image(examples.images[at] / 255), tv_tensors.Mask(examples.masks[at])
            )
            for at in places.tolist()
        ]
        images = torch.stack([image.as_subclass(Tensor) for image, _ in pairs])
        return images, torch.stack([mask.as_subclass(Tensor) for _, mask in pairs]).float()

    def _step(self, images: Tensor, masks: Tensor) -> float:
        cost = loss(self.network(self._seen(images)).float(), masks.to(self._device))
        value = self._check(float(cost.detach()))
        self._optimizer.zero_grad(set_to_none=True)
        cost.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        self._optimizer.step()
        return value

    def _check(self, cost: float) -> float:
        """What is no number is never stored: the last good epoch's checkpoint stays."""
        if math.isfinite(cost):
            return cost
        raise TrainingDiverged(
            f"training of {self._model.key!r} diverged in epoch {self.progress.epochs_done + 1}: "
            f"its loss is {cost}; a lower learning rate may help"
        )

    def _seen(self, images: Tensor) -> Tensor:
        centred = transforms.centre(images, MEAN, STD)
        return centred.to(self._device, memory_format=torch.channels_last)

    def _conclude(self, trained: float, validated: float, seconds: float) -> Epoch:
        done, best = self.progress.epochs_done + 1, validated < self.progress.best_loss
        if best or not self._best:
            state = self.network.state_dict()
            self._best = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        if best:
            self.progress = replace(self.progress, best_epoch=done, best_loss=validated)
        total = self.progress.seconds + seconds
        self.progress = replace(self.progress, epochs_done=done, seconds=total)
        optimizer = checkpoint.optimizer_tensors(self._optimizer)
        state = self.network.state_dict()
        checkpoint.write(self._path, Checkpoint(self.progress, state, self._best, optimizer))
        return Epoch(
            self._model.key,
            done,
            self._recipe.epochs,
            trained,
            validated,
            best,
            seconds,
            self._seed,
        )

    def _resume(self) -> None:
        saved = checkpoint.read(self._path, self.progress.run)
        if saved is None:
            return
        self.progress, self._best = saved.progress, saved.best
        self.network.load_state_dict(saved.model)
        checkpoint.restore_optimizer(self._optimizer, saved.optimizer)

    def _set_learning_rate(self, epoch: float) -> None:
        """A linear warm-up, then a cosine down to zero; `epoch` counts from 0 with fractions."""
        warm, total = self._recipe.warmup_epochs, self._recipe.epochs
        share = (epoch + 0.01) / warm if epoch < warm else _cosine((epoch - warm) / (total - warm))
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.learning_rate * share

    def _seed_of(self, purpose: str) -> int:
        digest = hashlib.sha256(f"{self._seed} {self._model.key} {purpose}".encode()).digest()
        return int.from_bytes(digest[:6], "big")


def changes(limits: Augmentation) -> v2.Transform:
    """Random changes of an image and its mask: moved alike, and the image lit otherwise."""
    steps: Sequence[v2.Transform] = (
        v2.RandomHorizontalFlip(0.5 if limits.flip else 0.0),
        v2.RandomAffine(
            limits.rotation,
            translate=(limits.shift, limits.shift),
            scale=(1 - limits.zoom, 1 + limits.zoom),
            interpolation=v2.InterpolationMode.BILINEAR,
        ),
        v2.ColorJitter(brightness=limits.brightness, contrast=limits.contrast),
    )
    return v2.Compose(steps)


def _cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def _resized(mask: Mask, size: int) -> Mask:
    larger = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(larger.resize((size, size), Image.Resampling.BILINEAR)) > 127
