"""Our ONNX files as TensorRT takes them: the 8-bit graph of ONNX Runtime's quantiser needs rewriting, others do not.

8-bit tensors at the borders need nothing: TensorRT 8.6 to 11 take uint8 inputs and outputs that are cast from or to
float right there, which is how ``drive_seg.network.deploy`` writes every graph. But in the 8-bit file

* biases are int32 with a DequantizeLinear, which the parsers refuse: they become plain float biases;
* weights are int8 with a DequantizeLinear: they become float weights with QuantizeLinear and DequantizeLinear, the
  form that every release takes (the same int8 values come out);
* what is not quantised is float32. From TensorRT 10 on networks are strongly typed, so float16 must stand in the file:
  everything is turned to float16, scales included (which ONNX allows from opset 19 on). TensorRT 8.6 knows opset 17
  only and chooses float16 by itself where the flag allows it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from drive_seg.errors import MissingDependency, ModelError, pip_install

_HALF_OPSET = 19
_LEAST_HALF_SCALE = float(np.finfo(np.float16).tiny)
"""Below it float16 loses its digits. Only channels that are all but dead have such scales: with this one their weights,
1e-9 to 1e-4, are rounded to zero or to steps that no other channel would notice."""


def eight_bit_graph(content: bytes, half: bool) -> bytes:
    """Rewrite the int8 graph ``content`` (an ONNX file).

    Args:
        half: float16 instead of float32 inside, for strongly typed networks; inputs and outputs keep their types.

    Raises:
        MissingDependency: ``onnx`` is not installed.
        ModelError: it is not a graph that ``drive_seg export`` wrote.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingDependency("onnx", "building int8 engines", pip_install("onnx")) from error
    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # protobuf's DecodeError, whose place differs between its releases
        raise ModelError(f"not an ONNX file: {error}") from error
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}

    def value(name: str) -> np.ndarray[Any, Any]:
        return np.asarray(numpy_helper.to_array(constants[name]))

    def put(name: str, array: np.ndarray[Any, Any]) -> None:
        graph.initializer.append(numpy_helper.from_array(array, name))

    nodes: list[Any] = []
    weights = 0
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            nodes.append(node)
            continue
        quantised, scale = value(node.input[0]), value(node.input[1])
        if quantised.dtype == np.int32:
            put(node.output[0], (quantised * scale).astype(np.float32))
            continue
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        shape = [-1 if dimension == axis and scale.size > 1 else 1 for dimension in range(quantised.ndim)]
        put(f"{node.output[0]}_weights", (quantised * scale.reshape(shape)).astype(np.float32))
        if half:
            put(f"{node.output[0]}_scale", np.maximum(scale, _LEAST_HALF_SCALE))
            node.input[1] = f"{node.output[0]}_scale"
        quantise = onnx.helper.make_node(
            "QuantizeLinear",
            [f"{node.output[0]}_weights", *node.input[1:]],
            [f"{node.output[0]}_quantised"],
            f"{node.name}_Quantize",
            axis=axis,
        )
        node.input[0] = quantise.output[0]
        nodes += [quantise, node]
        weights += 1
    if not weights:
        raise ModelError("the int8 graph has no quantised weights: it is not one that drive_seg export wrote")
    _replace(graph.node, nodes)
    if half:
        _to_half(model)
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in read])
    del graph.value_info[:]
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _to_half(model: Any) -> None:
    """float32 -> float16 in every constant and cast; the graph's inputs and outputs keep their types."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    kept = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:]}  # float32 by definition
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            tensor.CopyFrom(numpy_helper.from_array(_half(numpy_helper.to_array(tensor), tensor.name), tensor.name))
    nodes: list[Any] = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT and node.output[0] not in kept:
                attribute.t.CopyFrom(numpy_helper.from_array(_half(numpy_helper.to_array(attribute.t), node.name)))
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        if node.op_type == "ReduceMean":  # opset 18 made its axes an input
            axes = next(attribute for attribute in node.attribute if attribute.name == "axes")
            name = f"{node.output[0]}_axes"
            graph.initializer.append(numpy_helper.from_array(np.array(axes.ints, np.int64), name))
            node.attribute.remove(axes)
            node.input.append(name)
        nodes.append(node)
    for output in graph.output:
        if output.type.tensor_type.elem_type != TensorProto.FLOAT:
            continue
        for node in nodes:
            for place, name in enumerate(node.output):
                if name == output.name:
                    node.output[place] = f"{name}_half"
        nodes.append(helper.make_node("Cast", [f"{output.name}_half"], [output.name], to=TensorProto.FLOAT))
    _replace(graph.node, nodes)
    model.opset_import[0].version = max(_HALF_OPSET, model.opset_import[0].version)
    model.ir_version = max(9, model.ir_version)  # that of opset 19


def _half(array: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise ModelError(f"constant {name} does not fit float16: its largest value is {np.abs(array).max():.3g}")
    return half


def _replace(field: Any, items: list[Any]) -> None:
    del field[:]
    field.extend(items)
