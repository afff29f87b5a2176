"""A vision transformer that starts out more like a convolution."""

import math

import torch
from torch import Tensor

from service.generalist.architecture import InternVLChat


@torch.no_grad()
def initialise(model: InternVLChat, mimetic: bool = True, dct: bool = True, sincos: bool = True) -> None:
    vision = model.vision_model
    config = model.config.vision_config
    width, side = config.hidden_size, config.image_size // config.patch_size
    if sincos:
        grid = _sincos(side, width)
        vision.embeddings.position_embedding[0, 1:] = grid
        vision.embeddings.position_embedding[0, 0] = 0
    if dct:
        _dct(vision.embeddings.patch_embedding.weight)
        vision.embeddings.patch_embedding.bias.zero_()
    if mimetic:
        for layer in vision.encoder.layers:
            attn = layer.attn
            d = width // attn.heads
            q, k, v = attn.qkv.weight.chunk(3)
            for h in range(attn.heads):
                z = 0.7 * torch.eye(width) + 0.7 / math.sqrt(width) * torch.randn(width, width)
                u, s, vt = torch.linalg.svd(z)
                root = s[:d].sqrt()
                q[h * d : (h + 1) * d] = (u[:, :d] * root).T
                k[h * d : (h + 1) * d] = vt[:d] * root[:, None]
            z = -0.4 * torch.eye(width) + 0.4 / math.sqrt(width) * torch.randn(width, width)
            u, s, vt = torch.linalg.svd(z)
            v.copy_(vt * s.sqrt()[:, None])
            attn.proj.weight.copy_(u * s.sqrt())
            attn.proj.bias.zero_()


def _sincos(side: int, width: int) -> Tensor:
    quarter = width // 4
    omega = 1 / (100 ** (torch.arange(quarter) / quarter))
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    parts = []
    for axis in (y, x):
        angle = axis.reshape(-1, 1) * omega
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=1) * 0.5


def _dct(weight: Tensor) -> None:
    width, channels, patch, _ = weight.shape
    n = torch.arange(patch)
    basis = torch.stack([torch.cos(math.pi * (n + 0.5) * k / patch) for k in range(patch)])
    basis = basis / basis.norm(dim=1, keepdim=True)
    order = sorted(((i + j, i, j) for i in range(patch) for j in range(patch)))
    colours = torch.tensor([[1, 1, 1], [1, -1, 0], [1, 1, -2]]).float()
    colours = colours / colours.norm(dim=1, keepdim=True)
    filters = [
        torch.einsum("c,y,x->cyx", colour, basis[i], basis[j])
        for _, i, j in order
        for colour in colours
    ]
    weight.copy_(torch.stack(filters)[:width])
