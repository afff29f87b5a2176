"""Backbones → specialists of a task; interrupted at any moment, the same call goes on."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch

from specialists import catalogue, loader
from specialists.catalogue import Architecture, Augmentation, Recipe, Scale
from specialists.errors import InvalidSpecialist
from specialists.forward import probabilities
from specialists.loader import Manifest
from specialists.task import Task
from specialists.training import pretrained
from specialists.training.batches import ResizedImages
from specialists.training.calibration import fit_temperature, loss
from specialists.training.dataset import Dataset
from specialists.training.metrics import measure
from specialists.training.pretrained import Pretrained
from specialists.training.side_by_side import train_side_by_side
from specialists.training.trainer import Epoch, Examples, Trainer, predict

CHECKPOINTS = ".training"
LICENCE = "as the training data allows; not stated"

OnProgress = Callable[[Epoch], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """A specialist that now exists; `skipped` where this very training had been done before."""

    backbone: str
    folder: Path
    manifest: Manifest
    seconds: float
    skipped: bool = False


def finetune(
    task: Task,
    dataset: Dataset,
    backbones: Sequence[str],
    scale: Scale,
    out: Path,
    *,
    seed: int = 0,
    epochs: int | None = None,
    patience: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    balanced: bool | None = None,
    augmentation: Augmentation | None = None,
    weights: Mapping[str, Path] | None = None,
    licence: str = LICENCE,
    device: str = "cpu",
    workers: int = 1,
    on_progress: OnProgress | None = None,
) -> list[Trained]:
    """Trains each backbone on the dataset and leaves it in `out/BACKBONE`.

    What is not given follows the catalogue's recipe for the scale. A backbone that this same
    training (task, data, recipe, seed) finished before is skipped; one that was interrupted goes
    on from its last epoch. `weights` names the safetensors file that a backbone begins from; the
    others begin from random numbers. With several `workers`, as many backbones are trained at the
    same time in processes of one core each. Raises UnknownBackbone, InvalidDataset, InvalidWeights.
    """
    given: dict[str, Any] = {
        "epochs": epochs,
        "patience": patience,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "balanced": balanced,
        "augmentation": augmentation,
    }
    recipe = catalogue.recipe_of(scale, len(dataset.split("train")) if epochs is None else None)
    recipe = replace(recipe, **{name: value for name, value in given.items() if value is not None})
    begins = pretrained.choose(backbones, scale, len(task.labels), weights or {})
    work = _Finetuning(task, dataset, scale, out, recipe, seed, licence, device, begins)
    watch = on_progress or _nobody
    if min(workers, len(backbones)) > 1:
        return train_side_by_side(work, backbones, workers, watch)
    return [work.train(key, watch) for key in backbones]


def _nobody(_: Epoch) -> None:
    """Nobody watches."""


class _Finetuning:
    """What the backbones of one call share: the task, the recipe, and the images at each size."""

    def __init__(
        self,
        task: Task,
        dataset: Dataset,
        scale: Scale,
        out: Path,
        recipe: Recipe,
        seed: int,
        licence: str,
        device: str,
        begins: Mapping[str, Pretrained],
    ) -> None:
        self._task, self._dataset, self._scale, self._out = task, dataset, scale, out
        self._recipe, self._seed, self._licence, self._device = recipe, seed, licence, device
        self._begins = begins
        self._fingerprint = dataset.fingerprint()
        self._examples: dict[tuple[str, int], Examples] = {}

    def train(self, key: str, on_progress: OnProgress) -> Trained:
        architecture = catalogue.find(key).at(self._scale)
        run = self._run(key, architecture)
        folder = self._out / key
        if manifest := _finished(folder, run):
            return Trained(key, folder, manifest, 0.0, skipped=True)
        path = self._out / CHECKPOINTS / f"{key}.safetensors"
        trainer = Trainer(
            self._task,
            key,
            architecture,
            self._recipe,
            self._seed,
            run,
            path,
            self._device,
            self._begins.get(key),
        )
        training, validation = (self._at(name, architecture) for name in ("train", "val"))
        for epoch in trainer.train(training, validation):
            on_progress(epoch)
        manifest = self._store(folder, trainer, architecture, validation)
        path.unlink(missing_ok=True)
        with suppress(OSError):  # others are still being trained there
            path.parent.rmdir()
        return Trained(key, folder, manifest, trainer.progress.seconds)

    def _at(self, split: str, architecture: Architecture) -> Examples:
        place = (split, architecture.input_size)
        if place not in self._examples:
            whole = self._dataset.split(split)
            images = ResizedImages(whole.images, architecture.input_size)
            self._examples[place] = Examples(images, whole.targets)
        return self._examples[place]

    def _store(
        self, folder: Path, trainer: Trainer, architecture: Architecture, validation: Examples
    ) -> Manifest:
        """Calibrates and measures the weights as they will be stored, then stores them."""
        model = trainer.model
        model.load_state_dict(loader.stored(model))
        logits = predict(model, validation.images, architecture, self._recipe.batch_size)
        targets = torch.from_numpy(validation.targets)
        temperature = fit_temperature(self._task.kind, logits, targets)
        predicted = probabilities(self._task.kind, logits, temperature).numpy()
        metrics = measure(self._task, predicted, validation.targets).as_dict()
        calibrated = float(loss(self._task.kind, logits / temperature, targets))
        manifest = Manifest(
            task=self._task.name,
            kind=self._task.kind,
            labels=self._task.label_names,
            backbone=trainer.backbone,
            scale=self._scale,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            embedding_dimension=architecture.dimension,
            preprocessing=loader.preprocessing_of(architecture),
            recipe=self._recipe_of(trainer),
            data_fingerprint=self._fingerprint,
            validation={**metrics, "loss": calibrated, "images": float(len(targets))},
            temperature=temperature,
            licence=self._licence,
        )
        return loader.save(folder, model, manifest)

    def _recipe_of(self, trainer: Trainer) -> dict[str, Any]:
        """Everything needed to train the same again, and how long it took."""
        begun = self._begins.get(trainer.backbone)
        return {
            **asdict(self._recipe),
            "seed": self._seed,
            "epochs_done": trainer.progress.epochs_done,
            "best_epoch": trainer.progress.best_epoch,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "run": trainer.progress.run,
            "seconds": round(trainer.progress.seconds, 3),
            **({"begun_from": begun.path.name, "begun_from_sha256": begun.sha256} if begun else {}),
        }

    def _run(self, key: str, architecture: Architecture) -> str:
        """sha256 of everything the result depends on; two runs of one name give one specialist."""
        parts = {
            "task": [self._task.name, self._task.kind, self._task.label_names],
            "backbone": [key, self._scale, architecture.constructor, dict(architecture.arguments)],
            "preprocessing": asdict(loader.preprocessing_of(architecture)),
            "recipe": asdict(self._recipe),
            "seed": self._seed,
            "data": self._fingerprint,
        }
        if begun := self._begins.get(key):
            parts["weights"] = begun.sha256
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _finished(folder: Path, run: str) -> Manifest | None:
    """The manifest of this very training, where an earlier call finished it."""
    try:
        manifest = loader.load(folder).manifest
    except InvalidSpecialist:
        return None
    return manifest if manifest.recipe.get("run") == run else None
