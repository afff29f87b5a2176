"""What a work folder is for: one recipe on one set of data, so that nothing is mixed up there.

Everything that training makes is kept by name alone; another recipe or another data set would
silently go on from what belongs to neither.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import Misconfigured
from service.generalist.training.examples import Dialogue, Taught
from service.generalist.training.recipe import Recipe
from service.generalist.training.train import Sources

FILE = "plan.json"


def claim(work: Path, sources: Sources, recipe: Recipe) -> None:
    """Make the work folder this training's own; raises Misconfigured where it is another's."""
    mine = json.loads(json.dumps({"data": fingerprints(sources), "recipe": asdict(recipe)}))
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


def _compare(work: Path, kept: dict[str, Any], mine: dict[str, Any]) -> None:
    for part in ("data", "recipe"):
        if kept.get(part) != mine[part]:
            raise Misconfigured(
                f"'{work}' belongs to a training with another {_named(part)}: "
                "give another --work, or delete it"
            )


def _named(part: str) -> str:
    return "recipe or effort" if part == "recipe" else "choice of data"


def _of_texts(one: Dialogue | Taught) -> str:
    digest = hashlib.sha256(json.dumps(one.rows).encode())
    digest.update(np.ascontiguousarray(one.images).tobytes())
    return digest.hexdigest()
