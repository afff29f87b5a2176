"""Whether full-size specialists say the same as in PyTorch's float32, the way they are computed.

Trunks are random, as no pretrained ones travel with the project; the last layer is a linear probe
learned from phantoms, so that labels mean something and images differ. Every other phantom is seen
by none of it.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from service.demo.tasks import demo_tasks
from specialists import loader, runtime
from specialists.loader import Specialist
from specialists.prediction import Pixels
from specialists.training import heads, probe
from specialists.training.heads import Known
from specialists.training.split import Targets
from tests.benchmarks import panel, runtimes

LEARNED = 100
PENALTIES = (1e-2, 1e-1, 1.0)


@dataclass(frozen=True, slots=True)
class Agreement:
    """On so many images: right labels in float32, other labels the way it computes."""

    backbone: str
    images: int
    right: float
    other_labels: int
    least_cosine: float


def main(images: int, *, as_json: bool) -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    rows = list(_rows(images))
    print(json.dumps([asdict(row) for row in rows]) if as_json else _markdown(rows))


def _rows(images: int) -> Iterator[Agreement]:
    phantoms = list(demo_tasks()[0].series(LEARNED + images, seed=37))
    pictures = [phantom.rgb for phantom in phantoms]
    truth = np.array([int(phantom.labels != ("normal",)) for phantom in phantoms])
    with tempfile.TemporaryDirectory() as name:
        folder = panel.made(Path(name) / panel.TASK.name, panel.Options())
        for place in sorted(folder.iterdir()):
            plain = loader.load(place)
            _teach(plain, pictures[:LEARNED], truth[:LEARNED])
            loader.save(place, plain.model, plain.manifest)
            yield _compared(place, pictures[LEARNED:], truth[LEARNED:])


def _teach(plain: Specialist, pictures: Sequence[Pixels], truth: Targets) -> None:
    """Gives it a last layer that tells the phantoms apart."""
    with torch.inference_mode():
        embedded = [plain.model.embed(part) for part in _batches(plain, pictures)]
    known = Known(torch.cat(embedded).numpy(), truth)
    judged = Known(known.features[::4], truth[::4])
    probe.put_on(plain.model, heads.linear(panel.TASK, known, judged, PENALTIES))


def _compared(place: Path, pictures: Sequence[Pixels], truth: Targets) -> Agreement:
    plain, fast = loader.load(place), runtime.ready(place, panel.TASK, "cpu")
    images = runtimes.seen(plain, pictures)
    ours, theirs = runtimes.in_parts(fast, images), runtimes.in_parts(plain, images)
    said, meant = ours[0].argmax(1), theirs[0].argmax(1)
    cosines = (ours[1] * theirs[1]).sum(axis=1)
    return Agreement(
        backbone=plain.name,
        images=len(pictures),
        right=float((meant == truth).mean()),
        other_labels=int((said != meant).sum()),
        least_cosine=float(cosines.min()),
    )


def _batches(one: Specialist, pictures: Sequence[Pixels]) -> Sequence[torch.Tensor]:
    return torch.split(runtimes.seen(one, pictures), runtimes.BATCH)


def _markdown(rows: Sequence[Agreement]) -> str:
    asked, others = sum(row.images for row in rows), sum(row.other_labels for row in rows)
    lines = [
        f"{panel.machine('cpu')}",
        "",
        "| backbone | right in float32 | other label | same label | least cosine |",
        "|---|--:|--:|--:|--:|",
        *(
            f"| {row.backbone} | {row.right:.3f} | {row.other_labels} of {row.images} "
            f"| {1 - row.other_labels / row.images:.4f} | {row.least_cosine:.5f} |"
            for row in rows
        ),
        f"| all | | {others} of {asked} | {1 - others / asked:.4f} | |",
    ]
    return "\n".join(lines)
