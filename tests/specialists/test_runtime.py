"""Faster ways to compute a specialist say what the model says."""

import importlib
import importlib.util
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from specialists import graph, graph_writer, head, loader, memory, runtime
from specialists.arithmetic import F32, Arithmetic
from specialists.errors import InvalidSpecialist
from specialists.forward import forward
from specialists.graph import Graph
from specialists.loader import Specialist
from specialists.pool import SpecialistPool
from specialists.prediction import Pixels
from specialists.task import Task


@pytest.fixture
def plain(panels: Path, task: Task) -> Specialist:
    return loader.load(panels / "light" / "resnet18", task)


@pytest.fixture
def folder(full_size: Path, tmp_path: Path) -> Path:
    """The same, that a test may write to."""
    return Path(shutil.copytree(full_size, tmp_path / "light" / "resnet18"))


FLOATS, INTEGERS = Arithmetic(F32), Arithmetic(F32, integers=True)
in_floats = partial(tuple, (FLOATS,))  # whatever is fastest on the machine of the tests


def compiled(plain: Specialist, tmp_path: Path, how: Arithmetic = FLOATS) -> Specialist:
    file = tmp_path / "trunk.xml"
    size = plain.manifest.preprocessing.input_size
    graph_writer.write(plain.model, size, file, how)
    return replace(plain, trunk=Graph(file, how))


def some_images(plain: Specialist, count: int) -> torch.Tensor:
    size = plain.manifest.preprocessing.input_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def made(folder: Path) -> list[Path]:
    return list((folder / graph.COMPILED).glob(f"*/{graph.FILE}"))


@pytest.mark.parametrize("how", [FLOATS, INTEGERS], ids=str)
@pytest.mark.parametrize("key", ["resnet18", "eva02-b16", "sam-vit-b16"])
def test_a_graph_says_what_the_model_says(
    panels: Path, task: Task, tmp_path: Path, key: str, how: Arithmetic
) -> None:
    plain = loader.load(panels / "light" / key, task)
    images = some_images(plain, 3)

    fast = compiled(plain, tmp_path, how)
    ours, alone, theirs = (
        forward(fast, images),
        forward(fast, images[:1]),
        forward(plain, images),
    )

    assert ours[0] == pytest.approx(theirs[0], abs=0.02)
    assert (ours[1] * theirs[1]).sum(axis=1).min() > 0.999
    assert (alone[1] * theirs[1][:1]).sum(axis=1).min() > 0.999


def test_threads_that_ask_at_once_get_their_own_answers(plain: Specialist, tmp_path: Path) -> None:
    fast = compiled(plain, tmp_path)
    images = some_images(plain, 8)
    alone = [forward(fast, images[place : place + 1])[1] for place in range(8)]
    found: dict[int, np.ndarray] = {}

    def ask(place: int) -> None:
        found[place] = forward(fast, images[place : place + 1])[1]

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all((found[place] == alone[place]).all() for place in range(8))


def test_graphs_that_compute_at_once_do_not_share_a_core(plain: Specialist, tmp_path: Path) -> None:
    trunk = compiled(plain, tmp_path).trunk

    assert isinstance(trunk, Graph)
    computing = trunk._request.get_compiled_model()
    assert computing.get_property("ENABLE_CPU_PINNING") is False


def test_a_full_size_specialist_computes_as_a_graph_that_is_kept(folder: Path, task: Task) -> None:
    (file,) = made(folder)
    written = file.stat().st_mtime_ns

    fast = runtime.ready(folder, task, ways=in_floats)

    assert isinstance(fast.trunk, Graph)
    assert file.stat().st_mtime_ns == written


def test_its_other_tensors_stay_on_disk_until_gradients_are_wanted(
    folder: Path, task: Task
) -> None:
    fast, plain = runtime.ready(folder, task, ways=in_floats), loader.load(folder, task)
    images = some_images(plain, 2)

    assert not fast.is_whole
    assert memory.footprint([fast]) < memory.footprint([plain])
    assert runtime.whole(fast, folder).is_whole
    assert forward(fast, images)[0] == pytest.approx(forward(plain, images)[0], abs=0.02)


async def test_a_pool_of_compiled_specialists_answers_and_explains(
    folder: Path, new_task, pixels: Pixels
) -> None:
    alone = new_task(panel=["resnet18"])
    pool = SpecialistPool(folder.parent.parent)
    await pool.start()
    try:
        answer = await pool.consult(pixels, alone)
        made = await pool.explain(pixels, alone, "resnet18", "bright")
    finally:
        await pool.close()

    (said,) = answer.predictions
    assert made.weights_sha256 == said.weights_sha256
    assert said.computed_in == runtime.ready(folder, alone).computed_in
    assert made.probability == pytest.approx(said.probabilities[1], abs=0.02)


def test_a_specialist_beside_another_tells_the_numbers_of_their_trunk(
    plain: Specialist, panels: Path, task: Task
) -> None:
    donor = replace(plain, trunk=plain.model.embed, computed_in="bfloat16")

    beside = head.load_beside(donor, panels / "light" / "resnet18", task)

    assert beside.trunk is donor.trunk
    assert beside.computed_in == "bfloat16"


def test_gradients_of_weights_that_were_replaced_are_not_shown(
    folder: Path, task: Task, new_specialist
) -> None:
    fast = runtime.ready(folder, task, ways=in_floats)
    new_specialist(folder, task, "resnet18", seed=8)

    with pytest.raises(InvalidSpecialist, match="has just been replaced"):
        runtime.whole(fast, folder)


@pytest.mark.parametrize("damage", ["trunk.bin", graph.PROMISE])
def test_a_damaged_graph_and_those_of_former_weights_are_replaced(
    folder: Path, task: Task, damage: str
) -> None:
    (file,) = made(folder)
    shutil.copytree(file.parent, file.parent.with_name("former-1-2026"))
    file.with_name(damage).write_bytes(b"")

    assert isinstance(runtime.ready(folder, task, ways=in_floats).trunk, Graph)
    assert made(folder) == [file]


def test_what_a_killed_writer_left_goes_with_the_next_graph(folder: Path, task: Task) -> None:
    left = [folder / graph.COMPILED / name for name in (".writing-long-ago", ".writing-now")]
    for staging in left:
        staging.mkdir()
    os.utime(left[0], (0, 0))
    made(folder)[0].write_text("damaged")

    runtime.ready(folder, task, ways=in_floats)

    assert [staging.exists() for staging in left] == [False, True]


def test_several_that_make_the_same_graph_at_once_all_have_one(
    folder: Path, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = made(folder)
    written = shutil.copytree(file.parent, tmp_path / "written")
    shutil.rmtree(folder / graph.COMPILED)
    all_have_written = threading.Barrier(8)

    def write(*asked: Any) -> None:
        shutil.copytree(written, asked[3].parent)
        all_have_written.wait(60)

    monkeypatch.setattr(graph, "_write", write)

    with ThreadPoolExecutor(8) as together:
        ready = partial(runtime.ready, task=task, ways=in_floats)
        found = list(together.map(ready, [folder] * 8))

    assert all(isinstance(one.trunk, Graph) for one in found)
    assert made(folder) == [file]


def test_a_folder_that_cannot_be_written_is_left_as_it_is(folder: Path, task: Task) -> None:
    shutil.rmtree(folder / graph.COMPILED)
    (folder / graph.COMPILED).write_text("no folder")

    assert isinstance(runtime.ready(folder, task, ways=in_floats).trunk, Graph)
    assert (folder / graph.COMPILED).read_text() == "no folder"


def test_a_graph_that_says_something_else_is_not_taken(folder: Path, task: Task) -> None:
    promise = made(folder)[0].with_name(graph.PROMISE)
    np.save(promise, 1 - np.load(promise))

    found = runtime.ready(folder, task, ways=in_floats)

    assert found.trunk is None
    assert found.is_whole


def test_integers_that_say_something_else_leave_it_to_floats(folder: Path, task: Task) -> None:
    ways = partial(tuple, (INTEGERS, FLOATS))
    first = runtime.ready(folder, task, ways=ways)
    promise = folder / graph.COMPILED / graph.name(first.manifest, INTEGERS) / graph.PROMISE
    np.save(promise, 1 - np.load(promise))

    found = runtime.ready(folder, task, ways=ways)

    assert isinstance(found.trunk, Graph)
    assert found.trunk.how == FLOATS
    kinds = {file.parent.name.rpartition("-")[2] for file in made(folder)}
    assert kinds == {"floats", "integers_f32"}


@pytest.mark.parametrize("damage", [np.ones((2, 3), np.float32), np.array(["no", "number"])])
def test_a_graph_that_cannot_be_compared_is_not_taken(
    folder: Path, task: Task, damage: np.ndarray
) -> None:
    np.save(made(folder)[0].with_name(graph.PROMISE), damage)

    assert runtime.ready(folder, task, ways=in_floats).name == "resnet18"


def test_where_no_numbers_can_be_computed_in_pytorch_answers(folder: Path, task: Task) -> None:
    assert runtime.ready(folder, task, ways=tuple).is_whole


def test_whoever_stops_does_not_wait_for_a_graph_and_pytorch_answers(
    folder: Path, task: Task
) -> None:
    shutil.rmtree(folder / graph.COMPILED)
    stop = threading.Event()
    stop.set()

    found = runtime.ready(folder, task, stop=stop, ways=in_floats)

    assert found.trunk is None
    assert found.is_whole
    assert not made(folder)


@pytest.mark.parametrize("file", [loader.WEIGHTS, loader.MANIFEST])
def test_a_graph_does_not_answer_for_weights_that_are_damaged(
    folder: Path, task: Task, file: str
) -> None:
    (folder / file).write_bytes(b"half a file")

    with pytest.raises(InvalidSpecialist):
        runtime.ready(folder, task, ways=in_floats)


def test_nano_specialists_stay_as_they_were_trained(panels: Path, task: Task) -> None:
    found = runtime.ready(panels / "light" / "resnet18", task)

    assert found.trunk is None
    assert found.is_whole


def test_without_the_compiler_pytorch_answers(
    folder: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert runtime.ready(folder, task, ways=in_floats).is_whole


def test_nobody_is_told_that_a_model_was_converted(plain: Specialist, tmp_path: Path) -> None:
    compiled(plain, tmp_path)

    utilities = importlib.import_module("openvino.tools.ovc.telemetry_utils")
    assert utilities.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
