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
from service.generalist import checkpoint
from service.generalist.training.examples import Dialogue, Taught
from service.generalist.training.recipe import Recipe
from service.generalist.training.train import Sources
from specialists.task import Task
from specialists.training import evaluate

FILE = "plan.json"


def claim(work: Path, sources: Sources, recipe: Recipe, base: Path | None = None) -> None:
    """Make the work folder this training's own; raises Misconfigured where it is another's."""
    begun = {} if base is None else {"base": checkpoint.fingerprint(base)}
    data = {**fingerprints(sources), **begun}
    mine = json.loads(json.dumps({"data": data, "recipe": asdict(recipe)}))
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
        **{f"phantoms {one.task.name}": _of_panel(sources, one.task) for one in sources.demos},
        "what specialists begin from": _of_files(sources.trunks) if sources.hospitals else "",
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


def _of_panel(sources: Sources, task: Task) -> str:
    """What its specialists say is learned from too."""
    panel, _ = evaluate.load_panel(sources.specialists / task.name, task)
    return " ".join(one.manifest.weights_sha256 for one in panel)


def _of_files(files: Mapping[str, Path]) -> str:
    return " ".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files.values())


def _of_texts(one: Dialogue | Taught) -> str:
    digest = hashlib.sha256(json.dumps(one.rows).encode())
    digest.update(np.ascontiguousarray(one.images).tobytes())
    return digest.hexdigest()
