"""PyTorch checkpoints, which are pickles, opened by a limited process that knows tensors only."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from specialists.errors import SpecialistRefused
from specialists.exchange import unpickle

TIMEOUT_SECONDS = 300.0

_SENTENCES = {
    unpickle.CODE: "it holds more than tensors, and would run code: it was not opened",
    unpickle.NOT_TENSORS: "it is not a state dict, names with their tensors",
    unpickle.DAMAGED: "it is damaged, or not a PyTorch checkpoint",
    unpickle.MEMORY: "it needs more memory than its size allows",
}


def opened(
    file: Path,
    command: tuple[str, ...] = unpickle.COMMAND,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> dict[str, Tensor]:
    """The tensors of a checkpoint, as another process wrote them; raises SpecialistRefused.

    What that process says is never shown, only how it ended.
    """
    with tempfile.TemporaryDirectory(prefix="gsco-import-") as folder:
        fresh = Path(folder) / "tensors.safetensors"
        arguments = (str(file.resolve()), str(fresh), str(int(timeout_seconds)))
        try:
            ended = subprocess.run(  # noqa: S603 our own module, by our own interpreter
                (sys.executable, *command, *arguments),
                env={},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            _refuse(file, f"it was not read within {timeout_seconds:.0f} seconds")
        if ended.returncode != 0 or not fresh.is_file():
            _refuse(file, _SENTENCES.get(ended.returncode, "it made its reader fail"))
        try:
            return load_tensors(fresh.read_bytes())
        except SafetensorError:  # what opened a hostile file is not trusted either
            _refuse(file, "it made its reader fail")


def _refuse(file: Path, problem: str) -> NoReturn:
    raise SpecialistRefused(f"{file.name} is refused: {problem}")
