"""Backbones → specialists of a task; interrupted at any moment, the same call goes on."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from specialists import catalogue, loader
from specialists.catalogue import Augmentation, Precision, Procedure, Recipe, Scale
from specialists.errors import InvalidRecipe, InvalidSpecialist, InvalidWeights
from specialists.loader import Manifest
from specialists.task import Task
from specialists.training import numerics, pretrained
from specialists.training.batches import ResizedImages
from specialists.training.dataset import Dataset
from specialists.training.plan import Plan
from specialists.training.probe import probe
from specialists.training.publish import Trained, keep_best, publish
from specialists.training.side_by_side import train_side_by_side
from specialists.training.trainer import Epoch, Examples, Trainer

CHECKPOINTS = ".training"
LICENCE = "as the training data allows; not stated"
OF_EPOCHS = ("epochs", "patience", "learning_rate", "augmentation")
"""What a linear probe, which is fitted, has no use for."""

OnProgress = Callable[[Epoch], None]


def finetune(
    task: Task,
    dataset: Dataset,
    backbones: Sequence[str],
    scale: Scale,
    out: Path,
    *,
    procedure: Procedure = Procedure.END_TO_END,
    seed: int = 0,
    seeds: int = 1,
    epochs: int | None = None,
    patience: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    balanced: bool | None = None,
    precision: Precision | None = None,
    augmentation: Augmentation | None = None,
    weights: Mapping[str, Path] | None = None,
    licence: str = LICENCE,
    device: str = "cpu",
    workers: int = 1,
    on_progress: OnProgress | None = None,
) -> list[Trained]:
    """Trains each backbone on the dataset and leaves it in `out/BACKBONE`.

    What is not given follows the catalogue's recipe for the scale. A backbone that this same
    training (task, data, recipe, seeds) finished before is skipped; one that was interrupted goes
    on from its last epoch. `weights` names the safetensors file that a backbone begins from; the
    others begin from random numbers. Of several `seeds`, counted from `seed`, the best on
    validation is kept. With several `workers`, as many backbones are trained at the same time in
    processes of one core each. Raises UnknownBackbone, InvalidDataset, InvalidWeights,
    InvalidRecipe, TrainingDiverged.
    """
    given: dict[str, Any] = {
        "epochs": epochs,
        "patience": patience,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "balanced": balanced,
        "precision": precision,
        "augmentation": augmentation,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    begins = pretrained.choose(backbones, scale, len(task.labels), weights or {})
    plan = Plan(
        task=task,
        dataset=dataset,
        fingerprint=dataset.fingerprint(),
        scale=scale,
        procedure=procedure,
        recipe=_recipe(scale, dataset, changes, device),
        seeds=tuple(range(seed, seed + seeds)),
        begins=begins,
        licence=licence,
        device=device,
    )
    _check(plan, backbones, changes)
    work = _Finetuning(plan, out)
    watch = on_progress or _nobody
    try:
        if min(workers, len(backbones)) > 1:
            return train_side_by_side(work, backbones, workers, watch)
        return [work.train(key, watch) for key in backbones]
    finally:
        with suppress(OSError):  # somebody's training is not finished, or nobody's was begun
            (out / CHECKPOINTS).rmdir()


def _nobody(_: Epoch) -> None:
    """Nobody watches."""


def _recipe(scale: Scale, dataset: Dataset, changes: Mapping[str, Any], device: str) -> Recipe:
    """The catalogue's, changed as asked, with a precision that this hardware computes in."""
    images = None if "epochs" in changes else len(dataset.split("train"))
    recipe = replace(catalogue.recipe_of(scale, images), **changes)
    return replace(recipe, precision=numerics.chosen(recipe.precision, device))


def _check(plan: Plan, backbones: Sequence[str], changes: Mapping[str, Any]) -> None:
    """Raises where a linear probe is asked for what it cannot use, or cannot do without."""
    if plan.procedure is not Procedure.LINEAR_PROBE:
        return
    useless = [name for name in OF_EPOCHS if name in changes]
    if len(plan.seeds) > 1:
        useless.append("several seeds")
    if useless:
        raise InvalidRecipe(
            f"a linear probe is fitted, the same every time, and has no use for "
            f"{useless[0].replace('_', ' ')}: leave it out, or train end to end"
        )
    if bare := [key for key in backbones if key not in plan.begins]:
        raise InvalidWeights(
            f"a linear probe of {bare[0]!r} needs a trunk that has learnt something: name its "
            f"weights, {bare[0]}=FILE{pretrained.SUFFIX}"
        )


class _Finetuning:
    """The work of one call, and the images at each size, which its backbones share."""

    def __init__(self, plan: Plan, out: Path) -> None:
        self._plan, self._out = plan, out
        self._examples: dict[tuple[str, int], Examples] = {}

    def train(self, key: str, on_progress: OnProgress) -> Trained:
        with numerics.deterministic(self._plan.device):
            if len(self._plan.seeds) > 1:
                return self._train_seeds(key, on_progress)
            return self._train_once(self._plan, key, self._out, on_progress)

    def _train_seeds(self, key: str, on_progress: OnProgress) -> Trained:
        """Each seed's specialist stays beside the checkpoints until the best has been chosen."""
        folder = self._out / key
        homes = {seed: self._out / CHECKPOINTS / f"seed-{seed}" for seed in self._plan.seeds}
        manifest = _finished(folder, self._plan.run(key))
        if manifest is None:
            trained = [
                self._train_once(replace(self._plan, seeds=(seed,)), key, home, on_progress)
                for seed, home in homes.items()
            ]
            best = keep_best(self._plan, key, folder, trained)
        else:
            best = Trained(key, folder, manifest, 0.0, skipped=True)
        for home in homes.values():
            shutil.rmtree(home / key, ignore_errors=True)
            _remove_empty(home / CHECKPOINTS, home)
        return best

    def _train_once(self, plan: Plan, key: str, out: Path, on_progress: OnProgress) -> Trained:
        folder, run = out / key, plan.run(key)
        path = out / CHECKPOINTS / f"{key}.safetensors"
        if manifest := _finished(folder, run):
            path.unlink(missing_ok=True)  # a call that was killed here may have left it
            return Trained(key, folder, manifest, 0.0, skipped=True)
        training, validation = (self._at(name, key) for name in ("train", "val"))
        if plan.procedure is Procedure.LINEAR_PROBE:
            probed = probe(plan, key, training, validation)
            recipe = {**probed.recipe, "seconds": round(probed.seconds, 3)}
            manifest = publish(plan, key, folder, probed.model, recipe, validation)
            return Trained(key, folder, manifest, probed.seconds)
        trainer = _trainer(plan, key, run, path)
        for epoch in trainer.train(training, validation):
            on_progress(epoch)
        manifest = publish(plan, key, folder, trainer.model, _course(plan, trainer), validation)
        path.unlink(missing_ok=True)
        return Trained(key, folder, manifest, trainer.progress.seconds)

    def _at(self, split: str, key: str) -> Examples:
        size = self._plan.architecture(key).input_size
        if (split, size) not in self._examples:
            whole = self._plan.dataset.split(split)
            self._examples[split, size] = Examples(ResizedImages(whole.images, size), whole.targets)
        return self._examples[split, size]


def _trainer(plan: Plan, key: str, run: str, path: Path) -> Trainer:
    return Trainer(
        plan.task,
        key,
        plan.architecture(key),
        plan.recipe,
        plan.seeds[0],
        run,
        path,
        plan.device,
        plan.begins.get(key),
    )


def _course(plan: Plan, trainer: Trainer) -> dict[str, Any]:
    """The recipe and how far it went."""
    return {
        **asdict(plan.recipe),
        "seed": plan.seeds[0],
        "epochs_done": trainer.progress.epochs_done,
        "best_epoch": trainer.progress.best_epoch,
        "seconds": round(trainer.progress.seconds, 3),
    }


def _finished(folder: Path, run: str) -> Manifest | None:
    """The manifest of this very training, where an earlier call finished it."""
    try:
        manifest = loader.load(folder).manifest
    except InvalidSpecialist:
        return None
    return manifest if manifest.recipe.get("run") == run else None


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):  # others are still being trained there
            folder.rmdir()
