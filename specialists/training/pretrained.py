"""Weights that a training begins from: a local safetensors file, named as timm or torchvision do.

RadImageNet's PyTorch release names DenseNet-121's tensors as torchvision does, `features.…`, or by
place in a sequence, `backbone.0.…`; torchvision's oldest files write `norm.1` for `norm1`.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from specialists import catalogue, loader
from specialists.architectures import EmbeddingClassifier, build
from specialists.catalogue import Scale
from specialists.errors import InvalidSpecialist, InvalidWeights
from specialists.task import is_name
from specialists.training import hub, positions

SUFFIX = ".safetensors"
HEADS = frozenset({"classifier", "fc", "head", "head_dist", "last_linear"})
"""Where the last layers of published models lie; what a backbone has no place for is left there."""

_WRAPPED = re.compile(r"(?:(?:module|model|backbone|encoder)\.)+")
_DENSE_LAYER = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)")

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A file of weights as it was when it was chosen."""

    path: Path
    sha256: str
    specialist: str = ""  # task/backbone, where the file is a specialist's

    @property
    def name(self) -> str:
        """The specialist's, the hub repository with its revision, or else the file's."""
        return self.specialist or hub.name_of(self.path) or self.path.name


def choose(
    backbones: Sequence[str], scale: Scale, labels: int, weights: Mapping[str, Path]
) -> dict[str, Pretrained]:
    """The weights of those backbones that begin from a file, each read and fitted once.

    Raises UnknownBackbone, and InvalidWeights where a file cannot be used or one is missing.
    """
    for key in backbones:
        backbone = catalogue.find(key)
        backbone.at(scale)
        if backbone.from_file and key not in weights:
            raise InvalidWeights(
                f"backbone {key!r} begins from weights of your own: name them, {key}=FILE{SUFFIX}"
            )
    if strangers := [key for key in weights if key not in backbones]:
        raise InvalidWeights(
            f"weights for {strangers[0]!r}, which is not among {', '.join(backbones)}"
        )
    return {key: _checked(key, scale, labels, path) for key, path in weights.items()}


def fill(model: EmbeddingClassifier, weights: Pretrained, key: str) -> None:
    """Puts the file's weights into a fresh model; its last layer stays as it is unless it fits.

    Of another specialist only the trunk is taken: its last layer tells other labels.
    Raises InvalidWeights naming the first tensor that is missing, misshaped or without a place.
    """
    content = _read(weights.path)
    if loader.sha256(content) != weights.sha256:
        raise InvalidWeights(f"{weights.path.name} has changed since it was chosen")
    tensors = fitting(model, _tensors(weights.path, content), f"{weights.name} for {key!r}")
    left = model.classifier_names() if weights.specialist else frozenset()
    wanted = {name: of for name, of in model.backbone.state_dict().items() if name not in left}
    usable = {
        name: tensor
        for name, tensor in tensors.items()
        if name in wanted and tensor.shape == wanted[name].shape
    }
    for name, tensor in usable.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InvalidWeights(
                f"{weights.name} for {key!r}: tensor {name!r} holds numbers that are not finite"
            )
    model.backbone.load_state_dict(usable, strict=False)


def _specialist(path: Path, sha256: str) -> str:
    """Task and backbone by the manifest beside the file, where that is about this very file."""
    try:
        manifest = loader.read_manifest(path.parent)
    except InvalidSpecialist:
        return ""
    known = manifest.weights_sha256 == sha256 and is_name(manifest.task)
    return f"{manifest.task}/{manifest.backbone}" if known and is_name(manifest.backbone) else ""


def _checked(key: str, scale: Scale, labels: int, path: Path) -> Pretrained:
    sha256 = loader.sha256(_read(path))
    found = Pretrained(path, sha256, _specialist(path, sha256))
    fill(build(catalogue.find(key).at(scale), labels), found, key)
    return found


def _read(path: Path) -> bytes:
    if path.suffix.lower() != SUFFIX:
        raise InvalidWeights(
            f"{path.name} is not a {SUFFIX} file, and other formats may run code when they are "
            "opened: where you trust it, load its state dict and save the tensors as safetensors"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidWeights(f"no weights at {path}") from error


def _tensors(path: Path, content: bytes) -> Tensors:
    try:
        return load_tensors(content)
    except SafetensorError as error:
        raise InvalidWeights(f"{path.name} is damaged, or not in the safetensors format") from error


def fitting(model: EmbeddingClassifier, tensors: Tensors, where: str) -> Tensors:
    """The tensors under the backbone's names: as they are, or as timm converts them."""
    last = model.classifier_names()
    named = {_name(name, model.backbone): tensor for name, tensor in tensors.items()}
    named = positions.resized(model.backbone, named)
    problem = _problem(model.backbone, last, named)
    if problem is None:
        return named
    converted = _converted(model.backbone, tensors)
    if converted is None or _problem(model.backbone, last, converted):
        raise InvalidWeights(f"{where}: {problem}; these are weights of another architecture")
    return converted


def _name(name: str, backbone: nn.Module) -> str:
    bare = _WRAPPED.sub("", name, count=1) if _WRAPPED.match(name) else name
    if not hasattr(getattr(backbone, "features", None), "denseblock1"):
        return bare
    return _DENSE_LAYER.sub(r"\1\2", re.sub(r"^0\.", "features.", bare))


def _problem(backbone: nn.Module, last: Set[str], tensors: Tensors) -> str | None:
    """The first thing in which the tensors are not the backbone's."""
    wanted = backbone.state_dict()
    for name in (name for name in wanted if name not in last):
        if name not in tensors and not name.endswith("num_batches_tracked"):
            return f"no tensor {name!r}"
        if name in tensors and tensors[name].shape != wanted[name].shape:
            found, promised = (tuple(of[name].shape) for of in (tensors, wanted))
            return f"tensor {name!r} is {found}, not {promised}"
    places = wanted.keys() | last
    extra = [name for name in tensors if name not in places and name.split(".")[0] not in HEADS]
    return f"no place for tensor {extra[0]!r}" if extra else None


def _converted(backbone: nn.Module, tensors: Tensors) -> Tensors | None:
    """By timm's own converter for this family, which also resizes positions; None without one."""
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return None
    try:
        return cast(Callable[[Tensors, nn.Module], Tensors], convert)(dict(tensors), backbone)
    except Exception:  # noqa: BLE001 a converter promises nothing about the files of others
        return None
