"""Everything that exists between configure and cleanup: the engine's worker, the topics, the counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from std_msgs.msg import Header

from drive_seg.config import Config
from drive_seg.engines import EngineOptions
from drive_seg.frame import CameraImage, Frame, PanopticResult, StageTimes
from drive_seg.pipeline import Pipeline, open_pipeline
from drive_seg.postprocess import FusionOptions
from drive_seg.ros.cameras import CameraInput
from drive_seg.ros.complaints import Complaints
from drive_seg.ros.publishers import CameraOutput
from drive_seg.stages import Allocator
from drive_seg.telemetry import LatencyLog
from drive_seg.worker import Worker

_USUAL_SIZE = (1280, 720)
_WARM_UP_FRAMES = 4

Opener = Callable[[Config, Allocator], Pipeline]
"""Opens the pipeline of a configuration; called on the worker's thread."""


def open_configured(config: Config, allocate: Allocator) -> Pipeline:
    """The pipeline that ``config`` describes, with room for one frame of every camera in a batch."""
    engine = EngineOptions(
        precision=config.precision,
        max_batch=len(config.cameras),
        gpu_id=config.gpu_id,
        cache_dir=config.cache_path,
    )
    return open_pipeline(
        config.model, config.backend, options=fusion_options(config), allocate=allocate, engine_options=engine
    )


def fusion_options(config: Config, confidence: bool = False) -> FusionOptions:
    """The thresholds of ``config``."""
    return FusionOptions(
        score_threshold=config.score_threshold,
        min_instance_area=config.min_instance_area,
        output_resolution=config.output_resolution,
        confidence=confidence,
    )


class Session:
    """One configured life of the node.

    Frames come in on the executor's thread (``CameraInput``) and leave on the worker's (``publish``, ``finish``).

    Args:
        node: owns the topics.
        config: called for the current configuration; live parameters change it.
        opener: opens the pipeline.

    Raises:
        DriveSegError: the model or the engine cannot be opened; nothing is left behind.
    """

    def __init__(self, node: Node, config: Callable[[], Config], opener: Opener) -> None:
        self._node = node
        self._config = config
        self._complaints = Complaints(node.get_logger())
        self.cameras = config().cameras
        self.inputs: dict[str, CameraInput] = {}
        self.latencies: Mapping[str, LatencyLog] = {camera.name: LatencyLog() for camera in self.cameras}
        self.newest: dict[str, StageTimes] = {}
        """The times of each camera's newest frame."""
        self.outputs: dict[str, CameraOutput] = {}
        self.worker = Worker(
            lambda: self._open_warm(opener),
            [camera.name for camera in self.cameras],
            self._publish,
            self._finish,
            self._complaints.add,
            lambda: config().max_age_ms,
        )
        try:
            self.outputs = self._create_outputs()
            self.pipeline = self.worker.start()
        except BaseException:
            self._close_outputs()
            raise
        header = Header(stamp=node.get_clock().now().to_msg())
        for output in self.outputs.values():
            output.announce(self.pipeline.labels, header)

    def _open_warm(self, opener: Opener) -> Pipeline:
        """The pipeline, after some frames of noise: what is slow the first time must not cost live frames."""
        pipeline = opener(self._config(), self._allocate)
        try:
            width, height = _USUAL_SIZE
            noise = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
            image = CameraImage.from_rgb(noise.repeat(16, axis=0).repeat(16, axis=1))
            for _ in range(_WARM_UP_FRAMES):
                for camera in self.cameras:
                    pipeline(Frame(image, camera.name, received_ns=time.monotonic_ns()))
        except BaseException:
            pipeline.close()
            raise
        return pipeline

    def _create_outputs(self) -> dict[str, CameraOutput]:
        several = len(self.cameras) > 1
        outputs = {}
        for camera in self.cameras:
            suffix = f"/{camera.name}" if several else ""
            outputs[camera.name] = CameraOutput(
                self._node, self._config(), f"segmentation{suffix}", f"~/debug{suffix}", bool(camera.camera_info_topic)
            )
        return outputs

    def activate(self) -> None:
        """Accept frames and subscribe: an inactive node costs its machine nothing."""
        config = self._config()
        self.worker.resume()
        try:
            for camera in self.cameras:
                self.inputs[camera.name] = CameraInput(self._node, camera, config, self.worker, self._complaints.add)
        except BaseException:
            self.deactivate()
            raise

    def deactivate(self) -> None:
        """Unsubscribe; returns when the worker is idle."""
        for camera in self.inputs.values():
            camera.close()
        self.inputs = {}
        self.worker.pause()

    def close(self) -> None:
        """Stop the worker, close the engine, destroy every topic."""
        self.deactivate()
        self.worker.stop()
        self._close_outputs()

    def _close_outputs(self) -> None:
        for output in self.outputs.values():
            output.close()
        self.outputs = {}

    def _allocate(self, frame: Frame, kind: str, shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
        return self.outputs[frame.camera].allocate(kind, shape, dtype)

    def _publish(self, result: PanopticResult) -> None:
        camera = result.frame.camera
        source = self.inputs.get(camera)
        self.outputs[camera].publish(result, source.info if source else None, self.pipeline.labels)

    def _finish(self, result: PanopticResult) -> None:
        camera = result.frame.camera
        self.latencies[camera].add(result.times)
        self.newest[camera] = result.times
        self.outputs[camera].finish(result)
        # Thresholds and demand may have changed; the pipeline is this thread's, so it is told here, between frames.
        confidence = any(output.confidence_wanted for output in self.outputs.values())
        self.pipeline.options = fusion_options(self._config(), confidence)
