"""Where an interrupted training goes on: tensors and their progress in one safetensors file."""

import errno
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is. `run` names everything it depends on; another run starts afresh."""

    run: str
    epochs_done: int = 0
    best_epoch: int = 0
    best_loss: float = float("inf")
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Progress with the tensors to go on from: the model, the best model so far, the optimiser."""

    progress: Progress
    model: Tensors
    best: Tensors
    optimizer: Tensors


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Replaces an earlier checkpoint; a crash leaves that one or this one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {"model": checkpoint.model, "best": checkpoint.best, "optimizer": checkpoint.optimizer}
    tensors = {
        f"{part}/{name}": t.contiguous() for part, ts in parts.items() for name, t in ts.items()
    }
    fresh = path.with_suffix(".writing")
    try:
        save_file(tensors, fresh, metadata={"progress": json.dumps(asdict(checkpoint.progress))})
        _sync(fresh)
    except SafetensorError as error:  # so the format's library says that the disk is full
        fresh.unlink(missing_ok=True)
        problem = f"the training's checkpoint is not written: {error}"
        raise OSError(errno.EIO, problem, str(path.parent)) from error
    os.replace(fresh, path)


def _sync(path: Path) -> None:
    """On the disk when this returns: a power cut leaves the checkpoint before, or this one."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read(path: Path, run: str) -> Checkpoint | None:
    """The checkpoint of this very run; None where there is none, or only a damaged one."""
    try:
        with safe_open(path, "pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    if progress.run != run:
        return None
    return Checkpoint(progress, *(_part(tensors, part) for part in ("model", "best", "optimizer")))


def _part(tensors: Tensors, part: str) -> Tensors:
    start = f"{part}/"
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """The optimiser's memory as named tensors, "PARAMETER/NAME"."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {f"{place}/{name}": t for place, entry in state.items() for name, t in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Gives an optimiser its memory back, in the memory layout of its parameters."""
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    state: dict[int, Tensors] = {}
    for key, tensor in tensors.items():
        place, name = key.split("/")
        state.setdefault(int(place), {})[name] = _laid_out_as(parameters[int(place)], tensor)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    if tensor.shape != parameter.shape:
        return tensor  # a count
    return torch.empty_like(parameter, device="cpu", dtype=tensor.dtype).copy_(tensor)
