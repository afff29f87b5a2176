"""How a training computes: in bfloat16 where that is wanted, and the same way every time."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from specialists.catalogue import Precision

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_CPU_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")


def chosen(precision: Precision, device: str) -> Precision:
    """What `auto` means on a device: bfloat16 where it computes in it, else float32."""
    if precision is not Precision.AUTO:
        return precision
    return Precision.BFLOAT16 if has_bfloat16(device) else Precision.FLOAT32


def has_bfloat16(device: str) -> bool:
    """Whether the hardware computes in bfloat16 itself, which is when it is quicker."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return device == "cpu" and any(capabilities.get(flag, False) for flag in _CPU_FLAGS)


def autocast(precision: Precision, device: str) -> AbstractContextManager[object]:
    """Forwards within it compute in that precision; weights and gradients stay float32."""
    kind, _, _ = device.partition(":")
    return torch.autocast(kind, torch.bfloat16, enabled=precision is Precision.BFLOAT16)


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """The same numbers from the same start, as far as the backend can; it warns where it cannot.

    On a GPU that is AlexNet's and SAM's pooling, as in the paper's own training. The same number of
    threads is part of the same start. PyTorch: notes on reproducibility.
    """
    if device.startswith("cuda"):
        os.environ.setdefault(_CUBLAS, ":4096:8")  # read when cuBLAS starts
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark)
    strict = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn.deterministic, cudnn.benchmark = True, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=only_warned)
        cudnn.deterministic, cudnn.benchmark = before
