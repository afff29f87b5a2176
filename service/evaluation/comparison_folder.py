"""A comparison's folder: what is compared, and what every specialist said of the cases.

plan.json               what all runs have in common; a folder of another plan is refused
runs/BACKBONE-SEED.json what one specialist said, and what it took to train it
work/SEED/              specialists being trained; gone when all runs are there
comparison.md  .json    the figures
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cattrs

from service.errors import Misconfigured
from specialists.catalogue import Scale

PLAN, LOCK = "plan.json", ".lock"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What the runs of one folder have in common."""

    task: str
    kind: str
    labels: tuple[str, ...]
    data: str
    data_fingerprint: str
    split: str
    scale: Scale
    fraction: float
    recipe: Mapping[str, Any]
    format: int = FORMAT

    @property
    def name(self) -> str:
        """The same of equal plans, as the name of a folder."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Run:
    """One backbone, trained with one seed, on the cases of the plan's split.

    `weights` names the file that it began from, None where it began from random numbers.
    """

    backbone: str
    seed: int
    weights: str | None
    weights_sha256: str | None
    images: int
    patients: int
    parameters: int
    best_epoch: int
    training_seconds: float
    milliseconds_per_image: float
    probabilities: tuple[tuple[float, ...], ...]  # (cases, labels)


class ComparisonFolder:
    """Written by one process at a time; every file is there whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def opened(self, plan: Plan) -> Iterator[None]:
        """Begin, or go on with, this comparison; raises Misconfigured where it is another's."""
        if self.path.exists() and not self.path.is_dir():
            raise Misconfigured(f"'{self.path}' is a file, not a folder")
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Misconfigured(f"another comparison is writing to '{self.path}'") from error
            self._demand_same(plan)
            yield

    def run(self, backbone: str, seed: int) -> Run | None:
        """A finished run; None where there is none, or only a damaged one."""
        try:
            document = json.loads(self._run_path(backbone, seed).read_text("utf-8"))
            return cattrs.structure(document, Run)
        except (FileNotFoundError, ValueError, cattrs.BaseValidationError):
            return None

    def keep(self, run: Run) -> None:
        path = self._run_path(run.backbone, run.seed)
        self.write(path.relative_to(self.path).as_posix(), json.dumps(asdict(run)) + "\n")

    def work(self, seed: int) -> Path:
        """Where the specialists of a seed are trained."""
        return self.path / "work" / str(seed)

    def tidy(self) -> None:
        """Removes the specialists, whose answers are kept."""
        shutil.rmtree(self.path / "work", ignore_errors=True)

    def write(self, name: str, content: str) -> Path:
        """A file, whole or not at all."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".part")
        fresh.write_text(content, "utf-8")
        return fresh.replace(path)

    def _run_path(self, backbone: str, seed: int) -> Path:
        return self.path / "runs" / f"{backbone}-{seed}.json"

    def _demand_same(self, plan: Plan) -> None:
        ours = json.loads(json.dumps(asdict(plan)))
        if not (self.path / PLAN).exists():
            strange = sorted(one.name for one in self.path.iterdir() if one.name != LOCK)
            if strange:
                raise Misconfigured(f"'{self.path}' is no comparison: it holds {strange[0]!r}")
            self.write(PLAN, json.dumps(ours, indent=2) + "\n")
            return
        theirs = self._plan()
        if different := [name for name in ours if ours[name] != theirs.get(name)]:
            told = _told(different[0], theirs, ours)
            raise Misconfigured(f"'{self.path}' holds another comparison: {told}")

    def _plan(self) -> dict[str, Any]:
        try:
            document = json.loads((self.path / PLAN).read_text("utf-8"))
        except ValueError as error:
            raise Misconfigured(f"{PLAN} in '{self.path}' is damaged") from error
        return document if isinstance(document, dict) else {}


def _told(name: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    mine, other = ours.get(name), theirs.get(name)
    if isinstance(mine, dict) and isinstance(other, dict):
        changed = (one for one in (*mine, *other) if mine.get(one) != other.get(one))
        return _told(next(changed), other, mine)
    if isinstance(mine, str | int | float) and name != "data_fingerprint":
        return f"its {name} is {other!r}, not {mine!r}"
    return f"its {name.replace('_', ' ')} differs"
