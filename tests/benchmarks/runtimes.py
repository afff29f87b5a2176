"""Ways to compute one backbone, in turn on the same images: why the panel computes as it does."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from specialists import transforms
from specialists.forward import Arrays, forward
from specialists.loader import Specialist, Trunk
from specialists.prediction import Pixels

BATCH = 8
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds an image, by way: alone and of a batch; what the chosen way says.

    On a CPU of processor time, one thread: what other jobs take does not count.
    """

    backbone: str
    gflop: float
    alone: dict[str, float]
    batch: dict[str, float]
    same_label: float
    least_cosine: float


def row(
    plain: Specialist,
    fast: Specialist,
    pictures: Sequence[Pixels],
    others: Mapping[str, Specialist],
    *,
    compiler: bool,
) -> Row:
    """`fast` is the chosen way; `compiler` adds torch.compile, which takes minutes."""
    images = seen(plain, pictures)
    ways = {"float32": plain, "chosen": fast, **others, **_others(plain, compiler=compiler)}
    on_cpu = next(plain.model.parameters()).device.type == "cpu"
    clock = time.thread_time if on_cpu else time.perf_counter
    alone, batch = (
        in_turn({name: partial(forward, one, some) for name, one in ways.items()}, clock=clock)
        for some in (images[:1], images[:BATCH])
    )
    ours, theirs = in_parts(fast, images), in_parts(plain, images)
    return Row(
        backbone=plain.name,
        gflop=flops(plain) / 1e9,
        alone=alone,
        batch={name: taken / BATCH for name, taken in batch.items()},
        same_label=float((ours[0].argmax(1) == theirs[0].argmax(1)).mean()),
        least_cosine=float((ours[1] * theirs[1]).sum(axis=1).min()),
    )


def seen(one: Specialist, pictures: Sequence[Pixels]) -> torch.Tensor:
    """What a specialist sees of pictures, (pictures, 3, size, size)."""
    how = one.manifest.preprocessing
    resized = transforms.resize_all(pictures, how.input_size)
    return transforms.normalise(resized, how.mean, how.std)


def in_turn(
    works: Mapping[str, Callable[[], object]],
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median milliseconds of each, one after the other, several rounds after one to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            started = clock()
            work()
            if turn:
                taken[name].append(1000 * (clock() - started))
    return {name: statistics.median(one) for name, one in taken.items()}


def in_parts(one: Specialist, images: torch.Tensor) -> Arrays:
    parts = [forward(one, part) for part in torch.split(images, BATCH)]
    probabilities, embeddings = zip(*parts, strict=True)
    return np.concatenate(probabilities), np.concatenate(embeddings)


def flops(one: Specialist) -> int:
    """Floating-point operations of one image, two for each multiplication with its addition."""
    size = one.manifest.preprocessing.input_size
    device = next(one.model.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        one.model(torch.zeros(1, 3, size, size, device=device))
    return int(counter.get_total_flops())


def _others(plain: Specialist, *, compiler: bool) -> dict[str, Specialist]:
    if next(plain.model.parameters()).device.type != "cpu":
        return {}
    ways: dict[str, Trunk] = {"autocast": _autocast(plain)}
    if compiler:
        ways["torch.compile"] = _compiled(plain)
    return {name: replace(plain, trunk=trunk) for name, trunk in ways.items()}


def _autocast(plain: Specialist) -> Trunk:
    def trunk(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return plain.model.embed(images.to(memory_format=torch.channels_last)).float()

    return trunk


def _compiled(plain: Specialist) -> Trunk:
    """Weights frozen and in bfloat16; compiled anew for every batch size."""
    import copy

    from torch._inductor import config

    config.freezing = True
    config.cpp.threads = 1
    half = copy.deepcopy(plain.model).to(torch.bfloat16).to(memory_format=torch.channels_last)
    compiled: Any = torch.compile(half.embed, dynamic=False)

    def trunk(images: torch.Tensor) -> torch.Tensor:
        seen: torch.Tensor = compiled(images.bfloat16().to(memory_format=torch.channels_last))
        return seen.float()

    return trunk
