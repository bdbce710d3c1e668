"""The benchmark measures what it says, checked with engines whose time is known."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from recordings import HEIGHT, WIDTH, picture

from drive_seg.benchmark import ReusedBuffers, benchmark, rss_mb
from drive_seg.engines import FunctionEngine
from drive_seg.frame import CameraImage, Frame, RawOutputs
from drive_seg.labels import DRIVING
from drive_seg.pipeline import Pipeline

SECONDS = 0.02


def slow(batch: np.ndarray) -> RawOutputs:
    time.sleep(SECONDS)
    maps = np.zeros(batch.shape[:3], np.uint8)
    cells = (batch.shape[1] // 4, batch.shape[2] // 4)
    centers, offsets = (np.zeros((len(batch), c, *cells), np.float32) for c in (3, 2))
    return RawOutputs(maps, maps + 255, centers, offsets)


def test_bare_and_pipeline_take_turns_on_the_same_pixels() -> None:
    seen: list[bytes] = []

    def recording(batch: np.ndarray) -> RawOutputs:
        seen.append(batch.tobytes())
        return slow(batch)

    images = [CameraImage.from_rgb(picture(number)) for number in range(3)]
    told: list[int] = []
    with Pipeline(FunctionEngine(recording, (WIDTH, HEIGHT)), DRIVING, allocate=ReusedBuffers()) as pipeline:
        result = benchmark(pipeline, images, 5, warm_up=2, progress=told.append)
    assert told == [1, 2, 3, 4, 5]
    assert len(seen) == 2 * (5 + 2)
    assert seen[0::2] == seen[1::2]
    assert seen[4] == images[0].data.tobytes() and seen[6] == images[1].data.tobytes()
    # Sleeping is never shorter than asked for; how much longer is up to the machine.
    for percentiles in (result.bare, result.pipeline, result.stages["inference"]):
        assert percentiles.p50 >= SECONDS * 1e3
    assert result.fps <= 1 / SECONDS
    assert result.ratio == result.pipeline.p50 / result.bare.p50


def test_buffers_are_reused_per_map_and_size() -> None:
    allocate, frame = ReusedBuffers(), Frame(CameraImage.from_rgb(picture(0)))
    first = allocate(frame, "mask", (4, 6), np.uint8)
    assert allocate(frame, "mask", (4, 6), np.uint8) is first
    assert allocate(frame, "panoptic", (4, 6), np.uint16) is not first
    assert allocate(frame, "mask", (8, 6), np.uint8).shape == (8, 6)


def test_resident_memory_sees_what_is_really_used() -> None:
    before = rss_mb()
    if before is None:
        pytest.skip("no /proc on this system")
    held = np.ones(64 << 20, np.uint8)
    after = rss_mb()
    assert after is not None and 60 < after - before < 80
    assert held.size


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="no /proc on this system")
def test_the_pipeline_does_not_grow() -> None:
    def instant(batch: np.ndarray) -> RawOutputs:
        maps = np.full(batch.shape[:3], 3, np.uint8)
        cells = (batch.shape[1] // 4, batch.shape[2] // 4)
        centers, offsets = (np.full((len(batch), c, *cells), 0.5, np.float32) for c in (3, 2))
        return RawOutputs(maps, maps, centers, offsets)

    images = [CameraImage.from_rgb(picture(number)) for number in range(4)]
    with Pipeline(FunctionEngine(instant, (WIDTH, HEIGHT)), DRIVING) as pipeline:
        result = benchmark(pipeline, images, 300, warm_up=30)
    # 300 results of 180 KB each would be 53 MB if they were kept.
    assert result.rss_growth_mb is not None and result.rss_growth_mb < 20
