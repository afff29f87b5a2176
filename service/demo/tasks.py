"""The tasks of the demonstration, and the phantoms that belong to each."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from service.demo import phantoms
from service.demo.phantoms import Phantom, Scanner
from specialists import task as tasks
from specialists.task import Task

SIZE = 128
"""Pixels a side. Noise is drawn per pixel, so training and showing use the same size."""

_KINDS = {
    "phantom-cxr": "chest",
    "phantom-derm": "dermoscopy",
    "phantom-cxr-findings": "findings",
    "phantom-fundus": "fundus",
}
_TOLD = ("phantom-cxr-report", "phantom-cxr-questions")


@dataclass(frozen=True, slots=True)
class DemoTask:
    """A task whose images are drawn: `kind` is the kind of phantom."""

    task: Task
    kind: str

    @property
    def is_chest(self) -> bool:
        """Drawn as a radiograph, in grey."""
        return self.kind in {"chest", "findings"}

    def series(
        self, count: int, seed: int, size: int = SIZE, scanner: Scanner = phantoms.HOSPITAL_A
    ) -> Iterator[Phantom]:
        """Phantoms with balanced labels; the same seed gives the same images."""
        return phantoms.series(self.kind, count, seed, size, scanner)


def demo_tasks() -> tuple[DemoTask, ...]:
    """Every labelled task of the demonstration, in the order in which it shows them."""
    return tuple(DemoTask(tasks.parse(toml(name)), kind) for name, kind in _KINDS.items())


def told_tasks() -> tuple[Task, ...]:
    """The report and question tasks, which consult a labelled one."""
    return tuple(tasks.parse(toml(name)) for name in _TOLD)


def toml(name: str) -> str:
    """The task file of a demo task."""
    return files("service.demo").joinpath("task_files", f"{name}.toml").read_text("utf-8")
