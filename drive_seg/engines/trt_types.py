"""Types in networks where TensorRT's builder chooses them, layer by layer (8.6).

A centre is a cell whose heat is at least the highest of its window (``peaks`` in ``drive_seg.network.deploy``). If one
side of that comparison were kept in fp16 and the other in fp32, rounding would make the highest a little higher than
itself, and centres would be lost.
"""

from __future__ import annotations

from typing import Any


def decide_in_float(trt: Any, network: Any) -> None:
    """Ask for fp32 in whatever lies between the last convolutions and the outputs that are float32: heat and offsets.

    Needs ``BuilderFlag.PREFER_PRECISION_CONSTRAINTS``. Masks and confidences, uint8 at the border, are not touched.
    """
    makers: dict[str, int] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for number in range(layer.num_outputs):
            makers[layer.get_output(number).name] = index
    # What has no arithmetic has no precision; a convolution is computed as the builder likes.
    kinds = trt.LayerType
    no_arithmetic = (kinds.CONSTANT, kinds.SHAPE, kinds.IDENTITY, kinds.CAST)
    outputs = (network.get_output(index) for index in range(network.num_outputs))
    waiting = [output.name for output in outputs if output.dtype == trt.float32]
    seen: set[int] = set()
    while waiting:
        maker = makers.get(waiting.pop())
        if maker is None or maker in seen:
            continue
        seen.add(maker)
        layer = network.get_layer(maker)
        if layer.type == kinds.CONVOLUTION:
            continue
        tensors = (layer.get_input(number) for number in range(layer.num_inputs))
        waiting += [tensor.name for tensor in tensors if tensor is not None]
        floats = [n for n in range(layer.num_outputs) if layer.get_output(n).dtype == trt.float32]
        if not floats or layer.type in no_arithmetic:
            continue
        layer.precision = trt.float32
        for number in floats:
            layer.set_output_type(number, trt.float32)
