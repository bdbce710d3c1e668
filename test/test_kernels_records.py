"""What the kernels are told and what they answer, where no kernel has to run: refusals and layouts."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from drive_seg.engines import kernels
from drive_seg.engines.kernels.layout import CHANNELS, SEGMENTS, USUAL_INSTANCES
from drive_seg.frame import Box, Instance
from drive_seg.labels import DRIVING
from drive_seg.postprocess import FusionOptions


def test_networks_that_are_too_large_are_refused() -> None:
    with pytest.raises(ValueError, match=f"at most {CHANNELS} thing classes, got {CHANNELS + 1}"):
        kernels.Sizes((640, 384), (640, 384), (160, 96), CHANNELS + 1)
    with pytest.raises(ValueError, match="less than 16777216 pixels, got 4096x4096"):
        kernels.Sizes((4096, 4096), (4096, 4096), (1024, 1024), 3)


def test_more_centres_than_there_are_segments_are_refused() -> None:
    frame = np.zeros(1, kernels.FRAME)[0]
    with pytest.raises(ValueError, match=f"below {SEGMENTS} on the GPU, got {SEGMENTS}"):
        kernels.set_options(frame, FusionOptions(max_centers=SEGMENTS))
    kernels.set_options(frame, FusionOptions(score_threshold=0.25, min_instance_area=0, max_centers=SEGMENTS - 1))
    assert (frame["score_threshold"], frame["min_area"], frame["max_centers"]) == (0.25, 1, SEGMENTS - 1)


def test_binding_an_unknown_field_is_refused() -> None:
    frame = np.zeros(1, kernels.FRAME)[0]
    with pytest.raises(KeyError, match="no field 'masc'"):
        kernels.bind(frame, [{"masc": 1}], [])


@pytest.mark.parametrize("confidence", [False, True])
def test_results_are_parts_that_do_not_overlap_and_one_copy_brings_the_usual(confidence: bool) -> None:
    width, height = 61, 37
    layout = kernels.results(width, height, confidence)
    sizes = {"mask": width * height, "panoptic": 2 * width * height, "header": kernels.HEADER.itemsize}
    sizes["instances"] = SEGMENTS * kernels.INSTANCE.itemsize
    if confidence:
        sizes["out_confidence"] = width * height
    assert set(layout.offsets) == set(sizes)
    end = 0
    for name, offset in sorted(layout.offsets.items(), key=lambda part: part[1]):
        assert offset >= end and offset % 256 == 0
        end = offset + sizes[name]
    assert end <= layout.nbytes
    assert layout.usual_bytes == layout.offsets["instances"] + USUAL_INSTANCES * kernels.INSTANCE.itemsize


def test_results_are_read_and_a_block_that_is_too_short_is_refused() -> None:
    layout = kernels.results(4, 2, False)
    block = np.zeros(layout.nbytes, np.uint8)
    block[:8] = range(8)
    block[layout.offsets["panoptic"] :][:16].view(np.uint16)[:] = range(1000, 1008)
    records = block[layout.offsets["instances"] :].view(kernels.INSTANCE)
    records[0] = (3001, 6, 1, 0, 3, 2, 0.5, 24, 28, 6, 3)
    header = block[layout.offsets["header"] :][: kernels.HEADER.itemsize].view(kernels.HEADER)
    header["instances"] = 1
    outcome = kernels.read(block[: layout.usual_bytes], layout, 4, 2, DRIVING)
    assert outcome.mask.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert outcome.panoptic.tolist() == [[1000, 1001, 1002, 1003], [1004, 1005, 1006, 1007]]
    assert outcome.confidence is None
    (one,) = outcome.instances
    assert one == Instance(3001, 3, "vehicle", 0.5, Box(1, 0, 3, 2), 6, core=one.core)
    assert one.core is not None and astuple(one.core) == pytest.approx((1, 0, 3, 2))

    header["instances"] = USUAL_INSTANCES + 1
    assert kernels.needed_bytes(block, layout) == layout.usual_bytes + kernels.INSTANCE.itemsize
    with pytest.raises(ValueError, match="257 instances take"):
        kernels.read(block[: layout.usual_bytes], layout, 4, 2, DRIVING)
