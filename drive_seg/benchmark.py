"""The latency of this machine: the whole pipeline beside the bare network, frame by frame in turn.

Taking turns means that whatever else the machine does hits both alike, so their ratio holds on a noisy machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.frame import CameraImage, Frame
from drive_seg.pipeline import Pipeline
from drive_seg.preprocess import Preprocessor
from drive_seg.telemetry import LatencyLog, Percentiles, Stopwatch

WARM_UP = 50
"""Frames before measuring: buffers are made, caches filled, the clock of the processor up."""


@dataclass(frozen=True)
class BenchmarkResult:
    """What was measured.

    Attributes:
        input, network: (width, height) of the camera image and of the network.
        bare: ms of ``submit`` and ``wait`` of the engine on pixels that are already letterboxed.
        pipeline: ms from the camera's pixels to native maps and instances.
        fps: frames per second of the pipeline alone, one after the other.
        stages: percentiles of the pipeline's stages.
        rss_growth_mb: growth of the resident memory over the measured frames, MiB; None where the system has no /proc.
    """

    backend: str
    precision: str
    frames: int
    input: tuple[int, int]
    network: tuple[int, int]
    bare: Percentiles
    pipeline: Percentiles
    fps: float
    stages: dict[str, Percentiles]
    rss_growth_mb: float | None

    @property
    def ratio(self) -> float:
        """Median of the pipeline over median of the bare engine."""
        return self.pipeline.p50 / self.bare.p50

    def as_dict(self) -> dict[str, Any]:
        """What ``drive_seg benchmark --json`` prints."""
        return {
            "backend": self.backend,
            "precision": self.precision,
            "frames": self.frames,
            "input": list(self.input),
            "network": list(self.network),
            "bare_ms": {"p50": round(self.bare.p50, 3), "p99": round(self.bare.p99, 3)},
            "pipeline_ms": {"p50": round(self.pipeline.p50, 3), "p99": round(self.pipeline.p99, 3)},
            "ratio": round(self.ratio, 4),
            "fps": round(self.fps, 2),
            "stages_ms": {stage: value.as_dict() for stage, value in self.stages.items()},
            "rss_growth_mb": None if self.rss_growth_mb is None else round(self.rss_growth_mb, 2),
        }


class ReusedBuffers:
    """An allocator that hands out the same arrays for every frame, as a publisher does."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, tuple[int, int]], NDArray[Any]] = {}

    def __call__(self, frame: Frame, name: str, shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
        """The array for this map and shape, made at its first use."""
        array = self._arrays.get((name, shape))
        if array is None:
            array = self._arrays[name, shape] = np.zeros(shape, dtype)
        return array


def benchmark(
    pipeline: Pipeline,
    images: Sequence[CameraImage],
    frames: int,
    warm_up: int = WARM_UP,
    progress: Callable[[int], None] = lambda done: None,
) -> BenchmarkResult:
    """Run the bare engine and the pipeline in turn on ``frames`` frames, going round the images.

    Args:
        images: decoded images of one size.
        progress: called with the number of measured frames.
    """
    slot = pipeline.engine.slots[0]
    inputs = _letterboxed(pipeline, images)
    log = LatencyLog(float("inf"), frames)
    bare_ms, pipeline_ms = np.zeros(frames), np.zeros(frames)
    before = rss_mb()
    for number in range(-warm_up, frames):
        image = images[number % len(images)]
        np.copyto(slot.input[0], inputs[number % len(images)])
        watch = Stopwatch()
        slot.submit(1)
        slot.wait()
        bare = watch.lap()
        result = pipeline(Frame(image))
        whole = watch.lap()
        if number < 0:
            before = rss_mb()
            continue
        bare_ms[number], pipeline_ms[number] = bare, whole
        log.add(result.times)
        progress(number + 1)
    after = rss_mb()
    bare_percentiles, pipeline_percentiles = Percentiles.of(bare_ms), Percentiles.of(pipeline_ms)
    if bare_percentiles is None or pipeline_percentiles is None:
        raise ValueError(f"frames must be at least 1, got {frames}")
    info = pipeline.engine.info
    return BenchmarkResult(
        backend=info.backend,
        precision=info.precision,
        frames=frames,
        input=(images[0].width, images[0].height),
        network=pipeline.network_size,
        bare=bare_percentiles,
        pipeline=pipeline_percentiles,
        fps=1e3 * frames / float(pipeline_ms.sum()),
        stages=log.percentiles(),
        rss_growth_mb=None if before is None or after is None else after - before,
    )


def _letterboxed(pipeline: Pipeline, images: Sequence[CameraImage]) -> list[NDArray[np.uint8]]:
    preprocess = Preprocessor(pipeline.network_size)
    inputs = []
    for image in images:
        out = np.zeros((pipeline.network_size[1], pipeline.network_size[0], 3), np.uint8)
        preprocess(image, out)
        inputs.append(out)
    return inputs


def rss_mb() -> float | None:
    """Resident memory of this process in MiB; None where the system has no /proc."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return None
    pages = int(statm.read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
