"""Pointing game: how often the hottest place of a specialist's map lies on the phantom's lesion.

Beside it, in the same run: chance (the lesion's share of the image), the map of another phantom
with the same label, and Grad-CAM with gradients averaged over the map, as published in 2017.
"""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from service.demo import lesions
from service.demo.tasks import demo_tasks
from specialists import gradcam, loader
from specialists.catalogue import PANEL
from specialists.overlay import enlarge
from specialists.prediction import Heat

TASK = "phantom-cxr"
SEED = 2027
SHIPPED = Path(lesions.__file__).parent / "specialists"


def main(cases: int, *, as_json: bool) -> None:
    rows = pointing_game(cases)
    print(json.dumps(rows, indent=2) if as_json else as_table(rows))


def pointing_game(count: int) -> list[dict[str, object]]:
    demo = next(demo for demo in demo_tasks() if demo.task.name == TASK)
    healthy = demo.task.label_names[0]
    drawn = (one for one in demo.series(2 * count + 8, SEED) if one.labels[0] != healthy)
    phantoms = list(islice(drawn, count))
    truths = [lesions.mask(one) for one in phantoms]
    others = [_another(place, [one.labels[0] for one in phantoms]) for place in range(count)]
    rows: list[dict[str, object]] = []
    for key in PANEL:
        specialist = loader.load(SHIPPED / TASK / key, demo.task)
        maps, averaged, right = [], [], 0
        for one in phantoms:
            label = demo.task.label_names.index(one.labels[0])
            traced = gradcam.trace(specialist, one.rgb, label)
            weights = traced.gradient.mean(dim=(1, 2), keepdim=True)
            maps.append(gradcam.scaled((traced.activation * traced.gradient).sum(0)))
            averaged.append(gradcam.scaled((traced.activation * weights).sum(0)))
            right += int(traced.logits.argmax()) == label
        rows.append(
            {
                "specialist": key,
                "right_labels": right / count,
                "pointing_game": _share(maps, truths),
                "another_phantoms_map": _share([maps[place] for place in others], truths),
                "averaged_gradients": _share(averaged, truths),
                "chance": float(np.mean([truth.mean() for truth in truths])),
            }
        )
    return rows


def _another(place: int, labels: Sequence[str]) -> int:
    """The next phantom with the same label, around the end."""
    following = [*range(place + 1, len(labels)), *range(place)]
    return next(other for other in following if labels[other] == labels[place])


def _share(maps: Sequence[Heat], truths: Sequence[np.ndarray]) -> float:
    return float(np.mean([_points(one, truth) for one, truth in zip(maps, truths, strict=True)]))


def _points(grid: Heat, truth: np.ndarray) -> bool:
    heat = enlarge(grid, *truth.shape)
    return bool(heat.any() and truth.flat[heat.argmax()])


def as_table(rows: list[dict[str, object]]) -> str:
    names = list(rows[0])
    lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |"]
    lines.append("|---" + "|--:" * (len(names) - 1) + "|")
    for row in rows:
        cells = (f"{value:.3f}" if isinstance(value, float) else value for value in row.values())
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
