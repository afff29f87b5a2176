"""The models that outline, as data: `models.toml`, read once. Free of torch."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from specialists.catalogue import Augmentation
from specialists.errors import UnknownBackbone
from specialists.task import Task

KIND = "segmentation"
"""What the manifest of a segmentation specialist gives as its kind."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Model:
    """An encoder and a decoder; see the head of `models.toml`."""

    key: str
    name: str
    decoder: str
    encoder: str
    input_size: int  # pixels, width and height; the map has the same size
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How they are trained; `patience` counts epochs without improvement."""

    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_epochs: float
    augmentation: Augmentation


def find(key: str) -> Model:
    """The model of that key; raises UnknownBackbone with the keys that exist."""
    if key not in MODELS:
        raise UnknownBackbone(f"unknown segmentation model {key[:80]!r}; known: {_listed()}")
    return MODELS[key]


def named(text: str) -> tuple[str, ...]:
    """The models of a list with commas, each once; raises UnknownBackbone."""
    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    return tuple(find(name).key for name in names)


def models_of(task: Task) -> tuple[str, ...]:
    """The models expected to outline a task's segment: its own list, or all; none without one."""
    if task.segment is None:
        return ()
    return task.segmenters or tuple(MODELS)


def recipe_for(images: int | None = None) -> Recipe:
    """The default training recipe, with more epochs where there are few images."""
    if images is None:
        return _RECIPE
    steps = _RECIPE.epochs * math.ceil(images / _RECIPE.batch_size)
    factor = max(1.0, _LEAST_STEPS / steps)
    epochs, patience = (round(factor * count) for count in (_RECIPE.epochs, _RECIPE.patience))
    return replace(_RECIPE, epochs=epochs, patience=patience)


def _listed() -> str:
    return ", ".join(MODELS)


def _recipe(entry: dict[str, Any]) -> Recipe:
    augmentation = Augmentation(**entry.pop("augmentation"))
    return Recipe(**entry, augmentation=augmentation)


_DOCUMENT = tomllib.loads(Path(__file__).with_name("models.toml").read_text(encoding="utf-8"))
_LEAST_STEPS: int = _DOCUMENT["recipe"].pop("least_steps")
_RECIPE = _recipe(_DOCUMENT["recipe"])

MODELS: Mapping[str, Model] = MappingProxyType(
    {entry["key"]: Model(**entry) for entry in _DOCUMENT["model"]}
)
