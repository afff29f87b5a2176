"""The catalogue's pinned pretrained weights, where this machine's caches hold them already.

Nothing is downloaded. timm's tags lie in the Hugging Face hub's cache (HF_HOME), torchvision's in
torch's (TORCH_HOME), as a pickle: a limited process opens it, and its tensors are kept beside it.
"""

import hashlib
import re
import tempfile
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors.torch import save_file
from torchvision.models import get_weight

from specialists import catalogue
from specialists.errors import InvalidWeights, SpecialistRefused
from specialists.exchange import pickles

FILE = "model.safetensors"
OWNER = "timm"
_TORCHVISION = "torchvision "
_FOLDER = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def find(key: str, cache: Path | None = None) -> Path:
    """The safetensors file of a backbone's pinned weights; raises InvalidWeights, UnknownBackbone.

    `cache` stands for the hub's cache, and for torch's folder of checkpoints.
    """
    backbone = catalogue.find(key)
    if backbone.from_file:
        raise InvalidWeights(f"backbone {key!r} begins from weights of your own: name a file")
    tag = backbone.pretrained
    if tag.startswith(_TORCHVISION):
        return _of_torchvision(key, tag.removeprefix(_TORCHVISION), cache)
    found = try_to_load_from_cache(f"{OWNER}/{tag}", FILE, cache_dir=cache)
    if not isinstance(found, str):
        raise InvalidWeights(
            f"the pretrained weights of {key!r} are not in this machine's hub cache: "
            f"hf download {OWNER}/{tag} {FILE}, or name a file of your own"
        )
    _check_blob(Path(found))
    return Path(found)


def name_of(path: Path) -> str | None:
    """Repository and revision of a file in a hub cache; None elsewhere.

    Layout: .../models--OWNER--NAME/snapshots/REVISION/FILE.
    """
    if len(path.parts) < 4 or path.parts[-3] != "snapshots":
        return None
    folder = _FOLDER.fullmatch(path.parts[-4])
    return f"{folder['owner']}/{folder['name']}@{path.parts[-2]}" if folder else None


def _check_blob(path: Path) -> None:
    """The hub names a large file's content by its sha256."""
    blob = path.resolve()
    if _SHA256.fullmatch(blob.name) and _sha256(blob) != blob.name:
        raise InvalidWeights(f"{name_of(path)} is damaged in this machine's hub cache: delete it")


def _of_torchvision(key: str, weights: str, cache: Path | None) -> Path:
    url: str = get_weight(weights).url
    folder = cache or Path(torch.hub.get_dir()) / "checkpoints"
    pickle = folder / url.rpartition("/")[2]
    if not pickle.is_file():
        raise InvalidWeights(
            f"the pretrained weights of {key!r} are not in this machine's torch cache: put {url} "
            f"at {pickle}, or name a file of your own"
        )
    return tensors_of(pickle)


def tensors_of(pickle: Path) -> Path:
    """The tensors of a checkpoint that ends in -SHA256.pth, as torch.hub names them, beside it."""
    converted = pickle.with_suffix(".safetensors")
    if converted.is_file():
        return converted
    if not _sha256(pickle).startswith(pickle.stem.rpartition("-")[2]):
        raise InvalidWeights(f"{pickle.name} is damaged in this machine's torch cache: delete it")
    try:
        tensors = pickles.opened(pickle)
    except SpecialistRefused as error:
        raise InvalidWeights(str(error)) from error
    with tempfile.TemporaryDirectory(dir=pickle.parent) as name:
        fresh = Path(name) / converted.name
        save_file(tensors, fresh)
        fresh.replace(converted)
    return converted


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
