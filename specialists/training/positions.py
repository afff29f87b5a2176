"""SAM's position embeddings at another image size.

timm resizes them in every forward, and its converter does not; here it is done once, by the same
steps, so that the smaller model answers with the same numbers.
"""

from collections.abc import Mapping

import torch.nn.functional as F  # noqa: N812 the name torch's own documentation uses
from timm.layers import resample_abs_pos_embed_nhwc
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn


def resized(backbone: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with a SAM's positions at the backbone's size; others as they are."""
    if not isinstance(backbone, VisionTransformerSAM):
        return dict(tensors)
    wanted = backbone.state_dict()
    return {
        name: _fitted(name, tensor, wanted[name]) if name in wanted else tensor
        for name, tensor in tensors.items()
    }


def _fitted(name: str, tensor: Tensor, wanted: Tensor) -> Tensor:
    alike = tensor.ndim == wanted.ndim and tensor.shape[-1:] == wanted.shape[-1:]
    if not alike or tensor.shape == wanted.shape or not tensor.numel():
        return tensor
    if name == "pos_embed" and tensor.ndim == 4 and len(tensor) == 1:
        grid: Tensor = resample_abs_pos_embed_nhwc(tensor, list(wanted.shape[1:3]))
        return grid
    if name.rpartition(".")[2] in ("rel_pos_h", "rel_pos_w") and tensor.ndim == 2:
        rows = F.interpolate(tensor.T.float()[None], size=len(wanted), mode="linear")
        return rows[0].T.to(tensor.dtype)
    return tensor
