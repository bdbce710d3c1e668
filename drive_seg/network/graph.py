"""Clean-up of an exported graph that torch cannot be asked for."""

from __future__ import annotations

from typing import Any

from onnx import helper

from drive_seg.network.lite import same_padding


def fold_padding(model: Any) -> int:
    """Put each Pad before a convolution of stride 2 into that convolution; returns how many there were.

    torch has no convolution that pads more at one side than at the other. ONNX has, and engines run it in one step.
    Only ``lite``'s padding occurs in our graphs, so the amounts follow from the kernel.
    """
    graph = model.graph
    padded = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Pad"}
    folded = 0
    for node in graph.node:
        if node.op_type == "Conv" and node.input[0] in padded:
            attributes = {attribute.name: attribute for attribute in node.attribute}
            before, after = same_padding(attributes["kernel_shape"].ints[0])
            node.input[0] = padded[node.input[0]]
            node.attribute.remove(attributes["pads"])
            node.attribute.append(helper.make_attribute("pads", [before, before, after, after]))
            folded += 1
    _drop_unused(graph)
    return folded


def _drop_unused(graph: Any) -> None:
    """Remove nodes whose results nobody reads, from the end backwards."""
    needed = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in needed]:
        graph.initializer.remove(tensor)
