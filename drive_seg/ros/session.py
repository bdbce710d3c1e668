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
from drive_seg.errors import DriveSegError
from drive_seg.frame import CameraImage, CompressedImage, Frame, PanopticResult, StageTimes
from drive_seg.pipeline import Pipeline
from drive_seg.ros.cameras import CameraInput
from drive_seg.ros.complaints import Complaints
from drive_seg.ros.opening import Improver, Opener, Size, fusion_options, tracking_options
from drive_seg.ros.publishers import CameraOutput
from drive_seg.stages import fresh
from drive_seg.telemetry import LatencyLog
from drive_seg.upgrade import Step, Upgrade
from drive_seg.worker import Worker

_USUAL_SIZE = (1280, 720)
_WARM_UP_FRAMES = 4
_REST_S = 10.0
"""Least time between two changes of the engine: a camera that changes its size all the time must not keep it busy."""
_NO_CAMERA = ""
"""Warm-up frames of an engine that is not serving yet: the messages of the cameras are in use by the one that is."""


class Session:
    """One configured life of the node.

    Frames come in on the executor's thread (``CameraInput``) and leave on the worker's (``publish``, ``finish``).

    Args:
        node: owns the topics.
        config: called for the current configuration; live parameters change it.
        opener: opens the pipeline.
        improver: says what would be better than the pipeline that serves.
        meanwhile: called every second until the engine is open, until it is done with its last batch, and until a
            better one that is being made has been given up.

    Raises:
        DriveSegError: the model or the engine cannot be opened; nothing is left behind.
    """

    def __init__(
        self,
        node: Node,
        config: Callable[[], Config],
        opener: Opener,
        improver: Improver,
        meanwhile: Callable[[], None],
    ) -> None:
        self._node = node
        self._config = config
        self._meanwhile = meanwhile
        self._complaints = Complaints(node.get_logger())
        self.cameras = config().cameras
        self.inputs: dict[str, CameraInput] = {}
        self.latencies: Mapping[str, LatencyLog] = {camera.name: LatencyLog() for camera in self.cameras}
        self.newest: dict[str, StageTimes] = {}
        """The times of each camera's newest frame."""
        self._improver = improver
        self._sizes: dict[str, Size] = {}
        self._improved: tuple[frozenset[Size], float] = (frozenset(), float("-inf"))
        self.outputs: dict[str, CameraOutput] = {}
        self.worker = Worker(
            lambda: self._open_warm(opener),
            [camera.name for camera in self.cameras],
            self._publish,
            self._finish,
            self._complaints.add,
            lambda: config().max_age_ms,
            self._prepare,
        )
        self.upgrade: Upgrade | None = None
        self._announced: float | None = None
        try:
            self._create_outputs()
            self.worker.start(meanwhile)
            self._start_upgrade(frozenset())
            self.announce()
        except BaseException:
            self.close()
            raise

    @property
    def pipeline(self) -> Pipeline:
        """The one that serves."""
        assert self.worker.pipeline is not None
        return self.worker.pipeline

    def announce(self) -> None:
        """Latch the class names, again where the threshold that stands beside them has changed."""
        threshold = self._config().score_threshold
        if threshold != self._announced:
            header = Header(stamp=self._node.get_clock().now().to_msg())
            for output in self.outputs.values():
                output.announce(self.pipeline.labels, threshold, header)
            self._announced = threshold

    def improve(self) -> None:
        """Look for a better pipeline once the cameras' image sizes are known or have changed; to be called now and
        then.
        """
        sizes, at = self._improved
        wanted = frozenset(self._sizes.values())
        # One at a time, and what failed once is not tried again: that may have taken minutes.
        ready = self.upgrade is None or self.upgrade.progress.done
        if wanted and wanted != sizes and ready and time.monotonic() - at >= _REST_S:
            self._improved = (wanted, time.monotonic())
            try:
                self._start_upgrade(wanted)
            except DriveSegError as error:  # the sidecar may have changed since; what serves goes on
                self._node.get_logger().warning(f"the engine stays as it is: {error}")

    def _start_upgrade(self, sizes: frozenset[Size]) -> None:
        better = self._improver(self._config(), self.pipeline, self._allocate, sizes)
        if better is None:
            return
        size = next(iter(sizes), _USUAL_SIZE)

        def make_warm(step: Step, cancelled: Callable[[], bool]) -> Pipeline:
            return self._warm(better.make(step, cancelled), [_NO_CAMERA] * len(self.cameras), size)

        self.upgrade = Upgrade(better.what, make_warm, self._hand_over)

    def _hand_over(self, pipeline: Pipeline) -> None:
        info = pipeline.engine.info
        width, height = pipeline.network_size
        self._node.get_logger().info(
            f"serving with {info.backend} {info.precision}, network {width}x{height}, on {info.device} from now on"
        )
        self.worker.replace(pipeline)

    def _open_warm(self, opener: Opener) -> Pipeline:
        pipeline = self._warm(opener(self._config(), self._allocate), [camera.name for camera in self.cameras])
        pipeline.tracking = tracking_options(self._config())  # only now: noise has no identities
        return pipeline

    @staticmethod
    def _warm(pipeline: Pipeline, cameras: Sequence[str], size: Size = _USUAL_SIZE) -> Pipeline:
        """After some frames of noise: what is slow the first time must not cost live frames."""
        try:
            width, height = size
            noise = np.random.default_rng(0).integers(0, 256, (-(-height // 16), -(-width // 16), 3), np.uint8)
            image = CameraImage.from_rgb(noise.repeat(16, axis=0).repeat(16, axis=1)[:height, :width])
            now = time.monotonic_ns()
            pipeline.warm_up([Frame(image, camera, received_ns=now) for camera in cameras], _WARM_UP_FRAMES)
        except BaseException:
            pipeline.close()
            raise
        return pipeline

    def _create_outputs(self) -> None:
        several = len(self.cameras) > 1
        for camera in self.cameras:
            suffix = f"/{camera.name}" if several else ""
            self.outputs[camera.name] = CameraOutput(
                self._node, self._config(), f"segmentation{suffix}", f"~/debug{suffix}", bool(camera.camera_info_topic)
            )

    def activate(self) -> None:
        """Accept frames and subscribe: an inactive node costs its machine nothing."""
        config = self._config()
        for output in self.outputs.values():
            output.begin()
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
        self.worker.pause(self._meanwhile)
        self.inputs = {}  # only now: what was in work has gone out with their calibrations

    def close(self) -> None:
        """Stop the worker, close the engine, destroy every topic."""
        self.deactivate()
        if self.upgrade is not None:
            self.upgrade.stop(self._meanwhile)
        self.worker.stop()
        for output in self.outputs.values():
            output.close()
        self.outputs = {}

    def _allocate(self, frame: Frame, kind: str, shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
        output = self.outputs.get(frame.camera)
        return fresh(frame, kind, shape, dtype) if output is None else output.allocate(kind, shape, dtype)

    def _prepare(self, pipeline: Pipeline) -> None:
        """Thresholds and demand may have changed; the pipeline is the worker's, so it is told on its thread."""
        confidence = any(output.confidence_wanted for output in self.outputs.values())
        lanes = any(output.lanes_wanted for output in self.outputs.values())
        pipeline.options = fusion_options(self._config(), confidence, lanes)
        pipeline.tracking = tracking_options(self._config())

    def _publish(self, result: PanopticResult) -> None:
        camera = result.frame.camera
        source = self.inputs.get(camera)
        self.outputs[camera].publish(result, source.info if source else None, self.pipeline.labels)

    def _finish(self, result: PanopticResult) -> None:
        camera, image = result.frame.camera, result.frame.image
        self.latencies[camera].add(result.times)
        if not isinstance(image, CompressedImage):  # the worker has decoded those
            self._sizes[camera] = (image.width, image.height)
        self.newest[camera] = result.times
        self.outputs[camera].finish(result)
