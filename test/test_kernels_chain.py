"""The whole chain of kernels, run on the CPU around the shipped network on a real engine, against the Pipeline."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
from cuda_on_cpu import Order
from kernel_slot import Slot, no_outputs
from numpy.typing import NDArray

from drive_seg import open_pipeline
from drive_seg.decode import decode_rgb
from drive_seg.engines import kernels
from drive_seg.frame import CameraImage, Frame, PanopticResult
from drive_seg.overlay import draw_overlay
from drive_seg.pipeline import Pipeline
from drive_seg.postprocess import FusionOptions
from drive_seg.sim import Simulator


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    with open_pipeline(options=FusionOptions(confidence=True)) as opened:
        yield opened


def through_the_kernels(
    pipeline: Pipeline, image: CameraImage, order: Order
) -> tuple[kernels.Outcome, NDArray[np.uint8]]:
    """``LETTERBOX``, the network, ``FUSION`` and ``OVERLAY``, as a GPU would be told."""
    engine_slot = pipeline.engine.slots[0]
    width, height = pipeline.network_size
    known = kernels.Sizes((width, height), (width, height), (width // 4, height // 4), len(pipeline.labels.things))
    slot = Slot(known, pipeline.labels)
    (before,) = slot.run([image], no_outputs(1, known), pipeline.options, order, (kernels.LETTERBOX,))
    engine_slot.input[0] = before.input
    engine_slot.submit(1)
    raw = engine_slot.wait()
    assert kernels.Sizes.of((width, height), raw) == known
    (after,) = slot.run([image], raw, pipeline.options, order, (*kernels.FUSION, kernels.OVERLAY))
    return after.outcome, after.overlay


def check(pipeline: Pipeline, image: CameraImage, seed: int) -> PanopticResult:
    result = pipeline(Frame(image))
    outcome, overlay = through_the_kernels(pipeline, image, Order(seed, 2, 20))
    assert outcome.flags == 0
    assert outcome.confidence is not None
    assert result.confidence is not None
    np.testing.assert_array_equal(outcome.mask, result.mask)
    np.testing.assert_array_equal(outcome.panoptic, result.panoptic)
    np.testing.assert_array_equal(outcome.confidence, result.confidence)
    assert outcome.instances == result.instances
    with mock.patch("drive_seg.overlay._name_instances"):
        drawn = draw_overlay(decode_rgb(image), result, pipeline.labels)
    assert np.abs(overlay.astype(int) - drawn).max() <= 1
    return result


def as_nv12(rgb: NDArray[np.uint8]) -> CameraImage:
    height, width = rgb.shape[:2]
    planes = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
    pairs = np.stack(
        [half.reshape(-1) for half in (planes[height : height * 5 // 4], planes[height * 5 // 4 :])], axis=1
    )
    data = np.concatenate([planes[:height].reshape(-1), pairs.reshape(-1)])
    return CameraImage("nv12", width, height, width, np.asarray(data, np.uint8))


def test_simulator_frames(pipeline: Pipeline) -> None:
    simulator = Simulator(seed=3)
    frames = [simulator.frame(index).image for index in (0, 60)]
    images = [CameraImage.from_rgb(frames[0]), as_nv12(frames[1])]
    results = [check(pipeline, image, seed) for seed, image in enumerate(images, start=1)]
    found = {instance.class_name for result in results for instance in result.instances}
    assert found, "the network found no thing in any frame, so nothing was tried"


@pytest.mark.skipif("DRIVE_SEG_DATA" not in os.environ, reason="DRIVE_SEG_DATA names no folder with real images")
def test_real_frames(pipeline: Pipeline) -> None:
    files = sorted(path for path in Path(os.environ["DRIVE_SEG_DATA"]).rglob("*.jpg") if path.is_file())
    pictures = [cv2.imread(str(path)) for path in files[:: max(1, len(files) // 6)]]
    for seed, picture in enumerate(pictures, start=1):
        if picture is not None:
            check(pipeline, CameraImage.from_bgr(np.asarray(picture, np.uint8)), seed)
