"""A process of its own that writes a specialist's trunk as an OpenVINO graph.

    python -P -m specialists.graph_writer FOLDER WEIGHTS_SHA256 FILE.xml [FLOATS]

Tracing and converting hold Python for seconds; here nobody waits for it, and it gives way to
whoever serves. FLOATS are those beside which its large layers shall multiply integers. How it went
is told by the exit code alone.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers import pos_embed_sincos
from torch import Tensor, nn

from specialists import arithmetic, integers, loader, runtime
from specialists.architectures import EmbeddingClassifier, shortened
from specialists.arithmetic import F32, Arithmetic, least_seconds, without_telemetry
from specialists.graph import PROMISE, probes

CHANGED = 10
GIVES_WAY = 15
IN_FLOATS = Arithmetic(F32)

Timed = Callable[[Sequence[Any], NDArray[np.float32]], list[float]]
"""The seconds that each of some requests takes for the same images."""


class Trunk(nn.Module):
    """A model whose forward is the embedding alone."""

    def __init__(self, model: EmbeddingClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.embed(images)


def main(folder: str, weights_sha256: str, file: str, floats: str = "") -> int:
    """The exit code; CHANGED where the folder holds other weights by now."""
    os.setpriority(os.PRIO_PROCESS, 0, GIVES_WAY)
    torch.set_num_threads(1)
    specialist = loader.load(Path(folder))
    if specialist.manifest.weights_sha256 != weights_sha256:
        return CHANGED
    size = specialist.manifest.preprocessing.input_size
    how = Arithmetic(floats, integers=True) if floats else IN_FLOATS
    write(specialist.model, size, Path(file), how)
    return 0


def write(model: EmbeddingClassifier, size: int, file: Path, how: Arithmetic = IN_FLOATS) -> None:
    """FILE.xml and FILE.bin: the trunk for any number of images of that size; and its promise."""
    without_telemetry()
    import openvino

    example = torch.zeros(2, 3, size, size)
    with torch.inference_mode(), _rotation_as_product(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes that become constants: they are constant here
        trace: Any = torch.jit.trace
        traced = trace(Trunk(shortened(model)), example, check_trace=False)
        graph = openvino.convert_model(traced, example_input=example)
    with torch.inference_mode():
        promise = model.embed(probes(size))
    graph.reshape([-1, 3, size, size])
    if how.integers:
        graph = in_integers(graph, probes(size), promise, how)
    file.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(graph, file, compress_to_fp16=False)
    np.save(file.with_name(PROMISE), promise.numpy())


def in_integers(
    graph: Any, images: Tensor, promise: Tensor, how: Arithmetic, timed: Timed = least_seconds
) -> Any:
    """A graph with integers in its dense layers, and in its convolutions where that is better.

    `promise` is what PyTorch in float32 makes of the images; `graph` is changed.
    """
    integers.quantise(graph)
    with_convolutions = graph.clone()
    if integers.quantise_convolutions(with_convolutions) == 0:
        return graph
    try:
        core = arithmetic.new_core()
        requests = [arithmetic.compiled(core, one, how) for one in (with_convolutions, graph)]
        is_better = _is_better(requests, images, promise, timed)
    except arithmetic.UNABLE:
        return graph
    return with_convolutions if is_better else graph


def _is_better(requests: Sequence[Any], images: Tensor, promise: Tensor, timed: Timed) -> bool:
    """Whether the first of two agrees with PyTorch, and is faster on this machine.

    All channels that a convolution of integers sees of an image share one range: one that dwarfs
    the others leaves them few levels.
    """
    given = images.numpy()
    requests[0].infer([given])
    said = torch.from_numpy(requests[0].get_output_tensor(0).data.copy())
    if not runtime.agree(said, promise):
        return False
    seconds = timed(requests, given)
    return seconds[0] < seconds[1]


@contextmanager
def _rotation_as_product() -> Iterator[None]:
    """EVA-02 turns its queries and keys by a product with a matrix of 0, 1 and -1.

    The same numbers as timm's strided copies, which OpenVINO has only slow code for: a sixth of
    that backbone's time (docs/decisions/0007-compiled-specialists.md).
    """
    before = pos_embed_sincos.rot
    pos_embed_sincos.rot = _rotated
    try:
        yield
    finally:
        pos_embed_sincos.rot = before


def _rotated(values: Tensor) -> Tensor:
    """(…, n): pairs (a, b) become (-b, a)."""
    turn = np.kron(np.eye(values.shape[-1] // 2), [[0, 1], [-1, 0]])
    return values @ torch.from_numpy(turn).to(values.dtype)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
