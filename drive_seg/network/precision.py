"""The same graph in 8 bits: the precision lies in the file, as TensorRT 11 wants it, not in a builder's flag.

Explicit Q/DQ pairs around convolutions, symmetric, weights per channel, scales from calibration images. What is
sensitive stays in float (``IN_FLOAT``).
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from drive_seg.errors import ModelError
from drive_seg.frame import CameraImage
from drive_seg.network.deploy import INPUT_NAME
from drive_seg.network.samples import read_rgb
from drive_seg.offline.images import is_image
from drive_seg.preprocess import Preprocessor
from drive_seg.sim import Simulator

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
SIMULATOR = "sim"
"""Stands for the built-in simulator where a folder of images could be."""
_FIRST_SEED, _RENDERED_SIZE = 50_000, (1280, 720)
HEADS = ("semantic", "centers", "offsets")
IN_FLOAT = (
    *HEADS,
    "fine",
    "encoder/stem",
    "encoder/stages.0/stages.0.0/body/body.0",
    "encoder/stages.6/stages.6.0/body/body.1",
    "encoder/stages.6/stages.6.0/body/body.2",
)
"""Modules of the network whose convolutions stay in float: the heads, the first layers, whose few channels have very
different ranges, and the last depthwise convolution with what mixes its channels.

Measured on the CamVid sequence and twice 60 drives: mean IoU .862 in float, .862 so; PQ .707 and .708. In 8 bits too,
the first layers alone cost PQ .03, the last depthwise convolution .01, what mixes its channels some labels."""
_PERCENTILE = 99.99
"""Share of the values that a scale covers: .9955 of the labels are those of float. With the mean of the images'
extremes it would be .9937."""
_MOST_IMAGES = 24
"""For calibration."""


def write_int8(
    source: Path, target: Path, images: Sequence[NDArray[np.uint8]], progress: Callable[[int], None] = lambda done: None
) -> None:
    """Write ``source`` (fp32 ONNX) with Q/DQ pairs, calibrated on ``images``, each uint8 (H, W, 3) RGB, network size.

    Args:
        progress: told how many of the images are in.

    Raises:
        ModelError: no convolution of a head was found by its name.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        wanted = tuple(f"/net/{module}/" for module in IN_FLOAT)
        nodes = onnx.load(str(prepared)).graph.node
        kept = [node.name for node in nodes if node.op_type == "Conv" and node.name.startswith(wanted)]
        if not any(name.startswith(f"/net/{HEADS[0]}/") for name in kept):
            raise ModelError(
                f"{source} has no convolution named after {', '.join(HEADS)}: it is not one of our exports"
            )
        with redirect_stdout(io.StringIO()):  # it prints a line per image
            quantize_static(
                str(prepared),
                str(target),
                _Images(images, progress),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=kept,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.Percentile,
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "CalibPercentile": _PERCENTILE,
                    "CalibStridedMinMax": 1,  # an image at a time: the outputs of all layers for all are 9 GB
                },
            )
    onnx.checker.check_model(str(target))


def calibration_images(sources: Sequence[str | Path], size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """A few images of each source, evenly chosen, letterboxed to ``size`` (W, H) as in inference.

    Args:
        sources: folders of images; ``sim`` is the simulator.

    Raises:
        ModelError: a folder has none.
    """
    preprocess = Preprocessor(size)
    slot = np.zeros((size[1], size[0], 3), np.uint8)
    share = -(-_MOST_IMAGES // max(1, len(sources)))
    for source in sources:
        for image in _rendered(share) if str(source) == SIMULATOR else _of_folder(Path(source), share):
            preprocess(CameraImage.from_rgb(image), slot)
            yield slot.copy()


def _rendered(count: int) -> Iterator[NDArray[np.uint8]]:
    for seed in range(_FIRST_SEED, _FIRST_SEED + count):
        yield Simulator(seed, *_RENDERED_SIZE).frame(40).image


def _of_folder(folder: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    paths = sorted(path for path in folder.iterdir() if is_image(path, IMAGE_SUFFIXES)) if folder.is_dir() else []
    if not paths:
        raise ModelError(f"no calibration image ({', '.join(IMAGE_SUFFIXES)}) in {folder}")
    for number in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int):
        image = read_rgb(paths[number])
        if image is not None:
            yield image


class _Images(CalibrationDataReader):  # type: ignore[misc] # onnxruntime is untyped
    """Hands out images; a range at a time where that is asked for."""

    def __init__(self, images: Sequence[NDArray[np.uint8]], progress: Callable[[int], None]) -> None:
        self._images = images
        self._progress = progress
        self._given = 0
        self.set_range(0, len(images))

    def __len__(self) -> int:
        return len(self._images)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next = iter(self._images[start_index:end_index])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        self._progress(self._given)  # what was given before is in
        image = next(self._next, None)
        if image is None:
            return None
        self._given += 1
        return {INPUT_NAME: image[None]}
