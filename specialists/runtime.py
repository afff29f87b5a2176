"""How a full-size specialist computes: in PyTorch as it was trained, or as a compiled graph.

Chosen by measurement (docs/results/panel.md, docs/decisions/0007-compiled-specialists.md): on a
CPU the graph in bfloat16 answers a single image about as fast as one of a batch. Nano models stay
as they are: they gain little, and their figures stay those of training.
"""

import importlib.util
import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specialists.catalogue import Scale
from specialists.loader import Compute, Specialist

BF16 = "BF16"

logger = logging.getLogger(__name__)


class CompiledGraph:
    """The model exported to OpenVINO, on one core, in bfloat16 where the CPU computes in it.

    Several threads may call it; they take turns. `cache` keeps what was compiled, so that the next
    start is quicker.
    """

    def __init__(self, model: torch.nn.Module, size: int, cache: Path | None = None) -> None:
        import openvino

        core = openvino.Core()
        if cache is not None:
            core.set_property({"CACHE_DIR": str(cache)})
        precise = BF16 not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        graph = openvino.convert_model(model, example_input=torch.zeros(2, 3, size, size))
        graph.reshape([-1, 3, size, size])
        settings = {
            "INFERENCE_PRECISION_HINT": "f32" if precise else "bf16",
            "INFERENCE_NUM_THREADS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._request: Any = core.compile_model(graph, "CPU", settings).create_infer_request()
        self._turn = threading.Lock()

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with self._turn:
            self._request.infer([images.contiguous().numpy()])
            logits, embeddings = (
                torch.from_numpy(self._request.get_output_tensor(place).data.copy())
                for place in (0, 1)
            )
        return logits, embeddings


def accelerated(specialist: Specialist, device: str, cache: Path | None = None) -> Specialist:
    """The specialist with the fastest way to compute it here; as it is where there is none."""
    if specialist.manifest.scale is not Scale.FULL:
        return specialist
    if device.startswith("cuda"):
        return replace(specialist, compute=_half(specialist.model))
    if device == "cpu" and importlib.util.find_spec("openvino"):
        return _compiled(specialist, cache)
    return specialist


def _half(model: torch.nn.Module) -> Compute:
    def compute(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cuda", torch.bfloat16):
            logits, embeddings = model(images)
        return logits.float(), embeddings.float()

    return compute


def _compiled(specialist: Specialist, cache: Path | None) -> Specialist:
    size = specialist.manifest.preprocessing.input_size
    try:
        return replace(specialist, compute=CompiledGraph(specialist.model, size, cache))
    except RuntimeError:  # OpenVINO's own errors are of no other class
        logger.warning("%s cannot be compiled and computes uncompiled", specialist.name)
        return specialist
