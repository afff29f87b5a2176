"""Whether trained specialists name the same labels in 8-bit integers as in float32.

Pretrained full-size weights are not everywhere at hand, and random ones decide within rounding. So
the shipped nano specialists are asked: trained, of the same ten families, but narrower than what is
rounded in use. Here their layers are rounded from `LEAST_WIDTH` and `LEAST_CHANNELS` on.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from service.demo import home
from service.demo.tasks import demo_tasks
from specialists import arithmetic, catalogue, graph_writer, integers, loader
from specialists.arithmetic import F32, Arithmetic
from specialists.loader import Specialist
from specialists.prediction import Pixels
from specialists.task import Task, TaskKind
from tests.benchmarks import runtimes

LEAST_WIDTH = integers.GROUP
LEAST_CHANNELS = 8
SEED = 23  # of the phantom series


@dataclass(frozen=True, slots=True)
class Agreement:
    """Shares of the images, and the largest difference of a probability."""

    task: str
    backbone: str
    rounded_layers: int
    same_label: float
    least_cosine: float
    largest_difference: float


def main(images: int, *, as_json: bool) -> None:
    torch.set_num_threads(1)
    found = [
        row
        for demo in demo_tasks()
        if demo.task.kind is TaskKind.SINGLE_LABEL
        for row in _rows(demo.task, [phantom.rgb for phantom in demo.series(images, SEED)])
    ]
    print(json.dumps([asdict(one) for one in found], indent=2) if as_json else _markdown(found))


def _rows(task: Task, pictures: list[Pixels]) -> Iterator[Agreement]:
    for key in catalogue.panel_of(task):
        plain = loader.load(home.SHIPPED / task.name / key, task)
        trunk, rounded_layers = _in_integers(plain)
        if rounded_layers:
            yield _compared(plain, trunk, rounded_layers, pictures)


def _in_integers(plain: Specialist) -> tuple[Any, int]:
    """Its trunk with integers, and how many layers have them."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "trunk.xml"
        graph_writer.write(plain.model, plain.manifest.preprocessing.input_size, file)
        core = arithmetic.new_core()
        graph = core.read_model(file)
        count = integers.quantise(graph, LEAST_WIDTH)
        count += integers.quantise_convolutions(graph, LEAST_CHANNELS)
        request = arithmetic.compiled(core, graph, Arithmetic(F32, integers=True))

    def trunk(images: Tensor) -> Tensor:
        request.infer([images.contiguous().numpy()])
        return torch.from_numpy(request.get_output_tensor(0).data.copy())

    return trunk, count


@torch.inference_mode()
def _compared(plain: Specialist, trunk: Any, layers: int, pictures: list[Pixels]) -> Agreement:
    parts = torch.split(runtimes.seen(plain, pictures), runtimes.BATCH)
    ours = torch.cat([trunk(part) for part in parts])
    exact = torch.cat([plain.model.embed(part) for part in parts])
    said, truth = (plain.model.classify(one).softmax(dim=1) for one in (ours, exact))
    return Agreement(
        task=plain.manifest.task,
        backbone=plain.name,
        rounded_layers=layers,
        same_label=float((said.argmax(1) == truth.argmax(1)).float().mean()),
        least_cosine=float(torch.cosine_similarity(ours, exact).min()),
        largest_difference=float((said - truth).abs().max()),
    )


def _markdown(found: list[Agreement]) -> str:
    head = "| task | backbone | layers | same label | least cosine | largest difference |"
    rows = (
        f"| {one.task} | {one.backbone} | {one.rounded_layers} | {one.same_label:.4f} "
        f"| {one.least_cosine:.5f} | {one.largest_difference:.4f} |"
        for one in found
    )
    return "\n".join([head, "|---|---|--:|--:|--:|--:|", *rows])
