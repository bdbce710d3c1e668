"""A trained checkpoint becomes an ONNX file and its sidecar."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from drive_seg.errors import ModelError
from drive_seg.labels import DRIVING, LabelSet
from drive_seg.network.adjustment import LogitAdjustment
from drive_seg.network.checkpoint import load_checkpoint
from drive_seg.network.deploy import DEFAULT_SIZE, INPUT_NAME, OUTPUT_NAMES, DeployedNet
from drive_seg.network.lite import same_padding
from drive_seg.network.panoptic import PanopticNet
from drive_seg.network.precision import calibration_images, write_int8
from drive_seg.network.sidecar import write_sidecar

OPSET = 17

ExportProgress = Callable[[str, int, int], None]
"""``progress(phase, done, total)``; ``total`` is 0 where it is not known."""


def _silent(phase: str, done: int, total: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class ModelCard:
    """What a user must know about the weights, beside what can be read off the graph."""

    training_data: str = "none: random weights, for tests of speed and plumbing only"
    license: str = "Apache-2.0"
    metrics: dict[str, Any] = field(default_factory=dict)
    logit_adjustment: dict[str, dict[str, float]] = field(default_factory=dict)


def export_onnx(
    checkpoint: Path,
    out_dir: Path,
    name: str,
    card: ModelCard | None = None,
    size: tuple[int, int] = DEFAULT_SIZE,
    precisions: Sequence[str] = ("fp32",),
    calibration: Sequence[str | Path] = (),
    adjustment: LogitAdjustment | None = None,
    progress: ExportProgress = _silent,
) -> Path:
    """Write ``out_dir/name.onnx`` (opset 17, dynamic N, H, W) and its sidecar ``out_dir/name.yaml``.

    The other precisions go beside it as ``name.fp16.onnx`` and ``name.int8.onnx``.

    Args:
        checkpoint: file written by ``drive_seg.network.train``; its averaged weights are exported.
        card: the sidecar's statements. None takes those of the checkpoint; figures are added by
            ``drive_seg.network.validate --write``.
        size: width and height the sidecar proposes.
        precisions: ``fp32`` (always written), ``fp16``, ``int8``.
        calibration: what the scales of int8 are taken from: folders of images, or ``sim`` for the simulator.
        adjustment: logits to add to the heads; the sidecar states them.
        progress: told what is being done, and how far it is.

    Returns:
        Path of the sidecar.

    Raises:
        ModelError: the checkpoint is missing or is not one of ours, int8 has no images, or ``out_dir`` cannot be
            written.
    """
    if not checkpoint.is_file():
        raise ModelError(f"checkpoint {checkpoint} does not exist; train one with: drive_seg train")
    found = load_checkpoint(checkpoint)
    net = PanopticNet(found.network)
    net.load_state_dict(found.average)
    sidecar = out_dir / f"{name}.yaml"
    card = card or ModelCard(found.terms.training_data, found.terms.license)
    if adjustment is not None:
        adjustment.add_to(net)
        card = replace(card, logit_adjustment=adjustment.document())
    return write_model(net, sidecar, card, DRIVING, size, precisions, calibration, progress)


def write_model(
    net: PanopticNet,
    sidecar: Path,
    card: ModelCard,
    labels: LabelSet,
    size: tuple[int, int],
    precisions: Sequence[str] = ("fp32",),
    calibration: Sequence[str | Path] = (),
    progress: ExportProgress = _silent,
) -> Path:
    """Write the ONNX files beside ``sidecar`` and the sidecar itself; return the sidecar's path."""
    things = tuple(label.id for label in labels.things)
    if net.config.classes != len(labels) or tuple(net.config.things) != things:
        raise ModelError(
            f"the network has {net.config.classes} classes with things {net.config.things}, "
            f"the label set {len(labels)} with things {things}"
        )
    # Before anything is written: a mistake in the folders must not cost the model that had this name.
    images = _calibration(calibration, size, progress) if "int8" in precisions else []
    graphs = {"fp32": sidecar.with_suffix(".onnx")}
    try:
        sidecar.parent.mkdir(parents=True, exist_ok=True)
        progress("fp32", 0, 0)
        write_graph(net, graphs["fp32"], size)
        if "fp16" in precisions:
            graphs["fp16"] = sidecar.with_suffix(".fp16.onnx")
            progress("fp16", 0, 0)
            write_graph(net, graphs["fp16"], size, half=True)
        if "int8" in precisions:
            graphs["int8"] = sidecar.with_suffix(".int8.onnx")
            write_int8(graphs["fp32"], graphs["int8"], images, lambda done: progress("int8", done, len(images)))
        write_sidecar(sidecar, _document(sidecar.stem, graphs, card, labels, size))
    except OSError as error:
        raise ModelError(f"cannot write the model to {sidecar.parent}: {error}") from error
    return sidecar


def _calibration(
    sources: Sequence[str | Path], size: tuple[int, int], progress: ExportProgress
) -> list[NDArray[np.uint8]]:
    if not sources:
        raise ModelError("int8 needs calibration images; give a folder of them with --calibration, or sim")
    images = []
    for image in calibration_images(sources, size):
        images.append(image)
        progress("calibration images", len(images), 0)
    if not images:
        raise ModelError(f"int8 needs calibration images; none in {', '.join(map(str, sources))} can be read")
    return images


def write_graph(net: PanopticNet, path: Path, size: tuple[int, int], half: bool = False) -> None:
    """Trace the deployed network, batch norms folded into the convolutions, and check the file.

    Args:
        half: float16 tensors inside; inputs and outputs keep their types, so that the files are interchangeable.
    """
    width, height = size
    example = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    axes = {name: {0: "n", 1: "height", 2: "width"} for name in (INPUT_NAME, "semantic", "confidence")}
    axes |= {name: {0: "n", 2: "height_4", 3: "width_4"} for name in ("centers", "offsets")}
    with warnings.catch_warnings():
        # The TorchScript exporter is deprecated, but writes the cleaner graph: folded, few shape operators.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message="The shape inference of")
        warnings.filterwarnings("ignore", message="Constant folding")
        torch.onnx.export(
            DeployedNet(copy.deepcopy(net), half).eval(),
            (example,),
            str(path),
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=list(OUTPUT_NAMES),
            dynamic_axes=axes,
            dynamo=False,
        )
    model = onnx.load(str(path))
    _fold_padding(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _fold_padding(model: Any) -> None:
    """Put each Pad before a convolution of stride 2 into that convolution.

    torch has no convolution that pads more at one side than at the other. ONNX has, and engines run it in one step.
    Only ``lite``'s padding occurs in our graphs, so the amounts follow from the kernel.
    """
    graph = model.graph
    padded = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Pad"}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[0] in padded:
            attributes = {attribute.name: attribute for attribute in node.attribute}
            before, after = same_padding(attributes["kernel_shape"].ints[0])
            node.input[0] = padded[node.input[0]]
            node.attribute.remove(attributes["pads"])
            node.attribute.append(onnx.helper.make_attribute("pads", [before, before, after, after]))
    _drop_unused(graph)


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


def _document(
    name: str, graphs: Mapping[str, Path], card: ModelCard, labels: LabelSet, size: tuple[int, int]
) -> dict[str, Any]:
    return {
        "name": name,
        "task": "panoptic",
        "onnx": {
            precision: {"path": graph.name, "sha256": hashlib.sha256(graph.read_bytes()).hexdigest()}
            for precision, graph in graphs.items()
        },
        "input": {
            "name": INPUT_NAME,
            "width": size[0],
            "height": size[1],
            "layout": "NHWC",
            "dtype": "uint8",
            "color": "rgb",
        },
        "outputs": {name: name for name in OUTPUT_NAMES},
        "labels": [
            {"id": label.id, "name": label.name, "thing": label.thing, "color": list(label.color)} for label in labels
        ],
        **({"logit_adjustment": card.logit_adjustment} if card.logit_adjustment else {}),
        "metrics": card.metrics,
        "training_data": card.training_data,
        "license": card.license,
    }
