"""A graph whose wide dense layers multiply 8-bit integers; everything else stays as it is.

Weights are rounded here, `GROUP` numbers of a row by one scale. OpenVINO rounds what they are
multiplied with alike, while it computes, so nothing has to be known of the images beforehand.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

GROUP = 64
LEAST_WIDTH = 4 * GROUP
"""Narrower layers, such as those that weigh EfficientNet's channels, gain little and lose more."""
LARGEST = 127
FLOAT = np.float32


def quantise(graph: Any, least_width: int = LEAST_WIDTH) -> int:
    """Rewrites the wide dense layers of an OpenVINO graph in place; returns how many there were."""
    count = 0
    for node in graph.get_ordered_ops():
        weights = _weights(node)
        if weights is None or not _is_wide(weights, least_width):
            continue
        node.output(0).replace(_with_integers(node, weights).output(0))
        count += 1
    return count


def rounded(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights (out, in) as integers (out, groups, GROUP) and their scales (out, groups, 1)."""
    grouped = weights.reshape(len(weights), -1, GROUP)
    scales = np.maximum(grouped.max(axis=2, keepdims=True), -grouped.min(axis=2, keepdims=True))
    scales /= LARGEST
    scales[scales < np.finfo(np.float32).tiny] = 1  # no smaller one is exact: all become 0
    whole = np.empty(grouped.shape, np.int8)
    for row, (numbers, steps) in enumerate(zip(grouped, scales, strict=True)):
        whole[row] = np.round(numbers / steps)  # row by row: a layer of VGG-16 has 411 MB
    return whole, scales


def _is_wide(weights: NDArray[np.float32], least_width: int) -> bool:
    return bool(min(weights.shape) >= least_width and weights.shape[1] % GROUP == 0)


def _weights(node: Any) -> NDArray[np.float32] | None:
    """(out, in) of a dense layer whose weights are known; else nothing."""
    kind = node.get_type_name()
    if kind not in {"MatMul", "Convolution"}:
        return None
    constant = node.input_value(1).get_node()
    if constant.get_type_name() != "Constant" or constant.get_element_type().to_dtype() != FLOAT:
        return None
    weights: NDArray[np.float32] = constant.data
    if kind == "Convolution":
        return weights.reshape(len(weights), -1) if _sees_everything(node) else None
    told = node.get_attributes()
    if told["transpose_a"] or weights.ndim != 2:
        return None
    return weights if told["transpose_b"] else weights.T


def _sees_everything(convolution: Any) -> bool:
    """Whether its kernel is as large as the image: VGG's dense layers are written so."""
    told = convolution.get_attributes()
    image, kernel = (convolution.get_input_partial_shape(place) for place in (0, 1))
    has_edges = any([*told["pads_begin"], *told["pads_end"]])
    return len(kernel) == 4 and image[2:] == kernel[2:] and not has_edges


def _with_integers(node: Any, weights: NDArray[np.float32]) -> Any:
    from openvino import opset13

    whole, scales = rounded(np.ascontiguousarray(weights))
    floats = opset13.convert(opset13.constant(whole), np.float32)
    scaled = opset13.multiply(floats, opset13.constant(scales))
    matrix = opset13.reshape(scaled, np.array(weights.shape), special_zero=False)
    if node.get_type_name() == "MatMul":
        return _product(node.input_value(0), matrix)
    rows = opset13.reshape(node.input_value(0), [0, weights.shape[1]], special_zero=True)
    return opset13.reshape(_product(rows, matrix), [0, len(weights), 1, 1], special_zero=True)


def _product(rows: Any, matrix: Any) -> Any:
    from openvino import opset13

    return opset13.matmul(rows, matrix, transpose_a=False, transpose_b=True)
