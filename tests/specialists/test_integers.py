"""Large layers of graphs in 8-bit integers, and when they are taken."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from specialists import arithmetic, graph, graph_writer, integers
from specialists.arithmetic import BF16, F32, Arithmetic
from specialists.graph import Graph

INTEGERS = Arithmetic(F32, integers=True)


def a_layer(*, inputs: int, outputs: int = 256, turned: bool = False) -> Any:
    """A graph of one dense layer, its matrix (out, in), or (in, out) where it is turned."""
    arithmetic.without_telemetry()
    import openvino
    from openvino import opset13

    weights = np.random.default_rng(1).standard_normal((outputs, inputs), np.float32)
    tokens = opset13.parameter([-1, inputs], np.float32)
    matrix = opset13.constant(weights.T.copy() if turned else weights)
    layer = opset13.matmul(tokens, matrix, transpose_a=False, transpose_b=not turned)
    return openvino.Model([layer], [tokens])


def a_convolution(*, image: int, kernel: int = 7, inputs: int = 64, padded: int = 0) -> Any:
    """A graph of one convolution, as VGG's dense layers are written."""
    arithmetic.without_telemetry()
    import openvino
    from openvino import opset13

    shape = (256, inputs, kernel, kernel)
    weights = opset13.constant(np.random.default_rng(1).standard_normal(shape, np.float32))
    images = opset13.parameter([-1, inputs, image, image], np.float32)
    layer = opset13.convolution(images, weights, [1, 1], [padded] * 2, [padded] * 2, [1, 1])
    return openvino.Model([layer], [images])


def a_convolution_of_parts(
    *,
    kernel: int = 3,
    inputs: int = 64,
    before: str = "relu",
    pooled: bool = False,
    stride: int = 1,
    dilation: int = 1,
) -> Any:
    """A graph of what a ReLU, or another function, left of images, and a convolution that sees it.

    All but the first channel.
    """
    arithmetic.without_telemetry()
    import openvino
    from openvino import opset13

    shape = (32, inputs, kernel, kernel)
    weights = np.random.default_rng(1).standard_normal(shape, np.float32)
    weights[:, 0] = 0
    images = opset13.parameter([-1, inputs, 12, 12], np.float32)
    seen = getattr(opset13, before)(images)
    if pooled:
        seen = opset13.max_pool(seen, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    begin, end, known = [kernel // 2] * 2, [0, 1], opset13.constant(weights)
    layer = opset13.convolution(seen, known, [stride] * 2, begin, end, [dilation] * 2)
    return openvino.Model([layer], [images])


def a_network() -> Any:
    """A graph of a convolution that sees what a ReLU left, and of a dense layer after it."""
    arithmetic.without_telemetry()
    import openvino
    from openvino import opset13

    rng = np.random.default_rng(1)
    kernel = opset13.constant(rng.standard_normal((256, 64, 3, 3), np.float32))
    matrix = opset13.constant(rng.standard_normal((256, 256), np.float32))
    images = opset13.parameter([-1, 64, 12, 12], np.float32)
    seen = opset13.convolution(opset13.relu(images), kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    pooled = opset13.reduce_mean(opset13.relu(seen), np.array([2, 3]))
    return openvino.Model([opset13.matmul(pooled, matrix, False, True)], [images])


def computed(graph: Any, tokens: np.ndarray, how: Arithmetic) -> np.ndarray:
    request = arithmetic.compiled(arithmetic.new_core(), graph, how)
    request.infer([tokens])
    return request.get_output_tensor(0).data.copy()


def least_cosine(said: np.ndarray, exact: np.ndarray) -> float:
    lengths = np.linalg.norm(said, axis=1) * np.linalg.norm(exact, axis=1)
    return float(((said * exact).sum(axis=1) / lengths).min())


@pytest.mark.parametrize("turned", [False, True])
def test_a_dense_layer_of_integers_says_nearly_the_same(*, turned: bool) -> None:
    tokens = np.random.default_rng(2).standard_normal((5, 512), np.float32)
    exact = computed(a_layer(inputs=512, turned=turned), tokens, Arithmetic(F32))
    graph = a_layer(inputs=512, turned=turned)

    assert integers.quantise(graph) == 1

    said = computed(graph, tokens, INTEGERS)
    assert not (said == exact).all()
    assert least_cosine(said, exact) > 0.999


def test_a_convolution_that_sees_its_whole_image_is_a_dense_layer() -> None:
    images = np.random.default_rng(2).standard_normal((3, 64, 7, 7), np.float32)
    exact = computed(a_convolution(image=7), images, Arithmetic(F32))
    graph = a_convolution(image=7)

    assert integers.quantise(graph) == 1

    said = computed(graph, images, INTEGERS)
    assert said.shape == exact.shape
    assert not (said == exact).all()
    assert least_cosine(said[:, :, 0, 0], exact[:, :, 0, 0]) > 0.999
    assert np.abs(said).mean() == pytest.approx(np.abs(exact).mean(), rel=0.01)


@pytest.mark.parametrize("odd", [{}, {"pooled": True}, {"stride": 2}, {"dilation": 2}])
def test_a_convolution_of_what_a_relu_left_says_nearly_the_same(odd: dict[str, Any]) -> None:
    images = np.random.default_rng(2).standard_normal((3, 64, 12, 12), np.float32)
    exact = computed(a_convolution_of_parts(**odd), images, Arithmetic(F32))
    graph = a_convolution_of_parts(**odd)

    assert integers.quantise_convolutions(graph) == 1

    said = computed(graph, images, INTEGERS)
    assert said.shape == exact.shape
    assert not (said == exact).all()
    assert least_cosine(said.reshape(3, -1), exact.reshape(3, -1)) > 0.9999


def test_images_are_rounded_each_by_its_own_largest() -> None:
    images = np.random.default_rng(2).standard_normal((3, 64, 12, 12), np.float32)
    images[1] *= 1e4
    images[2] = 0
    graph = a_convolution_of_parts()
    integers.quantise_convolutions(graph)

    together = computed(graph, images, INTEGERS)

    assert (together[2] == 0).all()
    for image, said in zip(images, together, strict=True):
        assert (computed(graph, image[np.newaxis], INTEGERS)[0] == said).all()


def taking(*seconds: float) -> Any:
    """A stopwatch that has been told what to say."""
    return lambda requests, images: list(seconds)


@pytest.mark.parametrize(
    ("dwarfing", "timed", "has_integers"),
    [(1, taking(2, 3), True), (1, taking(3, 2), False), (1e6, taking(2, 3), False)],
    ids=["faster", "slower", "one channel dwarfs the others"],
)
def test_convolutions_of_integers_are_kept_where_they_agree_and_are_faster(
    *, dwarfing: float, timed: Any, has_integers: bool
) -> None:
    images = np.random.default_rng(2).standard_normal((2, 64, 12, 12), np.float32)
    images[:, 0] *= dwarfing
    graph = a_convolution_of_parts()
    promise = computed(graph, images, Arithmetic(F32))

    told = torch.from_numpy(images), torch.from_numpy(promise)
    made = graph_writer.in_integers(graph, *told, INTEGERS, timed)

    kinds = {node.get_type_name() for node in made.get_ordered_ops()}
    assert ("FakeQuantize" in kinds) is has_integers


@pytest.mark.parametrize("of_convolutions", [True, False], ids=["better", "slower"])
@pytest.mark.parametrize("how", [INTEGERS, Arithmetic(BF16, integers=True)], ids=str)
def test_dense_layers_stay_integers_whatever_becomes_of_convolutions(
    how: Arithmetic, *, of_convolutions: bool
) -> None:
    if how not in arithmetic.measured():
        pytest.skip(f"this machine does not compute in {how}")
    images = np.random.default_rng(2).standard_normal((2, 64, 12, 12), np.float32)
    promise = computed(a_network(), images, Arithmetic(F32))
    told = torch.from_numpy(images), torch.from_numpy(promise)

    made = graph_writer.in_integers(a_network(), *told, how, taking(1, 1 + of_convolutions))

    kinds = [node.get_type_name() for node in made.get_ordered_ops()]
    whole = [one.get_element_type().get_type_name() for one in made.get_ordered_ops()]
    assert ("FakeQuantize" in kinds) is of_convolutions
    assert whole.count("i8") == 1 + of_convolutions
    assert least_cosine(computed(made, images, how), promise) > 0.999


@pytest.mark.parametrize(
    "made",
    [
        partial(a_layer, inputs=64),
        partial(a_layer, inputs=300),
        partial(a_layer, inputs=512, outputs=32),
        partial(a_convolution, image=9),
        partial(a_convolution, image=7, padded=3),
        partial(a_convolution, image=1, kernel=1),
        partial(a_convolution_of_parts, kernel=1),
        partial(a_convolution_of_parts, inputs=3),
        partial(a_convolution_of_parts, before="tanh"),
        partial(a_convolution_of_parts, before="tanh", pooled=True),
    ],
)
def test_layers_that_are_narrow_or_odd_or_see_what_may_be_negative_stay_as_they_are(
    made: Callable[[], Any],
) -> None:
    graph = made()
    before = [node.get_friendly_name() for node in graph.get_ordered_ops()]

    assert integers.quantise(graph) + integers.quantise_convolutions(graph) == 0

    assert [node.get_friendly_name() for node in graph.get_ordered_ops()] == before


@pytest.mark.parametrize(("inputs", "told"), [(512, INTEGERS), (64, Arithmetic(F32))])
def test_a_graph_tells_of_integers_only_where_it_has_some(
    tmp_path: Path, inputs: int, told: Arithmetic
) -> None:
    layer, file = a_layer(inputs=inputs), tmp_path / graph.FILE
    integers.quantise(layer)
    import openvino

    openvino.save_model(layer, file)
    np.save(tmp_path / graph.PROMISE, np.zeros((2, 256), np.float32))

    assert Graph(file, INTEGERS).how == told


numbers = st.floats(-1e3, 1e3, width=32)
smallest = np.full((1, 2 * integers.GROUP), 190 * 1.4e-45, np.float32)


@example(smallest)
@given(weights=arrays(np.float32, (3, 2 * integers.GROUP), elements=numbers))
def test_a_rounded_weight_is_off_by_half_a_step_at_most(weights: np.ndarray) -> None:
    whole, scales = integers.rounded(weights)

    off = np.abs(whole * scales - weights.reshape(whole.shape))
    assert (off <= scales * 0.501).all()


@example(np.full((3, 18), 3e-45, np.float32))
@given(weights=arrays(np.float32, (3, 18), elements=numbers))
def test_any_run_of_carried_weights_is_off_by_a_step_at_most(weights: np.ndarray) -> None:
    whole, steps = integers.carried(weights)

    off = np.cumsum(whole * steps.astype(np.float64) - weights, axis=1)
    runs = off[:, :, np.newaxis] - off[:, np.newaxis]
    assert (np.abs(runs) <= 1.001 * steps[..., np.newaxis]).all()
    assert np.abs(whole.astype(int)).max() <= integers.LARGEST


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        (
            {"f32": 9, "bf16": 14, "f32i": 4, "bf16i": 5},
            ["8-bit integers and float32", "float32", "bfloat16"],
        ),
        (
            {"f32": 9, "bf16": 3, "f32i": 5, "bf16i": 2},
            ["8-bit integers and bfloat16", "bfloat16", "float32"],
        ),
        ({"f32": 9, "bf16": 3, "f32i": 3, "bf16i": 2.9}, ["bfloat16", "float32"]),
        ({"f32": 9, "f32i": 9}, ["float32"]),
        ({"f32": 9}, ["float32"]),
        ({}, []),
    ],
)
def test_the_faster_numbers_are_tried_first(taken: dict[str, float], chosen: list[str]) -> None:
    seconds = {Arithmetic(way.rstrip("i"), way.endswith("i")): t for way, t in taken.items()}

    assert [str(one) for one in arithmetic.ordered(seconds)] == chosen


def test_what_this_machine_computes_in_is_measured() -> None:
    taken = arithmetic.measured()

    assert Arithmetic(F32) in taken
    assert {one.floats for one in taken} <= {F32, BF16}
    assert min(taken.values()) > 0


def test_what_openvino_names_and_cannot_compute_in_is_left_out() -> None:
    script = "from specialists import arithmetic; print(*arithmetic.fastest_first(), sep=', ')"
    older = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}  # integers and bfloat16 fail there

    said = subprocess.run(
        [sys.executable, "-P", "-c", script], env=older, capture_output=True, text=True, check=True
    )

    assert said.stdout == "float32\n"
