"""What a work folder is for: one training, so that nothing is mixed up there.

Everything that training makes is kept by name alone; with other data, other specialists, another
recipe or another base it would silently go on from what belongs to neither.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import Misconfigured
from service.generalist.checkpoint import Checkpoint
from service.generalist.training.examples import Dialogue, Taught
from service.generalist.training.recipe import Recipe
from service.generalist.training.train import Sources
from specialists import catalogue, loader
from specialists.errors import InvalidSpecialist

FILE = "plan.json"
PARTS = {
    "data": "choice of data",
    "panels": "choice of specialists",
    "recipe": "recipe or effort",
    "base": "--base",
}


def claim(work: Path, sources: Sources, recipe: Recipe, base: Checkpoint | None = None) -> None:
    """Make the work folder this training's own; raises Misconfigured where it is another's."""
    document = {
        "data": fingerprints(sources),
        "panels": panels(sources),
        "recipe": asdict(recipe),
        "base": base.weights_sha256 if base else "",
    }
    mine = json.loads(json.dumps(document))
    path = work / FILE
    if path.exists():
        _compare(work, json.loads(path.read_text("utf-8")), mine)
        return
    work.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".part")
    fresh.write_text(json.dumps(mine, indent=1))
    fresh.replace(path)


def fingerprints(sources: Sources) -> Mapping[str, str]:
    """Everything that is learned from by name, each with what tells it from another."""
    return {
        **{f"phantoms {one.task.name}": "" for one in sources.demos},
        **{f"data {one.task.name}": one.dataset.fingerprint() for one in sources.hospitals},
        **{f"questions {one.task.name}": _of_texts(one) for one in sources.dialogues},
        **{f"instructions {one.task.name}": _of_texts(one) for one in sources.taught},
    }


def panels(sources: Sources) -> Mapping[str, Any]:
    """Whose evidence is learned from: shipped specialists, and those to be trained as stand-ins."""
    shipped = {
        one.task.name: _weights(sources.specialists / one.task.name, catalogue.panel_of(one.task))
        for one in sources.demos
    }
    trunks = {key: loader.sha256(file.read_bytes()) for key, file in sources.trunks.items()}
    stand_ins = {
        one.task.name: {
            "labels": [one.task.kind, *one.task.label_names],
            "panel": {key: trunks.get(key, "") for key in catalogue.panel_of(one.task)},
        }
        for one in sources.hospitals
    }
    return {**shipped, **stand_ins}


def _weights(folder: Path, panel: Sequence[str]) -> dict[str, str]:
    found = {}
    for key in panel:
        try:
            found[key] = loader.read_manifest(folder / key).weights_sha256
        except InvalidSpecialist:
            found[key] = ""
    return found


def _compare(work: Path, kept: dict[str, Any], mine: dict[str, Any]) -> None:
    for part, words in PARTS.items():
        if kept.get(part) != mine[part]:
            raise Misconfigured(
                f"'{work}' belongs to a training with another {words}: "
                "give another --work, or delete it"
            )


def _of_texts(one: Dialogue | Taught) -> str:
    digest = hashlib.sha256(json.dumps(one.rows).encode())
    digest.update(np.ascontiguousarray(one.images).tobytes())
    return digest.hexdigest()
