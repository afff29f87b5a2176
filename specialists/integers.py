"""A graph whose large layers multiply 8-bit integers; everything else stays as it is.

Weights are rounded here: of a dense layer `GROUP` numbers of a row by one scale, of a convolution
each output channel by its own. What they are multiplied with is rounded while it is computed:
before a dense layer by OpenVINO, in groups too; before a convolution by nodes that divide each
image's activations by their largest. So nothing has to be known of the images beforehand, and what
is said of one does not depend on the others in its batch.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

GROUP = 64
LEAST_WIDTH = 4 * GROUP
"""Narrower layers, such as those that weigh EfficientNet's channels, gain little and lose more."""
LEAST_CHANNELS = 64
"""Of what a convolution sees; the first one sees three colours, and is left alone."""
LARGEST = 127
LEVELS = 256
"""Of an activation that is never negative."""
FLOAT = np.float32
TINY = np.finfo(FLOAT).tiny


def quantise(graph: Any, least_width: int = LEAST_WIDTH) -> int:
    """Rewrites the wide dense layers of an OpenVINO graph in place; returns how many there were."""
    count = 0
    for node in graph.get_ordered_ops():
        matrix = _matrix(node)
        if matrix is not None and _is_wide(matrix, least_width):
            node.output(0).replace(_dense(node, matrix).output(0))
            count += 1
    return count


def quantise_convolutions(graph: Any, least_channels: int = LEAST_CHANNELS) -> int:
    """The same for its large convolutions."""
    count = 0
    for node in graph.get_ordered_ops():
        if _sees_enough(node, least_channels):
            node.output(0).replace(_convolution(node).output(0))
            count += 1
    return count


def rounded(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights (out, in) as integers (out, groups, GROUP) and their scales (out, groups, 1)."""
    grouped = weights.reshape(len(weights), -1, GROUP)
    scales = _steps(grouped, LARGEST)
    whole = np.empty(grouped.shape, np.int8)
    for row, (numbers, steps) in enumerate(zip(grouped, scales, strict=True)):
        whole[row] = np.round(numbers / steps)  # row by row: a layer of VGG-16 has 411 MB
    return whole, scales


def carried(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights (out, in) as integers and their scales (out, 1); each hands its error to the next.

    So any run of them sums up to what it did, within a step. Neighbouring places of an image that
    is never negative are nearly alike: what a kernel's sum is off by would be a constant shift,
    which changes labels sooner than noise does.
    """
    scales = _steps(weights, LARGEST - 1)  # what is handed on may add one
    sums = np.round(np.cumsum(weights / scales, axis=1, dtype=np.float64))
    return np.diff(sums, axis=1, prepend=0).astype(np.int8), scales


def _steps(weights: NDArray[np.float32], largest: int) -> NDArray[np.float32]:
    """One for each run along the last axis."""
    ends = weights.max(axis=-1, keepdims=True), -weights.min(axis=-1, keepdims=True)
    steps: NDArray[np.float32] = np.maximum(*ends)
    steps /= largest
    steps[steps < TINY] = 1  # no smaller one is exact: all become 0
    return steps


def _is_wide(matrix: NDArray[np.float32], least_width: int) -> bool:
    return bool(min(matrix.shape) >= least_width and matrix.shape[1] % GROUP == 0)


def _matrix(node: Any) -> NDArray[np.float32] | None:
    """(out, in) of a dense layer whose weights are known; else nothing."""
    weights = _weights(node)
    if weights is None:
        return None
    if node.get_type_name() == "Convolution":
        return weights.reshape(len(weights), -1) if _sees_everything(node) else None
    told = node.get_attributes()
    if told["transpose_a"] or weights.ndim != 2:
        return None
    return weights if told["transpose_b"] else weights.T


def _weights(node: Any) -> NDArray[np.float32] | None:
    if node.get_type_name() not in {"MatMul", "Convolution"}:
        return None
    constant = node.input_value(1).get_node()
    if constant.get_type_name() != "Constant" or constant.get_element_type().to_dtype() != FLOAT:
        return None
    weights: NDArray[np.float32] = constant.data
    return weights


def _sees_everything(convolution: Any) -> bool:
    """Whether its kernel is as large as the image: VGG's dense layers are written so."""
    told = convolution.get_attributes()
    image, kernel = (convolution.get_input_partial_shape(place) for place in (0, 1))
    has_edges = any([*told["pads_begin"], *told["pads_end"]])
    return len(kernel) == 4 and image[2:] == kernel[2:] and not has_edges


def _sees_enough(node: Any, least_channels: int) -> bool:
    """Whether it is a convolution of many channels, none of them ever negative, and of neighbours.

    Activations with signs would have half as many levels: EfficientNet's did not survive it. A
    kernel of one place has none to hand its error to.
    """
    weights = _weights(node)
    if weights is None or node.get_type_name() != "Convolution" or weights.ndim != 4:
        return False
    has_neighbours = weights[0, 0].size > 1
    is_large = weights.shape[1] >= least_channels and has_neighbours
    is_dense = _sees_everything(node)
    return bool(is_large and not is_dense and _is_never_negative(node.input_value(0)))


def _is_never_negative(activations: Any) -> bool:
    node = activations.get_node()
    if node.get_type_name() in {"MaxPool", "AvgPool"}:
        return _is_never_negative(node.input_value(0))
    return bool(node.get_type_name() == "Relu")


def _dense(node: Any, matrix: NDArray[np.float32]) -> Any:
    from openvino import opset13

    floats = _floats(*rounded(np.ascontiguousarray(matrix)))
    known = opset13.reshape(floats, np.array(matrix.shape), special_zero=False)
    if node.get_type_name() == "MatMul":
        return _product(node.input_value(0), known)
    rows = opset13.reshape(node.input_value(0), [0, matrix.shape[1]], special_zero=True)
    return opset13.reshape(_product(rows, known), [0, len(matrix), 1, 1], special_zero=True)


def _product(rows: Any, matrix: Any) -> Any:
    from openvino import opset13

    return opset13.matmul(rows, matrix, transpose_a=False, transpose_b=True)


def _convolution(node: Any) -> Any:
    """Of each image's activations as shares of their largest, which is multiplied back."""
    from openvino import opset13

    weights, told = node.input_value(1).get_node().data, node.get_attributes()
    whole, scales = carried(weights.reshape(len(weights), -1))
    kernel = _floats(whole.reshape(weights.shape), scales[..., np.newaxis, np.newaxis])
    seen = node.input_value(0)
    largest = opset13.reduce_max(seen, np.array([1, 2, 3]), keep_dims=True)
    largest = opset13.maximum(largest, TINY)  # of a black image, 0
    nothing, all_of_it = FLOAT(0), FLOAT(1)
    shares = opset13.divide(seen, largest)
    steps = opset13.fake_quantize(shares, nothing, all_of_it, nothing, all_of_it, LEVELS)
    places = (told[name] for name in ("strides", "pads_begin", "pads_end", "dilations"))
    return opset13.multiply(opset13.convolution(steps, kernel, *places), largest)


def _floats(whole: NDArray[np.int8], scales: NDArray[np.float32]) -> Any:
    from openvino import opset13

    floats = opset13.convert(opset13.constant(whole), FLOAT)
    return opset13.multiply(floats, opset13.constant(scales))
