"""The trunk of a specialist: all of its backbone but the last linear layer.

Linear-probe specialists leave theirs as it was, so those of several tasks can share one in memory:
where backbone, scale, preprocessing and the trunk's sha256 in their manifests are the same, so are
their embeddings.
"""

import hashlib
from collections.abc import Mapping, Set

import torch
from torch import Tensor

PREFIX = "backbone."


def sha256(tensors: Mapping[str, Tensor], classifier: Set[str]) -> str:
    """Of a specialist's tensors as they are stored; `classifier` names those of its last layer."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if name.removeprefix(PREFIX) not in classifier:
            tensor = tensors[name].contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
