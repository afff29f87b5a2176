"""LoRA adapters in peft's layout, added to the weights of a model: W + (alpha / r) · B · A.

Done by hand, because reading an adapter with peft may unpickle one, and the engine that serves
needs nothing else of it. Only safetensors and JSON are read.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from service.errors import InvalidCheckpoint

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_VARIANTS = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "lora_bias")


def add(model: nn.Module, folder: Path) -> None:
    """Adds every pair of an adapter's matrices to the weight it belongs to.

    Raises InvalidCheckpoint for what is missing, damaged or made for another model.
    """
    scale, tensors = _scale(folder), _tensors(folder)
    weights = dict(model.named_parameters())
    for name in sorted(tensors):
        if name.endswith(_UP) and name.removesuffix(_UP) + _DOWN in tensors:
            continue  # comes with the other half of its pair
        module = name.removeprefix(_PREFIX).removesuffix(_DOWN)
        up = tensors.get(name.removesuffix(_DOWN) + _UP)
        target = weights.get(f"{module}.weight")
        if not name.endswith(_DOWN) or up is None or target is None:
            raise InvalidCheckpoint(f"the adapter in '{folder}' holds the unknown '{name}'")
        _add(target, up, tensors[name], scale, module, folder)


def rank(folder: Path) -> int:
    """The rank of an adapter; raises InvalidCheckpoint."""
    return _rank_and_alpha(folder)[0]


def _scale(folder: Path) -> float:
    rank, alpha = _rank_and_alpha(folder)
    return alpha / rank


def _rank_and_alpha(folder: Path) -> tuple[int, float]:
    try:
        fields = json.loads((folder / CONFIG).read_text())
        rank, alpha = int(fields["r"]), float(fields["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidCheckpoint(f"'{folder}' has no readable {CONFIG}") from error
    if rank < 1 or any(fields.get(variant) for variant in _VARIANTS):
        raise InvalidCheckpoint(f"the adapter in '{folder}' is no plain LoRA")
    return rank, alpha


def _tensors(folder: Path) -> Mapping[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise InvalidCheckpoint(f"'{folder}' has no {WEIGHTS}: only safetensors are read")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InvalidCheckpoint(f"'{path}' is damaged: {error}") from error


@torch.no_grad()
def _add(
    target: nn.Parameter, up: Tensor, down: Tensor, scale: float, module: str, folder: Path
) -> None:
    shapes = (up.shape[0], down.shape[-1]), tuple(target.shape)
    if shapes[0] != shapes[1] or up.shape[-1] != down.shape[0]:
        raise InvalidCheckpoint(f"'{module}' of the adapter in '{folder}' is of another model")
    target.add_(scale * (up.float() @ down.float()).to(target.dtype))
