"""A graph whose wide dense layers multiply 8-bit integers; everything else stays as it is.

Weights are rounded here, `GROUP` numbers of a row by one scale. OpenVINO rounds what they are
multiplied with alike, while it computes, so nothing has to be known of the images beforehand.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

GROUP = 64
LEAST_WIDTH = 4 * GROUP
"""Narrower products, such as those within attention heads, gain little and lose more."""
LARGEST = 127


def quantise(graph: Any, least_width: int = LEAST_WIDTH) -> int:
    """Rewrites the wide dense layers of an OpenVINO graph in place; returns how many there were."""
    layers = [node for node in graph.get_ordered_ops() if _is_dense(node, least_width)]
    for node in layers:
        node.output(0).replace(_with_integers(node).output(0))
    return len(layers)


def rounded(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights (out, in) as integers (out, groups, GROUP) and their scales (out, groups, 1)."""
    grouped = weights.reshape(len(weights), -1, GROUP)
    scales = np.abs(grouped).max(axis=2, keepdims=True) / LARGEST
    scales[scales < np.finfo(np.float32).tiny] = 1  # no smaller one is exact: all become 0
    return np.round(grouped / scales).astype(np.int8), scales.astype(np.float32)


def _is_dense(node: Any, least_width: int) -> bool:
    """Whether it multiplies by a matrix that is known, and wide enough."""
    if node.get_type_name() != "MatMul" or node.get_attributes()["transpose_a"]:
        return False
    weights = node.input_value(1).get_node()
    if weights.get_type_name() != "Constant" or len(weights.get_output_shape(0)) != 2:
        return False
    if weights.get_element_type().to_dtype() != np.float32:
        return False
    width = _weights(node).shape[1]
    return bool(width >= least_width and width % GROUP == 0)


def _weights(node: Any) -> NDArray[np.float32]:
    """(out, in)."""
    weights = node.input_value(1).get_node().data
    return np.asarray(weights if node.get_attributes()["transpose_b"] else weights.T, np.float32)


def _with_integers(node: Any) -> Any:
    from openvino import opset13

    weights = _weights(node)
    whole, scales = rounded(np.ascontiguousarray(weights))
    floats = opset13.convert(opset13.constant(whole), np.float32)
    scaled = opset13.multiply(floats, opset13.constant(scales))
    matrix = opset13.reshape(scaled, np.array(weights.shape), special_zero=False)
    return opset13.matmul(node.input_value(0), matrix, transpose_a=False, transpose_b=True)
