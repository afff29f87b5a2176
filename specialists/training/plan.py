"""What is asked of a training: everything that its result depends on, and a name for that."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from specialists import catalogue, loader
from specialists.catalogue import Architecture, Precision, Procedure, Recipe, Scale
from specialists.task import Task
from specialists.training.dataset import Dataset
from specialists.training.pretrained import Pretrained


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One call's wish for all of its backbones; of several `seeds` the best is kept."""

    task: Task
    dataset: Dataset
    fingerprint: str  # of the dataset
    scale: Scale
    procedure: Procedure
    recipe: Recipe
    seeds: tuple[int, ...]
    begins: Mapping[str, Pretrained]
    licence: str
    device: str

    def architecture(self, key: str) -> Architecture:
        return catalogue.find(key).at(self.scale)

    def run(self, key: str) -> str:
        """sha256 of everything the result depends on; two runs of one name give one specialist."""
        architecture = self.architecture(key)
        parts: dict[str, Any] = {
            "task": [self.task.name, self.task.kind, self.task.label_names],
            "backbone": [key, self.scale, architecture.constructor, dict(architecture.arguments)],
            "preprocessing": asdict(loader.preprocessing_of(architecture)),
            "recipe": _told(self.recipe),
            "data": self.fingerprint,
        }
        if self.procedure is Procedure.LINEAR_PROBE:
            penalties = catalogue.probe_penalties()
            parts["recipe"] = {**self.recipe_of_probe(), "penalties": penalties}
            parts["procedure"] = self.procedure
        else:
            parts["seed"] = self.seeds[0] if len(self.seeds) == 1 else self.seeds
        if begun := self.begins.get(key):
            parts["weights"] = begun.sha256
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def recipe_of_probe(self) -> dict[str, Any]:
        """The part of the recipe that matters to a layer which is fitted, not trained."""
        return {"balanced": self.recipe.balanced, "precision": self.recipe.precision}


def _told(recipe: Recipe) -> dict[str, Any]:
    """Without what is as it was before it could be chosen: such trainings keep their names."""
    told = asdict(recipe)
    if recipe.precision is Precision.FLOAT32:
        del told["precision"]
    return told
