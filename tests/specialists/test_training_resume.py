"""A training that is killed at any moment ends with the very weights it would have had."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from specialists import loader
from specialists.catalogue import PANEL, Augmentation, Precision, Scale
from specialists.task import Task
from specialists.training import checkpoint
from specialists.training.dataset import Dataset
from specialists.training.finetune import CHECKPOINTS, finetune
from specialists.training.trainer import Epoch

MOVED = Augmentation(flip=True, shift=0.1, rotation=10.0)
SIGKILL = -9

Moment = Callable[[Path], bool]
Start = Callable[..., BaseProcess]


def at_once(out: Path) -> bool:
    return True


def trained_once(out: Path) -> bool:
    return any(out.rglob("alexnet.safetensors"))


def writing_a_checkpoint(out: Path) -> bool:
    return any(out.rglob("alexnet.writing"))


def publishing(out: Path) -> bool:
    return any(out.glob(".writing-*"))


def later(moment: Moment, seconds: float) -> Moment:
    def waited(out: Path) -> bool:
        if not moment(out):
            return False
        time.sleep(seconds)
        return True

    return waited


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    """Starts processes in milliseconds: torch is imported once, in a process without threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["specialists.training.finetune"])
    return context


@pytest.fixture
def start(server: ForkServerContext, task: Task, lights: Dataset) -> Iterator[Start]:
    """Starts a training of its own process, which ends with the test."""
    started: list[BaseProcess] = []

    def start(out: Path, **options: Any) -> BaseProcess:
        given = {"epochs": 8, "patience": 8, "batch_size": 8, "augmentation": MOVED, **options}
        process = server.Process(
            target=finetune, args=(task, lights, ["alexnet"], Scale.NANO, out), kwargs=given
        )
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()
        process.close()


def killed(process: BaseProcess, out: Path, moment: Moment) -> int | None:
    """SIGKILL as soon as the moment comes; the exit code, 0 where the training was quicker."""
    while process.is_alive() and not moment(out):
        pass
    process.kill()
    process.join()
    return process.exitcode


def weights_of(out: Path) -> str:
    return loader.sha256((out / "alexnet" / loader.WEIGHTS).read_bytes())


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.BFLOAT16])
def test_killed_again_and_again_it_ends_with_the_same_weights(
    start: Start, tmp_path: Path, precision: Precision
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    start(whole, precision=precision).join()
    moments = [at_once, trained_once, later(trained_once, 0.05), writing_a_checkpoint, publishing]

    ends = [killed(start(parts, precision=precision), parts, moment) for moment in moments]
    start(parts, precision=precision).join()

    assert ends.count(SIGKILL) >= 3
    assert weights_of(parts) == weights_of(whole)
    assert [path.name for path in parts.iterdir() if path.name == CHECKPOINTS] == []


def test_killed_between_its_seeds_it_keeps_the_same_one(start: Start, tmp_path: Path) -> None:
    def second_seed(out: Path) -> bool:
        return any(out.glob(f"{CHECKPOINTS}/seed-1/{CHECKPOINTS}/*.safetensors"))

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    start(whole, seeds=3, epochs=2).join()

    end = killed(start(parts, seeds=3, epochs=2), parts, second_seed)
    start(parts, seeds=3, epochs=2).join()

    one, other = (loader.read_manifest(out / "alexnet") for out in (whole, parts))
    assert end == SIGKILL
    assert one.weights_sha256 == other.weights_sha256
    assert one.validation == other.validation
    assert [path.name for path in parts.iterdir()] == ["alexnet"]


class Killed(Exception):
    """Stands for whatever may end a training."""


@pytest.mark.parametrize("key", PANEL)
def test_every_backbone_goes_on_as_if_nothing_had_been(
    key: str, task: Task, lights: Dataset, tmp_path: Path
) -> None:
    def kill(_: Epoch) -> None:
        raise Killed

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options: dict[str, Any] = {"epochs": 2, "batch_size": 8}
    finetune(task, lights, [key], Scale.NANO, whole, **options)
    with pytest.raises(Killed):
        finetune(task, lights, [key], Scale.NANO, parts, **options, on_progress=kill)
    finetune(task, lights, [key], Scale.NANO, parts, **options)

    one, other = (loader.read_manifest(out / key).weights_sha256 for out in (whole, parts))
    assert one == other


def test_a_checkpoint_left_by_a_kill_after_publishing_is_tidied_away(
    task: Task, lights: Dataset, tmp_path: Path
) -> None:
    finetune(task, lights, ["alexnet"], Scale.NANO, tmp_path, epochs=1)
    left = tmp_path / CHECKPOINTS / "alexnet.safetensors"
    checkpoint.write(left, checkpoint.Checkpoint(checkpoint.Progress("run"), {}, {}, {}))

    (again,) = finetune(task, lights, ["alexnet"], Scale.NANO, tmp_path, epochs=1)

    assert again.skipped
    assert not (tmp_path / CHECKPOINTS).exists()
