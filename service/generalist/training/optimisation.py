"""One stage of training: steps that can be interrupted at any moment and continued exactly."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

WARM_UP_STEPS = 100
WEIGHT_DECAY = 0.05
SMALLEST_MATRIX = 64
SMOOTHING = 0.98
SAVE_EVERY_STEPS = 100
TABLES = ("embed_tokens.weight", "lm_head.weight")

Named = tuple[str, nn.Parameter]


@dataclass(frozen=True, slots=True)
class Stage:
    """How long and how fast one stage learns."""

    steps: int
    batch: int
    learning_rate: float
    muon_learning_rate: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training is; `loss` and `accuracy` are running means."""

    stage: str
    step: int
    steps: int
    loss: float
    accuracy: float


OnProgress = Callable[[Progress], None]


class Optimisation:
    """Muon for matrices, AdamW for the rest, warm-up and cosine decay; reports running means.

    Muon learned about twice as much per step as AdamW alone on these tasks. With a `file`, the
    state is kept there every `SAVE_EVERY_STEPS` and taken up again by the next run. Nothing else
    needs keeping, because every step draws from random numbers of its own.
    """

    def __init__(
        self,
        parameters: Sequence[Named],
        stage: Stage,
        name: str,
        on_progress: OnProgress,
        file: Path | None = None,
    ) -> None:
        self._parameters = dict(parameters)
        self._optimizers = _optimizers(parameters, stage)
        self._stage, self._name, self._on_progress, self._file = stage, name, on_progress, file
        self._step, self._loss, self._accuracy = 0, 0.0, 0.0
        self.history: list[Progress] = []
        if file is not None and file.exists():
            self._take_up(file)

    @property
    def taken(self) -> int:
        """How many steps have been taken, in earlier runs too."""
        return self._step

    def remaining(self) -> Iterator[int]:
        """The numbers of the steps still to take, counted from 0; take each before the next."""
        while self._step < self._stage.steps:
            yield self._step

    def step(self, loss: Tensor, accuracy: float) -> None:
        """Learn from the loss of the present step."""
        rate = _rate(self._step, self._stage.steps)
        for optimizer, highest in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = highest * rate
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters.values(), 1.0)
        for optimizer, _ in self._optimizers:
            optimizer.step()
        self._step += 1
        self._report(loss.item(), accuracy)

    def keep(self) -> None:
        """Write the state now, whole or not at all."""
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        known = {"step": self._step, "loss": self._loss, "accuracy": self._accuracy}
        document = {**known, "history": [asdict(at) for at in self.history]}
        fresh = self._file.with_suffix(".part")
        save_file(dict(self._tensors()), fresh, metadata={"progress": json.dumps(document)})
        fresh.replace(self._file)

    def _report(self, loss: float, accuracy: float) -> None:
        kept = min(SMOOTHING, 1 - 1 / self._step)
        self._loss = kept * self._loss + (1 - kept) * loss
        self._accuracy = kept * self._accuracy + (1 - kept) * accuracy
        at = Progress(self._name, self._step, self._stage.steps, self._loss, self._accuracy)
        if self._step % 10 == 0:
            self.history.append(at)
        self._on_progress(at)
        if self._step % SAVE_EVERY_STEPS == 0 or self._step == self._stage.steps:
            self.keep()

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self._parameters.items():
            yield f"parameter/{name}", parameter.detach().contiguous()
        for number, (optimizer, _) in enumerate(self._optimizers):
            for place, state in optimizer.state_dict()["state"].items():
                for key, value in state.items():
                    yield f"optimizer/{number}/{place}/{key}", torch.as_tensor(value).contiguous()

    @torch.no_grad()
    def _take_up(self, file: Path) -> None:
        with safe_open(file, "pt") as kept:
            document = json.loads(kept.metadata()["progress"])
            tensors = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118
        for name, parameter in self._parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])
        for number, (optimizer, _) in enumerate(self._optimizers):
            optimizer.load_state_dict(
                {**optimizer.state_dict(), "state": _states(tensors, f"optimizer/{number}/")}
            )
        self._step, self._loss = document["step"], document["loss"]
        self._accuracy = document["accuracy"]
        self.history = [Progress(**at) for at in document["history"]]


def _states(tensors: dict[str, Tensor], prefix: str) -> dict[int, dict[str, Any]]:
    states: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith(prefix):
            place, key = name.removeprefix(prefix).split("/")
            states.setdefault(int(place), {})[key] = value
    return states


def _optimizers(
    parameters: Sequence[Named], stage: Stage
) -> tuple[tuple[torch.optim.Optimizer, float], ...]:
    """A token's embedding and score are rows of a table, not a map: they stay with AdamW."""
    matrices = [p for name, p in parameters if _is_map(name, p)]
    others = [p for name, p in parameters if not _is_map(name, p)]
    muon, adam = stage.muon_learning_rate, stage.learning_rate
    found: list[tuple[torch.optim.Optimizer, float]] = []
    if matrices:
        found.append((torch.optim.Muon(matrices, muon, weight_decay=WEIGHT_DECAY), muon))
    if others:
        betas = (0.9, 0.95)
        found.append(
            (torch.optim.AdamW(others, adam, betas=betas, weight_decay=WEIGHT_DECAY), adam)
        )
    return tuple(found)


def _is_map(name: str, parameter: nn.Parameter) -> bool:
    return (
        parameter.ndim == 2
        and min(parameter.shape) >= SMALLEST_MATRIX
        and not name.endswith(TABLES)
    )


def _rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    return warm * (0.02 + 0.49 * (1 + math.cos(math.pi * min(1.0, step / steps))))
