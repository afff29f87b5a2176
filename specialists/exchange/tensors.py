"""Weights from elsewhere: nothing but the tensors of an architecture, and every number finite."""

import struct
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from specialists.architectures import build
from specialists.catalogue import Architecture
from specialists.errors import SpecialistRefused
from specialists.exchange.allowed import strict_json
from specialists.segmentation import network
from specialists.segmentation.models import Model

FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32})
METADATA: tuple[dict[str, str], ...] = ({}, {"format": "pt"})
"""All that a file may say of itself; anything else is free text."""

_HEADER_BYTES = 4 * 2**20
_LENGTH = struct.Struct("<Q")

Tensors = dict[str, Tensor]


def expected(architecture: Architecture, labels: int) -> Tensors:
    """Names, shapes and types of the architecture's tensors, without numbers."""
    with torch.device("meta"):
        return build(architecture, labels).state_dict()


def expected_of_segmenter(model: Model) -> Tensors:
    """The same of a segmentation model."""
    with torch.device("meta"):
        return network.build(model).state_dict()


def most_bytes(wanted: Tensors) -> int:
    """More than any file of these tensors has."""
    return sum(8 * tensor.numel() for tensor in wanted.values()) + _HEADER_BYTES


def read(content: bytes, wanted: Tensors) -> Tensors:
    """The tensors of a safetensors file; raises SpecialistRefused with the first thing wrong."""
    check_header(content)
    try:
        tensors = load_tensors(content)
    except SafetensorError:
        _refuse("they are damaged, or not in the safetensors format")
    check(tensors, wanted)
    return tensors


def check_header(content: bytes) -> None:
    """Refuses whatever the file says beside names, types, shapes and places of its tensors."""
    header = _header(content)
    if header is None:
        _refuse("they are damaged, or not in the safetensors format")
    if header.pop("__metadata__", {}) not in METADATA:
        _refuse("the file carries words of its own (metadata)")
    for entry in header.values():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            _refuse("the file says more of a tensor than its type, shape and place")


def check(tensors: Tensors, wanted: Tensors) -> None:
    """Refuses tensors of other names, shapes or types, and numbers that are not finite."""
    for name in wanted:
        if name not in tensors:
            _refuse(f"there is no tensor {name!r}")
    for name, tensor in tensors.items():
        if name not in wanted:
            _refuse(f"there is no place for tensor {name[:80]!r}")
        _check_tensor(name, tensor, wanted[name])


def _check_tensor(name: str, tensor: Tensor, promised: Tensor) -> None:
    if tensor.shape != promised.shape:
        _refuse(f"tensor {name!r} is {tuple(tensor.shape)}, not {tuple(promised.shape)}")
    fits = tensor.dtype in FLOATS if promised.is_floating_point() else _same(tensor, promised)
    if not fits:
        _refuse(f"tensor {name!r} holds {tensor.dtype}, not {promised.dtype}")
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        _refuse(f"tensor {name!r} holds numbers that are not finite")


def _same(tensor: Tensor, promised: Tensor) -> bool:
    return tensor.dtype == promised.dtype


def _header(content: bytes) -> dict[str, Any] | None:
    if len(content) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(content)
    if length > min(_HEADER_BYTES, len(content) - _LENGTH.size):
        return None
    header = strict_json(content[_LENGTH.size : _LENGTH.size + length])
    return header if isinstance(header, dict) else None


def _refuse(problem: str) -> NoReturn:
    raise SpecialistRefused(f"the weights are refused: {problem}")
