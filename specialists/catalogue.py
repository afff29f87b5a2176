"""The backbones that may sit on a panel, as data: `catalogue.toml`, read once. Free of torch."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from specialists.errors import UnknownBackbone
from specialists.task import Task


class Scale(StrEnum):
    """The size of a specialist: the paper's backbone, or a small relative for laptops and tests."""

    FULL = "full"
    NANO = "nano"


class Procedure(StrEnum):
    """How a backbone becomes a specialist: all of it is trained, or a linear layer on top."""

    END_TO_END = "end-to-end"
    LINEAR_PROBE = "linear-probe"


class Precision(StrEnum):
    """What a training computes in; `auto` is bfloat16 autocast where the hardware has it."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, slots=True)
class Architecture:
    """How a backbone is built at one scale, and what it expects to see."""

    constructor: str  # "timm:NAME", or "module:function"
    input_size: int  # pixels, width and height
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dimension: int  # of the embedding, the pooled pre-logits
    heat_layer: str  # the backbone's module whose output a heat map is made of
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Backbone:
    """One backbone of the catalogue at every scale it comes in."""

    key: str
    name: str
    pretrained: str  # the pinned weights that the full scale starts from
    licence: str  # of the pretrained weights
    scales: Mapping[Scale, Architecture]
    from_file: bool = False  # the full scale is trained only from a file of pretrained weights

    def at(self, scale: Scale) -> Architecture:
        """The architecture at a scale; raises UnknownBackbone where there is none."""
        if scale not in self.scales:
            raise UnknownBackbone(f"backbone {self.key!r} has no scale {scale.value!r}")
        return self.scales[scale]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How specialists of one scale are trained; `patience` counts epochs without improvement."""

    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_epochs: float
    balanced: bool  # rare labels weigh more
    precision: Precision
    augmentation: "Augmentation"


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The largest random change of a training image; zeros change nothing."""

    flip: bool = False  # left and right; wrong where the side matters, as in a chest X-ray
    shift: float = 0.0  # share of the width
    rotation: float = 0.0  # degrees
    zoom: float = 0.0  # share, in and out
    contrast: float = 0.0  # share
    brightness: float = 0.0  # share of the full range

    def scaled(self, strength: float) -> "Augmentation":
        """The same changes, larger or smaller; flipping stays as it is."""
        amounts = {name: value * strength for name, value in asdict(self).items() if name != "flip"}
        return replace(self, **amounts)


def find(key: str) -> Backbone:
    """The backbone of that key; raises UnknownBackbone with the keys that exist."""
    if key not in CATALOGUE:
        raise UnknownBackbone(f"unknown backbone {key[:80]!r}; known: {', '.join(CATALOGUE)}")
    return CATALOGUE[key]


def panel_of(task: Task) -> tuple[str, ...]:
    """The backbones expected to answer a task, in the panel's order: its own list, or the ten."""
    return task.panel or PANEL


def at_scale(scale: Scale) -> tuple[str, ...]:
    """Every backbone that comes in a scale, the panel's first."""
    return tuple(key for key, backbone in CATALOGUE.items() if scale in backbone.scales)


def recipe_of(scale: Scale, images: int | None = None) -> Recipe:
    """The default training recipe of a scale, with more epochs where there are few images."""
    fields = dict(_DOCUMENT["recipe"][scale])
    least_steps = fields.pop("least_steps")
    augmentation = Augmentation(**fields.pop("augmentation", {}))
    precision = Precision(fields.pop("precision"))
    recipe = Recipe(**fields, precision=precision, augmentation=augmentation)
    return recipe if images is None else _stretched(recipe, images, least_steps)


def augmentation_of(scale: Scale) -> Augmentation:
    """The recipe's own augmentation, or what is usual where the recipe has none."""
    own = recipe_of(scale).augmentation
    return Augmentation(**_DOCUMENT["augmentation"]) if own == Augmentation() else own


def probe_penalties() -> tuple[float, ...]:
    """The L2 penalties among which a linear probe chooses."""
    return tuple(_DOCUMENT["probe"]["penalties"])


def _stretched(recipe: Recipe, images: int, least_steps: int) -> Recipe:
    factor = max(1.0, least_steps / (recipe.epochs * math.ceil(images / recipe.batch_size)))
    return replace(
        recipe,
        epochs=round(recipe.epochs * factor),
        patience=round(recipe.patience * factor),
        warmup_epochs=recipe.warmup_epochs * factor,
    )


def _backbone(entry: Mapping[str, Any]) -> Backbone:
    scales = {scale: _architecture(entry[scale]) for scale in Scale if scale in entry}
    names = ("key", "name", "pretrained", "licence")
    return Backbone(
        **{name: entry[name] for name in names},
        scales=MappingProxyType(scales),
        from_file=entry.get("from_file", False),
    )


def _architecture(entry: Mapping[str, Any]) -> Architecture:
    mean, std = _DOCUMENT["colours"][entry["colours"]]
    return Architecture(
        constructor=entry["constructor"],
        input_size=entry["input_size"],
        mean=tuple(mean),
        std=tuple(std),
        dimension=entry["dimension"],
        heat_layer=entry["heat_layer"],
        arguments=MappingProxyType(entry.get("arguments", {})),
    )


_DOCUMENT = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))

CATALOGUE: Mapping[str, Backbone] = MappingProxyType(
    {entry["key"]: _backbone(entry) for entry in _DOCUMENT["backbone"]}
)
PANEL: tuple[str, ...] = tuple(_DOCUMENT["panel"])
"""The ten of the paper, in the order in which the panel speaks."""
