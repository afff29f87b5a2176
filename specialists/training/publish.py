"""From a trained model to a specialist's folder: calibrated, measured, described, written."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch

from specialists import loader, trunk
from specialists.architectures import EmbeddingClassifier
from specialists.catalogue import Procedure
from specialists.forward import probabilities
from specialists.loader import WEIGHTS, Manifest
from specialists.training.calibration import fit_temperature, loss
from specialists.training.metrics import measure
from specialists.training.plan import Plan
from specialists.training.trainer import Examples, predict

IMAGES, LOSS = "images", "loss"


@dataclass(frozen=True, slots=True)
class Trained:
    """A specialist that now exists; `skipped` where this very training had been done before."""

    backbone: str
    folder: Path
    manifest: Manifest
    seconds: float
    skipped: bool = False


def publish(
    plan: Plan,
    key: str,
    folder: Path,
    model: EmbeddingClassifier,
    recipe: Mapping[str, Any],
    validation: Examples,
) -> Manifest:
    """Calibrates and measures the weights as they will be stored, then stores them."""
    architecture, kind = plan.architecture(key), plan.task.kind
    model.load_state_dict(loader.stored(model))
    logits = predict(model, validation.images, architecture, plan.recipe.batch_size)
    targets = torch.from_numpy(validation.targets)
    temperature = fit_temperature(kind, logits, targets)
    predicted = probabilities(kind, logits, temperature).numpy()
    metrics = measure(plan.task, predicted, validation.targets).as_dict()
    calibrated = float(loss(kind, logits / temperature, targets))
    manifest = Manifest(
        task=plan.task.name,
        kind=kind,
        labels=plan.task.label_names,
        backbone=key,
        scale=plan.scale,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        embedding_dimension=architecture.dimension,
        preprocessing=loader.preprocessing_of(architecture),
        recipe=_recipe(plan, key, recipe),
        data_fingerprint=plan.fingerprint,
        validation={**metrics, LOSS: calibrated, IMAGES: float(len(targets))},
        temperature=temperature,
        licence=plan.licence,
        trunk_sha256=_trunk(plan, model),
    )
    return loader.save(folder, model, manifest)


def keep_best(plan: Plan, key: str, folder: Path, trained: Sequence[Trained]) -> Trained:
    """The seed with the least validation loss as the specialist, with mean and spread of all."""
    best = min(trained, key=_loss)
    seconds = sum(one.manifest.recipe["seconds"] for one in trained)
    recipe = {
        **best.manifest.recipe,
        "seeds": len(trained),
        "run": plan.run(key),
        "seconds": round(seconds, 3),
    }
    validation = {**best.manifest.validation, **_spread([one.manifest for one in trained])}
    manifest = replace(best.manifest, recipe=recipe, validation=validation)
    loader.install(folder, (best.folder / WEIGHTS).read_bytes(), manifest)
    return Trained(key, folder, manifest, seconds)


def _loss(trained: Trained) -> float:
    value = trained.manifest.validation[LOSS]
    return math.inf if value is None else value


def _spread(manifests: Sequence[Manifest]) -> dict[str, float | None]:
    """Mean and standard deviation of every metric over the seeds; None where one has none."""
    spread: dict[str, float | None] = {}
    for name in manifests[0].validation:
        values = [manifest.validation[name] for manifest in manifests]
        numbers = [value for value in values if value is not None]
        whole = len(numbers) == len(values)
        if name != IMAGES:
            spread[f"{name}_mean"] = statistics.fmean(numbers) if whole else None
            spread[f"{name}_sd"] = statistics.stdev(numbers) if whole else None
    return spread


def _recipe(plan: Plan, key: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Everything needed to train the same again, and how long it took."""
    begun = plan.begins.get(key)
    return {
        "procedure": plan.procedure,
        **recipe,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "run": plan.run(key),
        **({"begun_from": begun.name, "begun_from_sha256": begun.sha256} if begun else {}),
    }


def _trunk(plan: Plan, model: EmbeddingClassifier) -> str:
    """Only a trunk that was left as it was can be another specialist's too."""
    if plan.procedure is not Procedure.LINEAR_PROBE:
        return ""
    return trunk.sha256(loader.stored(model), model.classifier_names())
