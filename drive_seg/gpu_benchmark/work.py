"""What a network costs by its graph: floating-point operations and bytes, layer by layer, and the time no GPU beats.

The roofline (Williams, Waterman, Patterson, CACM 2009) layer by layer: a layer takes at least its operations over the
arithmetic peak and at least its bytes over the memory bandwidth. Counted are convolutions, with what follows them
point by point taken as fused; every layer reads its inputs and weights once and writes its output once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drive_seg.errors import MissingDependency, ModelError, pip_install

WIDTHS = {"fp32": 4, "fp16": 2, "int8": 1}
"""Bytes of a number."""


@dataclass(frozen=True)
class Layer:
    """A convolution: operations (a multiply-add is two), and how many numbers it reads and writes.

    Attributes:
        quantised: whether it computes in 8 bits where the precision is ``int8``.
    """

    flops: int
    weights: int
    inputs: int
    outputs: int
    quantised: bool


@dataclass(frozen=True)
class Peaks:
    """What a GPU reaches at its best: operations per second by precision, and bytes per second."""

    flops: dict[str, float]
    memory: float
    h2d: float
    d2h: float


@dataclass(frozen=True)
class Work:
    """The convolutions of a network for one batch."""

    layers: tuple[Layer, ...]

    @property
    def flops(self) -> int:
        """In all."""
        return sum(layer.flops for layer in self.layers)

    def bytes(self, precision: str) -> int:
        """Read and written in all."""
        return sum(_bytes(layer, precision) for layer in self.layers)

    def least_seconds(self, precision: str, peaks: Peaks) -> float:
        """The roofline: no engine that computes layer by layer is faster."""
        return sum(
            max(layer.flops / peaks.flops[_arithmetic(layer, precision)], _bytes(layer, precision) / peaks.memory)
            for layer in self.layers
        )


def _arithmetic(layer: Layer, precision: str) -> str:
    """``int8`` engines compute in fp16 what is not quantised."""
    return "fp16" if precision == "int8" and not layer.quantised else precision


def _bytes(layer: Layer, precision: str) -> int:
    width = WIDTHS[_arithmetic(layer, precision)]
    return width * (layer.weights + layer.inputs + layer.outputs)


def count(content: bytes, batch: int, size: tuple[int, int]) -> Work:
    """Count a graph that ``drive_seg export`` wrote.

    Args:
        content: the ONNX file.
        size: (width, height) of the network's input.

    Raises:
        MissingDependency: ``onnx`` is not installed.
        ModelError: not such a graph.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency("onnx", "counting the network's work", pip_install("onnx")) from error
    model = onnx.load_from_string(content)
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    if len(dimensions) != 4:
        raise ModelError(f"expected a graph with one input (N, H, W, 3), got {len(dimensions)} dimensions")
    for dimension, value in zip(dimensions, (batch, size[1], size[0], 3), strict=True):
        dimension.dim_value = value
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for known in (*graph.input, *graph.value_info, *graph.output):
        shapes[known.name] = tuple(dimension.dim_value for dimension in known.type.tensor_type.shape.dim)
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    layers = []
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        source, kernel, result = (shapes.get(name, ()) for name in (node.input[0], node.input[1], node.output[0]))
        if not all((source, kernel, result)) or 0 in (*source, *kernel, *result):
            raise ModelError(f"the shapes of {node.name} cannot be inferred: {source}, {kernel}, {result}")
        per_output = int(np.prod(kernel[1:]))  # already divided by the groups
        outputs = int(np.prod(result))
        layers.append(
            Layer(
                2 * per_output * outputs,
                int(np.prod(kernel)),
                int(np.prod(source)),
                outputs,
                made_by.get(node.input[0]) == "DequantizeLinear",
            )
        )
    if not layers:
        raise ModelError("the graph has no convolution")
    return Work(tuple(layers))
