"""How a full-size specialist computes: in PyTorch as it was trained, or by a faster way.

Chosen by measurement (docs/results/panel.md, docs/decisions/0007-compiled-specialists.md): on a
CPU an OpenVINO graph in the numbers that are fastest there, on a GPU captured CUDA graphs. Nano
models stay as they are: they gain little, and their figures stay those of training.
"""

import importlib.util
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 the name torch's own documentation uses
from torch import Tensor

from specialists import arithmetic, cuda, graph, head, loader
from specialists.arithmetic import Arithmetic
from specialists.catalogue import Scale
from specialists.errors import InvalidSpecialist
from specialists.forward import forward
from specialists.graph import Graph, GraphUnavailable, probes
from specialists.loader import Manifest, Specialist
from specialists.task import Task

LEAST_COSINE = 0.999
"""Between the embeddings of a probe by the faster way and by PyTorch in float32."""

logger = logging.getLogger(__name__)


def ready(
    folder: Path,
    task: Task,
    device: str = "cpu",
    stop: threading.Event | None = None,
    ways: Callable[[], Sequence[Arithmetic]] = arithmetic.fastest_first,
) -> Specialist:
    """The specialist in a folder with the fastest way to compute it here; raises InvalidSpecialist.

    A way that says something else than PyTorch in float32 is not taken; `ways` are those that are
    tried on a CPU. The first time takes a full-size one some ten seconds there; `stop` cuts them
    short.
    """
    is_full = loader.read_manifest(folder).scale is Scale.FULL
    if is_full and device.startswith("cuda"):
        return _captured(loader.load(folder, task, device))
    if is_full and device == "cpu" and importlib.util.find_spec("openvino"):
        return _compiled(folder, task, stop or threading.Event(), ways())
    return loader.load(folder, task, device)


def whole(specialist: Specialist, folder: Path) -> Specialist:
    """The specialist with all its tensors, for gradients.

    Raises InvalidSpecialist where the folder cannot be read, or holds other weights by now.
    """
    if specialist.is_whole:
        return specialist
    found = loader.load(folder)
    if found.manifest.weights_sha256 != specialist.manifest.weights_sha256:
        raise InvalidSpecialist(f"{specialist.name!r} has just been replaced: ask again")
    return found


def rehearsed(specialist: Specialist) -> float:
    """Seconds of one image, after a first one that prepares what later ones find ready."""
    image = probes(specialist.manifest.preprocessing.input_size)[:1]
    forward(specialist, image)
    started = time.perf_counter()
    forward(specialist, image)
    return time.perf_counter() - started


def agree(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two ways to compute embeddings, (images, dimension), say the same."""
    if ours.shape != theirs.shape:
        return False
    cosine = F.cosine_similarity(ours.float(), theirs.float().to(ours.device))
    return bool(cosine.min() >= LEAST_COSINE)


def _compiled(
    folder: Path, task: Task, stop: threading.Event, ways: Sequence[Arithmetic]
) -> Specialist:
    """Its last layer, and a graph in place of all other tensors; else all of it in PyTorch."""
    found = head.load(folder, task)
    for how in () if stop.is_set() else ways:
        trunk = _agreeing(folder, found.manifest, how, stop)
        if trunk is not None:
            return replace(found, trunk=trunk, computed_in=str(trunk.how))
    logger.warning("%s computes uncompiled", found.name)
    return loader.load(folder, task)


def _agreeing(
    folder: Path, manifest: Manifest, how: Arithmetic, stop: threading.Event
) -> Graph | None:
    """The graph in these numbers, where there is one that says the same."""
    try:
        trunk = graph.read(folder, manifest, how, stop)
        said = trunk(probes(manifest.preprocessing.input_size))
    except (GraphUnavailable, *graph.UNREADABLE) as error:
        logger.warning("%s has no graph in %s: %s", manifest.backbone, how, error)
        return None
    if agree(said, trunk.promise):
        return trunk
    logger.warning("%s says something else in %s", manifest.backbone, how)
    return None


@torch.inference_mode()
def _captured(specialist: Specialist) -> Specialist:
    size = specialist.manifest.preprocessing.input_size
    trunk, images = cuda.CapturedTrunk(specialist.model, size), probes(size)
    if not agree(trunk(images), specialist.model.embed(images.to("cuda"))):
        logger.warning("%s computes in float32: bfloat16 says something else", specialist.name)
        return specialist
    return replace(specialist, trunk=trunk, computed_in="bfloat16")
