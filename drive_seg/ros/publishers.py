"""The way out: everything published about one camera's frames, on the worker's thread."""

from __future__ import annotations

import array
import time
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Float64, Header
from vision_msgs.msg import Detection2DArray, LabelInfo

from drive_seg.config import Config
from drive_seg.decode import decode_rgb
from drive_seg.errors import EngineError
from drive_seg.frame import CameraImage, PanopticResult, StageTimes
from drive_seg.labels import LabelSet
from drive_seg.overlay import draw_overlay
from drive_seg.ros.calibration import camera_info_for
from drive_seg.ros.convert import ENCODING_OF, ImageBuffer, detections, label_info
from drive_seg.ros.creation import creating
from drive_seg.ros.lanes import lane_cloud
from drive_seg.ros.qos import LATCHED, overrides, profile
from drive_seg.telemetry import STAGES

_JPEG_QUALITY = 85
_SMOOTHING = 0.1
"""Weight of the newest cycle in the frame rate that the overlay shows."""


class CameraOutput:
    """The topics of one camera: ``<prefix>/mask``, ... and ``~/debug/...``.

    Every message carries the header object of the frame's own message, so stamps and frame ids are equal by
    construction. Whatever nobody subscribes to is not serialised, and the optional maps are not even computed.

    Args:
        prefix: relative topic prefix, ``segmentation`` or ``segmentation/<camera>``.
        debug_prefix: ``~/debug`` or ``~/debug/<camera>``.
        with_camera_info: whether the camera has a calibration to republish.
    """

    def __init__(self, node: Node, config: Config, prefix: str, debug_prefix: str, with_camera_info: bool) -> None:
        self._node = node
        self._config = config
        self._prefix = prefix
        self._debug_prefix = debug_prefix
        self._publishers: list[Publisher] = []
        self._buffers = {kind: ImageBuffer(encoding) for kind, encoding in ENCODING_OF.items()}
        try:
            self._create_all(with_camera_info)
        except BaseException:
            self.close()
            raise
        self.begin()

    def begin(self) -> None:
        """Before the first frame, also after a pause: the time since the last one before it is no cycle."""
        self._previous: float | None = None
        self._cycle_s: float | None = None
        self._last_times = StageTimes()

    def _create_all(self, with_camera_info: bool) -> None:
        self._images = {kind: self._create(Image, kind) for kind in ENCODING_OF}
        self._instances = self._create(Detection2DArray, "instances")
        self._lanes = self._create(PointCloud2, "lanes")
        self._jpeg = self._create(CompressedImage, "overlay/compressed")
        self._camera_info = self._create(CameraInfo, "camera_info") if with_camera_info else None
        self._latency = self._create(DiagnosticArray, "latency")
        self._label_info = self._create(LabelInfo, "label_info", qos=LATCHED)
        self._debug = {
            name: self._create(Float64, name, self._debug_prefix)
            for name in ("processing_time_ms", "pipeline_latency_ms", "cyclic_time_ms")
        }

    def _create(self, kind: Any, name: str, prefix: str | None = None, qos: QoSProfile | None = None) -> Publisher:
        topic = f"{prefix or self._prefix}/{name}"
        options = None if qos else overrides(self._node, topic, "publisher")
        qos = qos or profile(self._config.output_qos, self._config.output_qos_depth)
        with creating(f"a publisher of {self._node.resolve_topic_name(topic)}"):
            publisher = self._node.create_publisher(kind, topic, qos, qos_overriding_options=options)
        self._publishers.append(publisher)
        return publisher

    def close(self) -> None:
        """Destroy the publishers. Nothing may be published any more."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
        self._publishers = []

    def announce(self, labels: LabelSet, threshold: float, header: Header) -> None:
        """Latch the class names and the least score of an instance."""
        self._label_info.publish(label_info(labels, threshold, header))

    @property
    def confidence_wanted(self) -> bool:
        """Whether somebody subscribes to the confidence map."""
        return bool(self._images["confidence"].get_subscription_count())

    @property
    def lanes_wanted(self) -> bool:
        """Whether somebody subscribes to the lane boundaries, or to the overlay, which shows them."""
        overlay = self._images["overlay"], self._jpeg
        return any(publisher.get_subscription_count() for publisher in (self._lanes, *overlay))

    def allocate(self, kind: str, shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
        """The pixels of the next ``mask``, ``panoptic`` or ``confidence`` message."""
        return self._buffers[kind].pixels(shape, dtype)

    def publish(self, result: PanopticResult, info: CameraInfo | None, labels: LabelSet) -> None:
        """Send the maps and instances, whose pixels were written through ``allocate``."""
        header = _header_of(result)
        self._send_image("mask", header)
        self._send_image("panoptic", header)
        if self._instances.get_subscription_count():
            self._instances.publish(detections(result.instances, header))
        if result.confidence is not None:
            self._send_image("confidence", header)
        if result.lanes is not None and self._lanes.get_subscription_count():
            self._lanes.publish(lane_cloud(result, info, header))
        if info is not None and self._camera_info is not None:
            height, width = result.mask.shape
            self._camera_info.publish(camera_info_for(info, header, (width, height), result.extent))
        self._send_overlay(result, header, labels)

    def _send_image(self, kind: str, header: Header) -> None:
        if self._images[kind].get_subscription_count():
            self._images[kind].publish(self._buffers[kind].message(header))

    def _send_overlay(self, result: PanopticResult, header: Header, labels: LabelSet) -> None:
        raw = self._images["overlay"].get_subscription_count()
        jpeg = self._jpeg.get_subscription_count()
        if not (raw or jpeg):
            return
        image = result.frame.image
        if not isinstance(image, CameraImage):
            raise EngineError("the overlay needs decoded pixels, got a compressed image")
        width, height = result.native_size
        out = self._buffers["overlay"].pixels((height, width, 3), np.uint8)
        # This frame's times are not complete before it is published: the strip shows those of the frame before.
        fps = 1 / self._cycle_s if self._cycle_s else None
        draw_overlay(decode_rgb(image), result, labels, self._last_times, out=out, fps=fps)
        if raw:
            self._images["overlay"].publish(self._buffers["overlay"].message(header))
        if jpeg:
            bgr = cv2.cvtColor(out, cv2.COLOR_RGB2BGR)
            _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
            data = array.array("B", encoded.tobytes())
            self._jpeg.publish(CompressedImage(header=header, format="rgb8; jpeg compressed bgr8", data=data))

    def finish(self, result: PanopticResult) -> None:
        """Send what only the complete times tell: latency and debug topics."""
        now = time.monotonic()
        times = self._last_times = result.times
        if self._latency.get_subscription_count():
            self._latency.publish(latency_message(result.frame.camera, times, _header_of(result)))
        self._debug_value("processing_time_ms", times.processing)
        self._debug_value("pipeline_latency_ms", times.end_to_end)
        if self._previous is not None:
            cycle = now - self._previous
            self._cycle_s = cycle if self._cycle_s is None else self._cycle_s + _SMOOTHING * (cycle - self._cycle_s)
            self._debug_value("cyclic_time_ms", cycle * 1e3)
        self._previous = now

    def _debug_value(self, name: str, value: float | None) -> None:
        if value is not None and self._debug[name].get_subscription_count():
            self._debug[name].publish(Float64(data=value))


def latency_message(camera: str, times: StageTimes, header: Header) -> DiagnosticArray:
    """One status with a key per stage: milliseconds with three decimals, or ``n/a``; the GPU's where there is one."""
    status = DiagnosticStatus(level=DiagnosticStatus.OK, name=f"drive_seg: latency {camera}", message="ms per stage")
    for stage in STAGES:
        value = getattr(times, stage)
        if value is None and stage.startswith("gpu_"):
            continue
        status.values.append(KeyValue(key=stage, value="n/a" if value is None else f"{value:.3f}"))
    return DiagnosticArray(header=header, status=[status])


def _header_of(result: PanopticResult) -> Header:
    header = result.frame.token
    if not isinstance(header, Header):
        raise TypeError(f"a frame's token must be its message's Header, got {type(header).__name__}")
    return header
