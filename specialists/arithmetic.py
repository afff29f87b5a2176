"""In which numbers graphs compute fastest on this machine: measured, not read from its flags.

A CPU may have instructions for bfloat16 and be slower with them than in float32; another multiplies
8-bit integers several times as fast as either (docs/results/panel.md).
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from specialists import integers

F32, BF16 = "f32", "bf16"  # as OpenVINO names them
TOKENS, WIDTH, HIDDEN = 197, 768, 3072  # of the first half of an MLP of ViT-B/16
ROUNDS = 5
WORTH = 1.2
"""Integers are taken where they are at least this many times as fast as the faster floats."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`floats` of all that a graph computes; `integers`: its dense layers multiply 8-bit ones."""

    floats: str
    integers: bool = False

    def __str__(self) -> str:
        return f"8-bit integers and {self.floats}" if self.integers else self.floats


@cache
def fastest_first() -> tuple[Arithmetic, ...]:
    """What to try here, floats last; measured once, which takes a second."""
    return ordered(measured())


def ordered(taken: Mapping[Arithmetic, float]) -> tuple[Arithmetic, ...]:
    """The faster floats; before them the same with integers, where those are worth it."""
    floats = min((one for one in taken if not one.integers), key=taken.__getitem__)
    with_integers = replace(floats, integers=True)
    if taken[floats] < WORTH * taken[with_integers]:
        return (floats,)
    return with_integers, floats


def measured() -> dict[Arithmetic, float]:
    """Seconds of a dense layer as large as ViT-B/16 has them, one core, by arithmetic."""
    core = new_core()
    has_bf16 = BF16.upper() in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    every = [Arithmetic(name, how) for name in (F32, BF16)[: 1 + has_bf16] for how in (False, True)]
    ready = {one: compiled(core, _dense_layer(one), one) for one in every}
    tokens = np.random.default_rng(0).standard_normal((TOKENS, WIDTH), np.float32)
    taken: dict[Arithmetic, list[float]] = {one: [] for one in every}
    for _ in range(1 + ROUNDS):  # the least of them: the first prepares, others may be disturbed
        for one, request in ready.items():
            started = time.perf_counter()
            request.infer([tokens])
            taken[one].append(time.perf_counter() - started)
    return {one: min(seconds) for one, seconds in taken.items()}


def new_core() -> Any:
    """OpenVINO's, which does not report to its maker."""
    without_telemetry()
    import openvino

    return openvino.Core()


def without_telemetry() -> None:
    """OpenVINO's converter reports to its maker, unless that package is missing."""
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)


def compiled(core: Any, graph: Any, arithmetic: Arithmetic) -> Any:
    """A request of a graph, or of the file of one, that computes on one core."""
    settings = {
        "INFERENCE_PRECISION_HINT": arithmetic.floats,
        "INFERENCE_NUM_THREADS": 1,
        "ENABLE_CPU_PINNING": False,  # it pins every graph of one thread to the same core
        "PERFORMANCE_HINT": "LATENCY",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": integers.GROUP,
    }
    return core.compile_model(graph, "CPU", settings).create_infer_request()


def _dense_layer(arithmetic: Arithmetic) -> Any:
    import openvino
    from openvino import opset13

    weights = np.random.default_rng(1).standard_normal((HIDDEN, WIDTH), np.float32)
    tokens = opset13.parameter([TOKENS, WIDTH], np.float32)
    layer = opset13.matmul(tokens, opset13.constant(weights), False, True)
    graph = openvino.Model([layer], [tokens])
    if arithmetic.integers:
        integers.quantise(graph)
    return graph
