"""The files of a published checkpoint: which tensors they hold, and what is wrong with them.

Nothing is read before it is asked for, and only safetensors are. LoRA pairs are found under the
names that peft gives them. Sources: MedDr's and InternVL's `wrap_llm_lora` (alpha = 2 r), peft.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from service.errors import InvalidCheckpoint
from service.generalist import checkpoint
from service.generalist.configuration import InternVLChatConfig

INDEX = "model.safetensors.index.json"
LORA_SCALE = 2.0  # alpha / r, as both trained with alpha = 2 r
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
PICKLED = (".bin", ".pth", ".pt", ".ckpt")
POINTER = b"version https://git-lfs"

_PEFT = re.compile(r"^(language_model|vision_model)\.base_model\.model\.")
_LORA = re.compile(r"^(?P<module>.+)\.lora_(?P<half>[AB])(\.default)?\.weight$")
_BUFFER = re.compile(r"\.rotary_emb\.inv_freq$")  # older versions of transformers saved it

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor of the original lies."""

    file: Path
    name: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Published:
    """Tensors by their names in the merged model, and LoRA pairs (down, up) by their module."""

    folder: Path
    weights: Mapping[str, Stored]
    pairs: Mapping[str, tuple[Stored, Stored]]

    def merged(self, name: str) -> Tensor:
        """A weight with its LoRA added, in its own dtype."""
        weight = _read(self.weights[name])
        if pair := self.pairs.get(name.removesuffix(".weight")):
            down, up = map(_read, pair)
            wide = weight.float() + LORA_SCALE * (up.float() @ down.float())
            weight = wide.to(weight.dtype)
        return weight

    def demand(self, expected: Mapping[str, Shape]) -> None:
        """Raises InvalidCheckpoint unless exactly the expected tensors are there."""
        for name, shape in expected.items():
            if name not in self.weights:
                raise InvalidCheckpoint(f"the weights of '{self.folder}' lack '{name}'")
            if (found := self.weights[name].shape) != shape:
                raise InvalidCheckpoint(
                    f"'{name}' in '{self.folder}' has the shape {found}, "
                    f"its configuration asks for {shape}"
                )
        if unknown := sorted(self.weights.keys() - expected.keys()):
            raise InvalidCheckpoint(
                f"the weights of '{self.folder}' hold the unknown '{self.weights[unknown[0]].name}'"
            )


def find(folder: Path, config: InternVLChatConfig) -> Published:
    """What the folder's safetensors hold; raises InvalidCheckpoint."""
    _demand_safetensors(folder)
    weights: dict[str, Stored] = {}
    halves: dict[str, dict[str, Stored]] = {}
    for file in _shards(folder):
        for stored in _contents(file):
            name = _PEFT.sub(r"\1.", stored.name).replace(".base_layer.", ".")
            if half := _LORA.match(name):
                halves.setdefault(half["module"], {})[half["half"]] = stored
            elif not _BUFFER.search(name):
                weights[name] = stored
    pairs = {module: _pair(module, found, weights) for module, found in halves.items()}
    for module, (down, _) in pairs.items():
        _demand_rank(module, down, config)
    return Published(folder, weights, pairs)


def _demand_safetensors(folder: Path) -> None:
    if not folder.is_dir():
        raise InvalidCheckpoint(f"'{folder}' is no folder: a checkpoint is one of safetensors")
    if any(folder.glob("*.safetensors")) or (folder / INDEX).exists():
        return
    pickled = sorted(p.name for p in folder.glob("*") if p.suffix in PICKLED)
    if pickled:
        raise InvalidCheckpoint(
            f"'{folder}' holds pickled weights ({pickled[0]}), which can run code when read: "
            "only safetensors are accepted"
        )
    raise InvalidCheckpoint(f"'{folder}' holds no safetensors")


def _shards(folder: Path) -> list[Path]:
    """The files of the index, or all there are."""
    if not (folder / INDEX).exists():
        return sorted(folder.glob("*.safetensors"))
    named = checkpoint.read_json(folder / INDEX).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise InvalidCheckpoint(f"'{folder / INDEX}' is damaged: it maps no weights")
    names = sorted({str(name) for name in named.values()})
    if strangers := [n for n in names if Path(n).name != n or not n.endswith(".safetensors")]:
        raise InvalidCheckpoint(f"'{folder / INDEX}' names '{strangers[0]}', no safetensors of it")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InvalidCheckpoint(f"'{folder}' lacks the shard {missing[0]}{more} of {len(names)}")
    return [folder / name for name in names]


def _contents(file: Path) -> Iterator[Stored]:
    with file.open("rb") as stream:
        if stream.read(len(POINTER)) == POINTER:
            raise InvalidCheckpoint(f"'{file}' is a Git LFS pointer: fetch the file itself")
    with _opened(file) as tensors:
        for name in tensors.keys():  # noqa: SIM118  # not a mapping
            yield Stored(file, name, tuple(tensors.get_slice(name).get_shape()))


def _read(stored: Stored) -> Tensor:
    with _opened(stored.file) as tensors:
        tensor: Tensor = tensors.get_tensor(stored.name)
    if tensor.dtype not in DTYPES:
        raise InvalidCheckpoint(f"'{stored.name}' in '{stored.file}' is {tensor.dtype}: quantised?")
    return tensor


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except SafetensorError as error:
        raise InvalidCheckpoint(f"'{file}' is damaged: {error}") from error


def _pair(
    module: str, found: Mapping[str, Stored], weights: Mapping[str, Stored]
) -> tuple[Stored, Stored]:
    base = weights.get(f"{module}.weight")
    if base is None or len(found) < 2:
        lacking = "weight" if base is None else "other half"
        raise InvalidCheckpoint(f"the LoRA of '{module}' lacks its {lacking}")
    down, up = found["A"], found["B"]
    if up.shape[:1] + down.shape[1:] != base.shape or up.shape[1:] != down.shape[:1]:
        raise InvalidCheckpoint(f"the LoRA of '{module}' does not fit its weight")
    return down, up


def _demand_rank(module: str, down: Stored, config: InternVLChatConfig) -> None:
    """Only where configuration and tensors agree do we know how strongly LoRA counts."""
    of_vision = module.startswith("vision_model.")
    field = "use_backbone_lora" if of_vision else "use_llm_lora"
    if (rank := getattr(config, field)) != down.shape[0]:
        raise InvalidCheckpoint(
            f"config.json says {field} {rank}, but the LoRA of '{module}' has the rank "
            f"{down.shape[0]}"
        )
