"""A process of its own that opens one PyTorch checkpoint and writes its tensors as safetensors.

    python -P -m specialists.exchange.unpickle CHECKPOINT OUT SECONDS

The reader knows tensors and plain containers only (weights_only). Memory, time and the size of
what is written are bounded; how it went is told by the exit code alone.
"""

import os
import resource
import sys
import zipfile
from pathlib import Path
from typing import Any

COMMAND = ("-P", "-m", "specialists.exchange.unpickle")
CODE, NOT_TENSORS, DAMAGED, MEMORY = 10, 11, 12, 13

SPARE_BYTES = 2**30
MAX_NAME = 200
_WRAPPERS = ("state_dict", "model_state_dict", "model")


def main(source: str, target: str, seconds: str) -> int:
    """The exit code."""
    import torch  # loaded before memory is bounded: its libraries map gigabytes

    size = Path(source).stat().st_size
    limit(4 * size + SPARE_BYTES, 2 * size + SPARE_BYTES, int(seconds))
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
        return write(found, Path(target))
    except MemoryError:
        return MEMORY
    except Exception as error:  # noqa: BLE001 a hostile file may raise anything
        return _reason(error, source)


def write(found: Any, target: Path) -> int:
    """Names and dense tensors as safetensors; other things are no state dict."""
    import torch
    from safetensors.torch import save_file

    for name in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict) or not found:
        return NOT_TENSORS
    for name, tensor in found.items():
        named = isinstance(name, str) and 0 < len(name) <= MAX_NAME
        dense = isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided
        if not (named and dense):
            return NOT_TENSORS
    save_file(
        {name: tensor.detach().clone().contiguous() for name, tensor in found.items()}, target
    )
    return 0


def limit(memory_bytes: int, file_bytes: int, seconds: int) -> None:
    """Bounds this process: memory beyond what it has now, files, processor time, no dumps."""
    with Path("/proc/self/statm").open() as statm:
        present = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    for what, most in (
        (resource.RLIMIT_AS, present + memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (allowed, allowed))


def _reason(error: Exception, source: str) -> int:
    text = str(error)
    if isinstance(error, RuntimeError) and ("alloc" in text or "memory" in text):
        return MEMORY
    if "Weights only load failed" in text and ("GLOBAL" in text or "Unsupported" in text):
        return CODE
    if zipfile.is_zipfile(source) and "Unsupported" in text:
        return CODE
    return DAMAGED


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
