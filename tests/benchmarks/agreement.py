"""Whether the panel's fast way names the same labels as PyTorch in float32.

Trunks have random weights, unless a folder of specialists is given; a last layer that is random too
decides by chance, so one is fitted here: a linear probe on some phantoms' float32 embeddings. Both
ways are asked about others, with their truth.
"""

import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from service.demo.phantoms import Phantom
from service.demo.tasks import demo_tasks
from specialists import loader, runtime
from specialists.pool import WORKERS
from tests.benchmarks import panel, runtimes
from tests.benchmarks.panel import TASK, Options

FITTED, COMPARED = 17, 23  # seeds of the phantom series


@dataclass(frozen=True, slots=True)
class Agreement:
    """Shares of the compared images, and the largest difference of a probability."""

    backbone: str
    right: float  # of PyTorch in float32
    same_label: float
    least_cosine: float
    largest_difference: float


def main(options: Options, fitted: int, compared: int, *, as_json: bool) -> None:
    demo = demo_tasks()[0]
    known, asked = list(demo.series(fitted, FITTED)), list(demo.series(compared, COMPARED))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = options.specialists or panel.made(Path(name) / TASK.name, options)
        with ThreadPoolExecutor(WORKERS) as threads:
            found = list(
                threads.map(lambda key: _agreement(folder / key, known, asked), options.backbones)
            )
    machine = panel.machine("cpu")
    if as_json:
        print(json.dumps({"machine": machine, "rows": [asdict(one) for one in found]}, indent=2))
        return
    print(_markdown(machine, found))


def _agreement(folder: Path, known: Sequence[Phantom], asked: Sequence[Phantom]) -> Agreement:
    torch.set_num_threads(1)
    plain = loader.load(folder)
    fast = runtime.ready(folder, panel._task_of(folder))
    pictures = [phantom.rgb for phantom in (*known, *asked)]
    seen = runtimes.seen(plain, pictures)
    exact = runtimes.in_parts(plain, seen)[1]
    quick = runtimes.in_parts(fast, seen[len(known) :])[1]
    ours, theirs = _probabilities(exact, quick, [" ".join(one.labels) for one in known])
    truth = np.array([" ".join(one.labels) for one in asked])
    return Agreement(
        backbone=plain.name,
        right=float((theirs.labels == truth).mean()),
        same_label=float((ours.labels == theirs.labels).mean()),
        least_cosine=float((quick * exact[len(known) :]).sum(axis=1).min()),
        largest_difference=float(np.abs(ours.shares - theirs.shares).max()),
    )


@dataclass(frozen=True, eq=False)
class _Said:
    labels: NDArray[np.str_]
    shares: NDArray[np.float64]


def _probabilities(
    exact: NDArray[np.float32], quick: NDArray[np.float32], truth: Sequence[str]
) -> tuple[_Said, _Said]:
    """Of the quick and of the exact embeddings, by a probe of the first exact ones."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    probe.fit(exact[: len(truth)], truth)
    ours, theirs = (
        _Said(probe.predict(one), probe.predict_proba(one)) for one in (quick, exact[len(truth) :])
    )
    return ours, theirs


def _markdown(machine: str, found: Sequence[Agreement]) -> str:
    head = "| backbone | right | same label | least cosine | largest difference of a probability |"
    rows = (
        f"| {one.backbone} | {one.right:.3f} | {one.same_label:.3f} "
        f"| {one.least_cosine:.5f} | {one.largest_difference:.3f} |"
        for one in found
    )
    return "\n".join([machine, "", head, "|---|--:|--:|--:|--:|", *rows])
