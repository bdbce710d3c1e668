"""A hand-made network that fulfils the whole contract of a model without training: pictures carry its answers.

Red says the class (``20 + 40 * class``), green the confidence (0..255), blue the centre heat (0..255). Offsets are
zero. So a test paints what the network will say, on every backend, and needs no shipped weights. Needs ``onnx``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from drive_seg.frame import RawOutputs
from drive_seg.labels import DRIVING, LabelSet

RED_PER_CLASS = 40
STRIDE = 4


def red_of(class_id: int) -> int:
    """The red value in the middle of what the network takes for ``class_id``."""
    return class_id * RED_PER_CLASS + RED_PER_CLASS // 2


def paint(
    width: int, height: int, things: Iterable[tuple[int, int, int, int, int]] = (), ground: int = 1
) -> NDArray[np.uint8]:
    """An RGB picture of class ``ground`` with rectangles (class, x, y, width, height), all of full confidence."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0], picture[..., 1] = red_of(ground), 255
    for class_id, x, y, w, h in things:
        picture[y : y + h, x : x + w, 0] = red_of(class_id)
    return picture


def paint_mask(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An RGB picture of the classes in a mask, all of full confidence."""
    picture = paint(mask.shape[1], mask.shape[0])
    picture[..., 0] = red_of(0) + RED_PER_CLASS * mask
    return picture


def network(batch: NDArray[np.uint8]) -> RawOutputs:
    """The same in NumPy, for a FunctionEngine."""
    semantic = np.minimum(batch[..., 0] // RED_PER_CLASS, len(DRIVING) - 1).astype(np.uint8)
    heat = batch[:, 1::STRIDE, 1::STRIDE, 2] / 255.0
    cells = [heat * (semantic[:, 1::STRIDE, 1::STRIDE] == label.id) for label in DRIVING.things]
    offsets = np.zeros((len(batch), 2, batch.shape[1] // STRIDE, batch.shape[2] // STRIDE), np.float32)
    return RawOutputs(semantic, batch[..., 1].copy(), np.stack(cells, axis=1).astype(np.float32), offsets)


def road_everywhere(batch: NDArray[np.uint8]) -> RawOutputs:
    """What a network for a FunctionEngine says that sees nothing but road."""
    n, height, width, _ = batch.shape
    semantic = np.ones((n, height, width), np.uint8)
    grid = (height // STRIDE, width // STRIDE)
    return RawOutputs(
        semantic,
        np.full_like(semantic, 255),
        np.zeros((n, len(DRIVING.things), *grid), np.float32),
        np.zeros((n, 2, *grid), np.float32),
    )


def write_tiny_model(
    folder: Path, name: str = "tiny", size: tuple[int, int] = (320, 192), labels: LabelSet = DRIVING
) -> Path:
    """Write ``NAME.onnx`` and its sidecar; returns the sidecar's path. ``size`` is (width, height)."""
    import onnx

    graph = folder / f"{name}.onnx"
    onnx.save(_model(labels), str(graph))
    sidecar = folder / f"{name}.yaml"
    card = {
        "name": name,
        "task": "panoptic",
        "onnx": {"fp32": {"path": graph.name, "sha256": hashlib.sha256(graph.read_bytes()).hexdigest()}},
        "input": {"width": size[0], "height": size[1], "layout": "NHWC", "dtype": "uint8", "color": "rgb"},
        "outputs": {key: key for key in ("semantic", "confidence", "centers", "offsets")},
        "labels": [
            {"id": label.id, "name": label.name, "thing": label.thing, "color": list(label.color)} for label in labels
        ],
        "license": "Apache-2.0",
    }
    sidecar.write_text(yaml.safe_dump(card), encoding="utf-8")
    return sidecar


def _model(labels: LabelSet):  # onnx is imported where it is needed
    from onnx import TensorProto as T
    from onnx import checker, helper

    things = [float(label.id) for label in labels.things]
    constants = {
        "zero": ([], 0.0),
        "per_class": ([], float(RED_PER_CLASS)),
        "last_class": ([], float(len(labels) - 1)),
        "full": ([], 255.0),
        "thing_ids": ([1, len(things), 1, 1], things),
    }
    indices = {"red": ([], 0), "green": ([], 1), "blue": ([], 2), "channel_axis": ([1], [1])}
    # The pixel nearest to the middle of every cell.
    indices.update(
        {"from": ([2], [1, 1]), "to": ([2], [2**31 - 1] * 2), "axes": ([2], [1, 2]), "step": ([2], [STRIDE] * 2)}
    )
    values = [helper.make_tensor(key, T.FLOAT, shape, np.atleast_1d(v)) for key, (shape, v) in constants.items()]
    values += [helper.make_tensor(key, T.INT64, shape, np.atleast_1d(v)) for key, (shape, v) in indices.items()]

    def node(kind: str, inputs: str, output: str, **attributes: object):
        return helper.make_node(kind, inputs.split(), [output], **attributes)

    nodes = [
        node("Gather", "image green", "confidence", axis=3),
        node("Gather", "image red", "red8", axis=3),
        node("Cast", "red8", "redf", to=T.FLOAT),
        node("Div", "redf per_class", "red_classes"),
        node("Floor", "red_classes", "whole"),
        node("Min", "whole last_class", "classes"),
        node("Cast", "classes", "semantic", to=T.UINT8),
        node("Gather", "image blue", "blue8", axis=3),
        node("Cast", "blue8", "bluef", to=T.FLOAT),
        node("Div", "bluef full", "heat_map"),
        node("Slice", "heat_map from to axes step", "heat_cells"),
        node("Slice", "classes from to axes step", "class_cells"),
        node("Unsqueeze", "heat_cells channel_axis", "heat"),
        node("Unsqueeze", "class_cells channel_axis", "class_of_cell"),
        node("Equal", "class_of_cell thing_ids", "is_thing"),
        node("Where", "is_thing heat zero", "heats"),
        node("MaxPool", "heats", "highest", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Equal", "heats highest", "is_peak"),
        node("Where", "is_peak heats zero", "centers"),
        node("Mul", "heat zero", "nothing"),
        node("Concat", "nothing nothing", "offsets", axis=1),
    ]
    sizes = ["N", "H", "W"]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", T.UINT8, [*sizes, 3])],
        [
            helper.make_tensor_value_info("semantic", T.UINT8, sizes),
            helper.make_tensor_value_info("confidence", T.UINT8, sizes),
            helper.make_tensor_value_info("centers", T.FLOAT, ["N", len(things), "h", "w"]),
            helper.make_tensor_value_info("offsets", T.FLOAT, ["N", 2, "h", "w"]),
        ],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model, full_check=True)
    return model
