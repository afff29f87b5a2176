"""Segmentation models → specialists of a task; interrupted at any moment, the same call goes on."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from specialists.catalogue import Scale
from specialists.errors import InvalidDataset, InvalidSpecialist
from specialists.loader import Manifest, stored
from specialists.segmentation import measure, models, network
from specialists.segmentation.masks import MaskedDataset
from specialists.segmentation.models import KIND, Model, Recipe
from specialists.segmentation.network import Segmenter
from specialists.segmentation.trainer import Drawn, Trainer, drawn
from specialists.task import Task
from specialists.training.calibration import fit_temperature
from specialists.training.finetune import CHECKPOINTS, LICENCE
from specialists.training.publish import Trained
from specialists.training.trainer import Epoch

CALIBRATION_PIXELS = 200_000
FEWEST = 2  # images: batch normalisation needs a spread

OnProgress = Callable[[Epoch], None]


def finetune(
    task: Task,
    dataset: MaskedDataset,
    keys: Sequence[str],
    out: Path,
    *,
    given: Mapping[str, float | None] | None = None,
    augment: float = 1.0,
    seed: int = 0,
    licence: str = LICENCE,
    device: str = "cpu",
    on_progress: OnProgress = lambda _: None,
) -> list[Trained]:
    """Trains each model on the masks and leaves it in `out/MODEL`, like any other specialist.

    What this same training finished before is skipped; what was interrupted goes on from its last
    epoch. `given` replaces fields of the recipe, `augment` scales its changes of the images. Needs
    the splits train and val. Raises UnknownBackbone, InvalidDataset.
    """
    if task.segment is None:
        raise InvalidDataset(f"task {task.name!r} names no segment that could be outlined")
    if len(dataset.split("train")) < FEWEST:
        raise InvalidDataset(f"{dataset.source} has too few images to train on")
    recipe = _recipe(len(dataset.split("train")), given or {}, augment)
    fingerprint, trained = dataset.fingerprint(), []
    for model in [models.find(key) for key in keys]:
        work = _Work(task, model, recipe, seed, fingerprint, licence, device)
        trained.append(work.train(dataset, out, on_progress))
    return trained


def _recipe(images: int, given: Mapping[str, Any], augment: float) -> Recipe:
    recipe = models.recipe_for(None if given.get("epochs") else images)
    changed = {name: value for name, value in given.items() if value is not None}
    return replace(recipe, **changed, augmentation=recipe.augmentation.scaled(augment))


class _Work:
    """One model's training, from the masks to the folder."""

    def __init__(
        self,
        task: Task,
        model: Model,
        recipe: Recipe,
        seed: int,
        fingerprint: str,
        licence: str,
        device: str,
    ) -> None:
        self._task, self._model, self._recipe, self._seed = task, model, recipe, seed
        self._fingerprint, self._licence, self._device = fingerprint, licence, device

    def train(self, dataset: MaskedDataset, out: Path, on_progress: OnProgress) -> Trained:
        run, folder = self._run(), out / self._model.key
        if manifest := _finished(folder, run):
            return Trained(self._model.key, folder, manifest, 0.0, skipped=True)
        path = out / CHECKPOINTS / f"{self._model.key}.safetensors"
        trainer = Trainer(self._model, self._recipe, self._seed, run, path, self._device)
        size = self._model.input_size
        training, validation = (drawn(dataset.split(name), size) for name in ("train", "val"))
        for epoch in trainer.train(training, validation):
            on_progress(epoch)
        manifest = self._store(folder, trainer, validation, dataset)
        path.unlink(missing_ok=True)
        with suppress(OSError):  # others are still being trained there
            path.parent.rmdir()
        return Trained(self._model.key, folder, manifest, trainer.progress.seconds)

    def _store(
        self, folder: Path, trainer: Trainer, validation: Drawn, dataset: MaskedDataset
    ) -> Manifest:
        """Calibrates and measures the weights as they will be stored, then stores them."""
        trainer.network.load_state_dict(stored(trainer.network))
        manifest = self._manifest(trainer, _temperature(trainer, validation))
        measured = measure.measured(
            Segmenter(manifest, trainer.network.eval()), dataset.split("val")
        )
        figures = {**measured.overlap.as_dict(), "loss": trainer.progress.best_loss}
        return network.save(folder, trainer.network, replace(manifest, validation=figures))

    def _manifest(self, trainer: Trainer, temperature: float) -> Manifest:
        assert self._task.segment is not None  # noqa: S101 - `finetune` has refused it
        return Manifest(
            task=self._task.name,
            kind=KIND,
            labels=(self._task.segment.name,),
            backbone=self._model.key,
            scale=Scale.NANO,
            parameters=sum(one.numel() for one in trainer.network.parameters()),
            embedding_dimension=0,
            preprocessing=network.preprocessing_of(self._model),
            recipe=self._recipe_of(trainer),
            data_fingerprint=self._fingerprint,
            validation={},
            temperature=temperature,
            licence=self._licence,
        )

    def _recipe_of(self, trainer: Trainer) -> dict[str, Any]:
        return {
            **asdict(self._recipe),
            "seed": self._seed,
            "epochs_done": trainer.progress.epochs_done,
            "best_epoch": trainer.progress.best_epoch,
            "torch": torch.__version__,
            "timm": version("timm"),
            "run": trainer.progress.run,
            "seconds": round(trainer.progress.seconds, 3),
        }

    def _run(self) -> str:
        """sha256 of everything the result depends on; two runs of one name give one specialist."""
        assert self._task.segment is not None  # noqa: S101 - `finetune` has refused it
        parts = {
            "task": [self._task.name, self._task.segment.name],
            "model": {**asdict(self._model), "arguments": dict(self._model.arguments)},
            "preprocessing": asdict(network.preprocessing_of(self._model)),
            "recipe": asdict(self._recipe),
            "seed": self._seed,
            "data": self._fingerprint,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _temperature(trainer: Trainer, validation: Drawn) -> float:
    """Fitted on places of the validation images, evenly taken."""
    logits, truth = trainer.predict(validation).flatten(), validation.masks.flatten().long()
    step = max(1, len(logits) // CALIBRATION_PIXELS)
    return fit_temperature("multi-label", logits[::step, None], truth[::step, None])


def _finished(folder: Path, run: str) -> Manifest | None:
    """The manifest of this very training, where an earlier call finished it."""
    try:
        manifest = network.load(folder).manifest
    except InvalidSpecialist:
        return None
    return manifest if manifest.recipe.get("run") == run else None
