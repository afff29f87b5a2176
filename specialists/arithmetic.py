"""In which numbers graphs compute fastest on this machine: measured, not read from its flags.

A CPU may have instructions for bfloat16 and be slower with them than in float32; another multiplies
8-bit integers several times as fast as either (docs/results/panel.md).
"""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specialists import integers

F32, BF16 = "f32", "bf16"  # as OpenVINO names them
SPOKEN = {F32: "float32", BF16: "bfloat16"}
TOKENS, WIDTH, HIDDEN = 197, 768, 3072  # of the first half of an MLP of ViT-B/16
ROUNDS = 5
WORTH = 1.2
"""Integers are taken where they are at least this many times as fast as the faster floats."""
UNABLE = (RuntimeError, ImportError, OSError)
"""What OpenVINO raises where it cannot be loaded, or compute in some numbers."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`floats` of all that a graph computes; `integers`: its large layers multiply 8-bit ones."""

    floats: str
    integers: bool = False

    def __str__(self) -> str:
        floats = SPOKEN[self.floats]
        return f"8-bit integers and {floats}" if self.integers else floats


NUMBERS = frozenset(str(Arithmetic(floats, how)) for floats in SPOKEN for how in (False, True))
"""What a specialist may be said to be computed in."""


@cache
def fastest_first() -> tuple[Arithmetic, ...]:
    """What to try here; nothing where OpenVINO computes nothing. Measured once, in a second."""
    ways = ordered(measured())
    logger.info("graphs compute in %s", ", or else ".join(map(str, ways)) or "nothing")
    return ways


def ordered(taken: Mapping[Arithmetic, float]) -> tuple[Arithmetic, ...]:
    """The floats, the faster first; before them the best integers, where those are worth it."""
    by_time = sorted(taken, key=taken.__getitem__)
    floats = tuple(one for one in by_time if not one.integers)
    if not floats:
        return ()
    limit = taken[floats[0]] / WORTH
    worth_it = tuple(one for one in by_time if one.integers and taken[one] <= limit)
    return (*worth_it[:1], *floats)


def measured() -> dict[Arithmetic, float]:
    """Seconds of a dense layer as large as ViT-B/16 has them, on one core, by arithmetic.

    Only what works: OpenVINO also names numbers that it then cannot compute in.
    """
    try:
        core = new_core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except UNABLE:
        return {}
    names = [name for name in (F32, BF16) if name == F32 or name.upper() in capabilities]
    every = [Arithmetic(name, how) for name in names for how in (False, True)]
    tokens = np.random.default_rng(0).standard_normal((TOKENS, WIDTH), np.float32)
    ready = {one: request for one in every if (request := _tried(core, one, tokens)) is not None}
    return dict(zip(ready, least_seconds([*ready.values()], tokens), strict=True))


def least_seconds(requests: Sequence[Any], given: NDArray[np.float32]) -> list[float]:
    """Of each request, the least of what it takes in turn with the others.

    Whatever else computes on the machine meanwhile disturbs all of them alike.
    """
    taken: list[list[float]] = [[] for _ in requests]
    for _ in range(ROUNDS):
        for request, seconds in zip(requests, taken, strict=True):
            started = time.perf_counter()
            request.infer([given])
            seconds.append(time.perf_counter() - started)
    return [min(seconds) for seconds in taken]


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


def _tried(core: Any, how: Arithmetic, tokens: NDArray[np.float32]) -> Any | None:
    """A request that has computed once, or nothing."""
    try:
        request = compiled(core, _dense_layer(how), how)
        request.infer([tokens])
    except UNABLE as error:
        logger.info("no graph computes in %s here: %s", how, error)
        return None
    return request


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
