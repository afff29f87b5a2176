"""A trunk as an OpenVINO graph on one core: written once per weights, read in half a second.

It lies beside the weights that it was made of, in `.compiled`, and may be deleted at any time; one
of 8-bit integers may lie beside one of floats.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 the name torch's own documentation uses
from torch import Tensor

from specialists import arithmetic
from specialists.arithmetic import BF16, Arithmetic
from specialists.loader import Manifest

COMPILED, FILE, PROMISE = ".compiled", "trunk.xml", "probes.npy"
FORMAT = 5
"""Changes with what `graph_writer` writes."""
WRITER = ("-P", "-m", "specialists.graph_writer")
WRITER_SECONDS = 1800.0
INTEGER = b'element_type="i8"'  # of weights, in the text of a graph
SMOOTH = 8

UNREADABLE = (RuntimeError, OSError, ValueError, TypeError, EOFError)
"""What OpenVINO and NumPy raise for files that are missing or damaged."""


class GraphUnavailable(Exception):
    """These weights have no graph, and none could be made."""


class Graph:
    """A graph that computes. Several threads may call it; they take turns.

    `how` it computes: without integers where it has no layer for them. `promise` is what PyTorch in
    float32 makes of the probes, (probes, dimension); `nbytes` is about the memory of its weights.
    """

    def __init__(self, file: Path, how: Arithmetic) -> None:
        self.how = replace(how, integers=how.integers and INTEGER in file.read_bytes())
        self._request: Any = arithmetic.compiled(arithmetic.new_core(), file, how)
        self._turn = threading.Lock()
        self.nbytes = _in_memory(file.with_suffix(".bin").stat().st_size, self.how)
        self.promise = torch.from_numpy(np.load(file.with_name(PROMISE), allow_pickle=False))

    def __call__(self, images: Tensor) -> Tensor:
        with self._turn:
            self._request.infer([images.contiguous().numpy()])
            return torch.from_numpy(self._request.get_output_tensor(0).data.copy())


def _in_memory(file_bytes: int, how: Arithmetic) -> int:
    """Floats lie in the file as float32."""
    return file_bytes // 2 if how == Arithmetic(BF16) else file_bytes


def probes(size: int) -> Tensor:
    """Two images, always the same: noise, and one as smooth as a radiograph."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 3, size, size, generator=generator)
    coarse = torch.randn(1, 3, SMOOTH, SMOOTH, generator=generator)
    return torch.cat([noise, F.interpolate(coarse, (size, size), mode="bicubic")])


def read(folder: Path, manifest: Manifest, how: Arithmetic, stop: threading.Event) -> Graph:
    """The graph of a specialist's folder, made first where there is none or a damaged one.

    Making one takes a process of its own some ten seconds; `stop` ends it. Raises
    GraphUnavailable.
    """
    kept = folder / COMPILED / name(manifest, how)
    try:
        return Graph(kept / FILE, how)
    except UNREADABLE:
        shutil.rmtree(kept, ignore_errors=True)
        return _made(folder, kept, manifest, how, stop)


def name(manifest: Manifest, how: Arithmetic) -> str:
    """What a graph is called after: its weights, what it was written by, its numbers.

    One of floats computes in either kind of them; integers were compared and timed beside one.
    """
    numbers = f"integers_{how.floats}" if how.integers else "floats"
    return f"{manifest.weights_sha256[:16]}-{FORMAT}-{version('openvino')}-{numbers}"


def _made(
    folder: Path, kept: Path, manifest: Manifest, how: Arithmetic, stop: threading.Event
) -> Graph:
    """Where the folder cannot be written, the file is there only while it is read."""
    place = kept.parent if _may_write(kept.parent) else None
    try:
        with tempfile.TemporaryDirectory(
            dir=place, prefix=".writing-", ignore_cleanup_errors=True
        ) as staging:
            fresh = Path(staging) / kept.name
            _write(folder, manifest, how, fresh / FILE, stop)
            made = Graph(fresh / FILE, how)
            if place is not None:
                _keep(fresh, kept)
            return made
    except UNREADABLE as error:
        raise GraphUnavailable(f"{type(error).__name__} while it was made") from error


def _may_write(place: Path) -> bool:
    with suppress(OSError):
        place.mkdir(exist_ok=True)
    return place.is_dir() and os.access(place, os.W_OK)


def _keep(fresh: Path, kept: Path) -> None:
    """In place of graphs of former weights and versions, and of what killed writers left.

    Where another process was quicker, its graph stays: others may be reading it.
    """
    same = kept.name.rpartition("-")[0] + "-"
    with suppress(OSError):
        for other in kept.parent.iterdir():
            if not other.name.startswith((".", same)) or _is_abandoned(other):
                shutil.rmtree(other, ignore_errors=True)
        fresh.rename(kept)


def _is_abandoned(staging: Path) -> bool:
    """Whether a writer that was killed left it: it is older than any can be."""
    if not staging.name.startswith("."):
        return False
    with suppress(OSError):  # its writer has just ended
        return time.time() - staging.stat().st_mtime > WRITER_SECONDS + 60
    return False


def _write(
    folder: Path, manifest: Manifest, how: Arithmetic, file: Path, stop: threading.Event
) -> None:
    """Runs the writer; it is killed when time is up or nobody waits for it any more."""
    asked = (str(folder), manifest.weights_sha256, str(file), *([how.floats] * how.integers))
    command = (sys.executable, *WRITER, *asked)
    ends = time.monotonic() + WRITER_SECONDS
    with subprocess.Popen(  # noqa: S603 our own module, by our own interpreter
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as writer:
        while writer.poll() is None:
            if stop.wait(0.1) or time.monotonic() > ends:
                writer.kill()
    if writer.returncode != 0:
        raise GraphUnavailable(f"its writer ended with code {writer.returncode}")
