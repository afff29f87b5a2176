"""Linear layers by oneDNN, for inference in float32 on a CPU.

PyTorch takes Intel's MKL for them, which computes at half of oneDNN's speed on AMD's processors
(docs/decisions/0018-prompts-together.md). On Intel's nothing was measured.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

STEP = 32
"""Rows are filled up to a multiple: oneDNN keeps half a megabyte for every number that it meets."""


class OneDnnLinear(nn.Linear):
    """What `nn.Linear` computes, but for the last bits; knows no gradients."""

    def forward(self, input: Tensor) -> Tensor:
        rows = input.reshape(-1, self.in_features)
        filled = functional.pad(rows, (0, 0, 0, -len(rows) % STEP)) if len(rows) > 1 else rows
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            filled, self.weight, self.bias, "none", [], ""
        )
        return result[: len(rows)].view(*input.shape[:-1], self.out_features)


def by_onednn(model: nn.Module) -> None:
    """Every plain linear layer in float32 on the CPU computes by oneDNN from now on."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for module in model.modules():
        if type(module) is nn.Linear and _is_plain(module.weight):
            module.__class__ = OneDnnLinear


def _is_plain(weight: Tensor) -> bool:
    return weight.dtype is torch.float32 and weight.device.type == "cpu"
