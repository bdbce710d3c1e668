"""Everything that exists between configure and cleanup: the engine's worker, the topics, the counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from std_msgs.msg import Header

from drive_seg.config import Config
from drive_seg.engines import EngineInfo, EngineOptions, availability
from drive_seg.frame import CameraImage, Frame, PanopticResult, StageTimes
from drive_seg.model import load_model
from drive_seg.pipeline import Pipeline, open_pipeline
from drive_seg.postprocess import FusionOptions
from drive_seg.resources import find_model
from drive_seg.ros.cameras import CameraInput
from drive_seg.ros.complaints import Complaints
from drive_seg.ros.publishers import CameraOutput
from drive_seg.stages import Allocator, fresh
from drive_seg.telemetry import LatencyLog
from drive_seg.tracking import TrackingOptions
from drive_seg.upgrade import Make, Step, Upgrade
from drive_seg.worker import Worker

_USUAL_SIZE = (1280, 720)
_WARM_UP_FRAMES = 4
_NO_CAMERA = ""
"""Warm-up frames of an engine that is not serving yet: the messages of the cameras are in use by the one that is."""

Opener = Callable[[Config, Allocator], Pipeline]
"""Opens the pipeline of a configuration; called on the worker's thread."""
Improver = Callable[[Config, EngineInfo, Allocator], Make | None]
"""What makes a better pipeline than the one that was opened; None where that is the best."""


def open_configured(config: Config, allocate: Allocator, backend: str = "") -> Pipeline:
    """The pipeline that ``config`` describes, with room for one frame of every camera in a batch.

    Args:
        backend: instead of the one of ``config``.
    """
    return open_pipeline(
        config.model,
        backend or config.backend,
        options=fusion_options(config),
        allocate=allocate,
        engine_options=engine_options(config),
    )


def engine_options(config: Config) -> EngineOptions:
    """How ``config`` wants its engine."""
    return EngineOptions(
        precision=config.precision,
        max_batch=len(config.cameras),
        gpu_id=config.gpu_id,
        cache_dir=config.cache_path,
    )


def build_tensorrt(config: Config, info: EngineInfo, allocate: Allocator) -> Make | None:
    """TensorRT where ``auto`` could have it but its engine has to be built first: that takes minutes."""
    if config.backend != "auto" or info.backend == "tensorrt" or not availability(config.gpu_id)[0].available:
        return None
    model = load_model(find_model(config.model))
    if model.decoder is not None:
        return None

    def make(step: Step, cancelled: Callable[[], bool]) -> Pipeline:
        from drive_seg.engines.planned import plan_for

        plan_for(model, engine_options(config), step, cancelled)
        return open_configured(config, allocate, "tensorrt")

    return make


def fusion_options(config: Config, confidence: bool = False, lanes: bool = False) -> FusionOptions:
    """The thresholds of ``config``, and what is wanted beside the maps."""
    return FusionOptions(
        score_threshold=config.score_threshold,
        min_instance_area=config.min_instance_area,
        output_resolution=config.output_resolution,
        confidence=confidence,
        lanes=lanes,
    )


def tracking_options(config: Config) -> TrackingOptions | None:
    """How ``config`` follows instances, if at all."""
    return TrackingOptions(config.track_max_age_s) if config.tracking else None


class Session:
    """One configured life of the node.

    Frames come in on the executor's thread (``CameraInput``) and leave on the worker's (``publish``, ``finish``).

    Args:
        node: owns the topics.
        config: called for the current configuration; live parameters change it.
        opener: opens the pipeline.
        improver: see ``Improver``.

    Raises:
        DriveSegError: the model or the engine cannot be opened; nothing is left behind.
    """

    def __init__(
        self, node: Node, config: Callable[[], Config], opener: Opener, improver: Improver = build_tensorrt
    ) -> None:
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
            self.worker.start()
        except BaseException:
            self._close_outputs()
            raise
        self.upgrade = self._start_upgrade(improver)
        header = Header(stamp=node.get_clock().now().to_msg())
        for output in self.outputs.values():
            output.announce(self.pipeline.labels, header)

    @property
    def pipeline(self) -> Pipeline:
        """The one that serves."""
        assert self.worker.pipeline is not None
        return self.worker.pipeline

    def _start_upgrade(self, improver: Improver) -> Upgrade | None:
        make = improver(self._config(), self.pipeline.engine.info, self._allocate)
        if make is None:
            return None
        better: Make = make

        def make_warm(step: Step, cancelled: Callable[[], bool]) -> Pipeline:
            return self._warm(better(step, cancelled), [_NO_CAMERA] * len(self.cameras))

        def hand_over(pipeline: Pipeline) -> None:
            info = pipeline.engine.info
            self._node.get_logger().info(f"serving with {info.backend} {info.precision} on {info.device} from now on")
            self.worker.replace(pipeline)

        return Upgrade("building the tensorrt engine", make_warm, hand_over)

    def _open_warm(self, opener: Opener) -> Pipeline:
        pipeline = self._warm(opener(self._config(), self._allocate), [camera.name for camera in self.cameras])
        pipeline.tracking = tracking_options(self._config())  # only now: noise has no identities
        return pipeline

    @staticmethod
    def _warm(pipeline: Pipeline, cameras: Sequence[str]) -> Pipeline:
        """After some frames of noise: what is slow the first time must not cost live frames."""
        try:
            width, height = _USUAL_SIZE
            noise = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
            image = CameraImage.from_rgb(noise.repeat(16, axis=0).repeat(16, axis=1))
            for _ in range(_WARM_UP_FRAMES):
                for camera in cameras:
                    pipeline(Frame(image, camera, received_ns=time.monotonic_ns()))
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
        if self.upgrade is not None:
            self.upgrade.stop()
        self.worker.stop()
        self._close_outputs()

    def _close_outputs(self) -> None:
        for output in self.outputs.values():
            output.close()
        self.outputs = {}

    def _allocate(self, frame: Frame, kind: str, shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
        output = self.outputs.get(frame.camera)
        return fresh(frame, kind, shape, dtype) if output is None else output.allocate(kind, shape, dtype)

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
        lanes = any(output.lanes_wanted for output in self.outputs.values())
        self.pipeline.options = fusion_options(self._config(), confidence, lanes)
        self.pipeline.tracking = tracking_options(self._config())
