"""A trunk as an OpenVINO graph on one core: written once per weights, read in half a second.

It lies beside the weights that it was made of, in `.compiled`, and may be deleted at any time.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specialists.loader import Manifest

COMPILED, FILE, PROMISE = ".compiled", "trunk.xml", "probe.npy"
FORMAT = 1
"""Changes with what `graph_writer` writes."""
WRITER = ("-P", "-m", "specialists.graph_writer")
WRITER_SECONDS = 1800.0

UNREADABLE = (RuntimeError, OSError, ValueError, EOFError)
"""What OpenVINO and NumPy raise for files that are missing or damaged."""

_BF16 = "BF16"


class GraphUnavailable(Exception):
    """These weights have no graph, and none could be made."""


class Graph:
    """A graph that computes, in bfloat16 where the CPU has instructions for it.

    Several threads may call it; they take turns. `promise` is what PyTorch in float32 makes of the
    probe, (1, dimension).
    """

    def __init__(self, file: Path) -> None:
        without_telemetry()
        import openvino

        core = openvino.Core()
        precise = _BF16 not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        settings = {
            "INFERENCE_PRECISION_HINT": "f32" if precise else "bf16",
            "INFERENCE_NUM_THREADS": 1,
            "ENABLE_CPU_PINNING": False,  # it pins every graph of one thread to the same core
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._request: Any = core.compile_model(file, "CPU", settings).create_infer_request()
        self._turn = threading.Lock()
        self.promise = torch.from_numpy(np.load(file.with_name(PROMISE), allow_pickle=False))

    def __call__(self, images: Tensor) -> Tensor:
        with self._turn:
            self._request.infer([images.contiguous().numpy()])
            return torch.from_numpy(self._request.get_output_tensor(0).data.copy())


def probe(size: int) -> Tensor:
    """One image of noise, always the same."""
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def without_telemetry() -> None:
    """OpenVINO's converter reports to its maker, unless that package is missing."""
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)


def read(folder: Path, manifest: Manifest, stop: threading.Event) -> Graph:
    """The graph of a specialist's folder, made first where there is none or a damaged one.

    Making one takes a process of its own some ten seconds; `stop` ends it. Raises
    GraphUnavailable.
    """
    kept = folder / COMPILED / name(manifest)
    try:
        return Graph(kept / FILE)
    except UNREADABLE:
        return _made(folder, kept, manifest, stop)


def name(manifest: Manifest) -> str:
    """What a graph is called after: its weights, and what it was written by."""
    return f"{manifest.weights_sha256[:16]}-{FORMAT}-{version('openvino')}"


def _made(folder: Path, kept: Path, manifest: Manifest, stop: threading.Event) -> Graph:
    """Where the folder cannot be written, the file is there only while it is read."""
    place = kept.parent if _may_write(kept.parent) else None
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".writing-") as staging:
            fresh = Path(staging) / kept.name
            _write(folder, manifest, fresh / FILE, stop)
            if place is not None:
                fresh = _keep(fresh, kept)
            return Graph(fresh / FILE)
    except UNREADABLE as error:
        raise GraphUnavailable(f"{type(error).__name__} while it was made") from error


def _may_write(place: Path) -> bool:
    with suppress(OSError):
        place.mkdir(exist_ok=True)
    return place.is_dir() and os.access(place, os.W_OK)


def _keep(fresh: Path, kept: Path) -> Path:
    """In place of graphs of former weights and versions, and of what killed writers left."""
    for other in kept.parent.iterdir():
        if not other.name.startswith(".") or _is_abandoned(other):
            shutil.rmtree(other, ignore_errors=True)
    with suppress(OSError):  # another process was quicker
        fresh.rename(kept)
    return kept


def _is_abandoned(staging: Path) -> bool:
    """Whether it is older than a writer can be."""
    with suppress(OSError):  # its writer has just ended
        return time.time() - staging.stat().st_mtime > WRITER_SECONDS + 60
    return False


def _write(folder: Path, manifest: Manifest, file: Path, stop: threading.Event) -> None:
    """Runs the writer; it is killed when time is up or nobody waits for it any more."""
    command = (sys.executable, *WRITER, str(folder), manifest.weights_sha256, str(file))
    ends = time.monotonic() + WRITER_SECONDS
    with subprocess.Popen(  # noqa: S603 our own module, by our own interpreter
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as writer:
        while writer.poll() is None:
            if stop.wait(0.1) or time.monotonic() > ends:
                writer.kill()
    if writer.returncode != 0:
        raise GraphUnavailable(f"its writer ended with code {writer.returncode}")
