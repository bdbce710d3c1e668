"""How long one frame takes from host to host: the same measure for every column of the table."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from drive_seg.frame import CameraImage, Frame
from drive_seg.pipeline import Pipeline
from drive_seg.telemetry import Percentiles

WARM_UP = 30


def host_to_host(pipeline: Pipeline, images: Sequence[CameraImage], count: int, warm_up: int = WARM_UP) -> Percentiles:
    """Milliseconds from camera pixels to native maps, one frame at a time."""
    taken = np.zeros(count)
    for number in range(-warm_up, count):
        frame = Frame(images[number % len(images)])
        start = time.perf_counter_ns()
        pipeline(frame)
        if number >= 0:
            taken[number] = (time.perf_counter_ns() - start) / 1e6
    found = Percentiles.of(taken)
    if found is None:
        raise ValueError(f"count must be at least 1, got {count}")
    return found
