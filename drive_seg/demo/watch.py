"""What arrives on the topics: counted, timed, and matched into whole frames by their stamps."""

from __future__ import annotations

import functools
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from vision_msgs.msg import Detection2DArray

from drive_seg.errors import MalformedImage
from drive_seg.frame import Box, CameraImage, Instance, Lane, StageTimes, split_id
from drive_seg.labels import LabelSet
from drive_seg.lanes.table import lanes_of
from drive_seg.ros.convert import camera_image, stamp_ns
from drive_seg.telemetry import STAGES, FrameCounts, Percentiles

IMAGE_TOPIC = "/camera/image_raw"
NODE = "drive_seg"
PREFIX = "/segmentation"
_WAITING = 30
"""Frames whose parts may be incomplete at a time; of older ones some part was lost on the way to us."""
_RECENT = 4096
"""More than come in the seconds of a rate at the 1000 Hz that a camera may be given."""
_LONGEST_MS = 86_400_000.0
_LARGEST_TRACK = (1 << 63) - 1

Handler = Callable[["Watcher", Any], None]


def _ours_only(handler: Handler) -> Handler:
    """Leave out messages that make no sense: others may publish whatever they like on the same topics."""

    @functools.wraps(handler)
    def handle(watcher: Watcher, message: Any) -> None:
        try:
            handler(watcher, message)
        except (ValueError, LookupError, OverflowError):  # a MalformedImage is a ValueError, too
            return

    return handle


@dataclass(frozen=True)
class SeenFrame:
    """All that was published about one frame; ``fps`` of the node when it came, 0 while that is unknown."""

    stamp_ns: int
    image: CameraImage
    panoptic: NDArray[np.uint16]
    instances: tuple[Instance, ...]
    times: StageTimes
    lanes: tuple[Lane, ...] = ()
    fps: float = 0.0


@dataclass(frozen=True)
class NodeState:
    """What the node says of itself in /diagnostics.

    Attributes:
        engine, camera: keys and values of the two statuses.
        trouble: why it could not be configured; empty when nothing is wrong.
    """

    engine: Mapping[str, str]
    camera: Mapping[str, str]
    trouble: str = ""

    def counts(self) -> FrameCounts:
        """The ledger of the camera."""

        def number(key: str) -> int:
            return int(self.camera.get(key, "0"))

        dropped = {
            key.partition(".")[2]: int(value) for key, value in self.camera.items() if key.startswith("dropped.")
        }
        return FrameCounts(number("received"), number("published"), dropped, number("failed"))


class Arrivals:
    """Messages of one topic: how many, when the last of them (``time.monotonic()``), and how many per second lately."""

    def __init__(self) -> None:
        self.count = 0
        self.last = float("-inf")
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._first = 0.0

    def add(self) -> None:
        """One came now."""
        self.last = time.monotonic()
        self._recent.append(self.last)
        if self.count == 0:
            self._first = self._recent[0]
        self.count += 1

    def rate(self, seconds: float = 2.0) -> float:
        """Per second over the last ``seconds``."""
        if not self._recent:
            return 0.0
        now = time.monotonic()
        since = max(now - seconds, self._first)
        return sum(moment > since for moment in self._recent) / (now - since) if now > since else 0.0


class Watcher:
    """Subscribes to a running node and its camera. Not thread-safe: everything happens inside ``spin``.

    Args:
        node: an rclpy node of this process.
        keep: called with (stamp, image) for each camera image; whether the frame is wanted for the video.
        whole: called with each wanted frame once all its parts have come.
    """

    def __init__(
        self, node: Node, labels: LabelSet, keep: Callable[[int], bool], whole: Callable[[SeenFrame], None]
    ) -> None:
        self._node = node
        self._labels = labels
        self._keep = keep
        self._whole = whole
        self._parts: dict[int, dict[str, Any]] = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self.arrivals = {name: Arrivals() for name in ("image", "mask", "panoptic", "instances", "lanes", "latency")}
        self.times: deque[tuple[float, StageTimes]] = deque(maxlen=1 << 17)
        self.instance_counts: dict[str, int] = {}
        self.state: NodeState | None = None
        self.first_mask: float | None = None
        """``time.monotonic()`` of the first mask."""
        outputs = QoSProfile(depth=10, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
        kinds = {"mask": Image, "panoptic": Image, "instances": Detection2DArray, "lanes": PointCloud2}
        for name, kind in kinds.items():
            node.create_subscription(kind, f"{PREFIX}/{name}", getattr(self, f"_on_{name}"), outputs)
        node.create_subscription(DiagnosticArray, f"{PREFIX}/latency", self._on_latency, outputs)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, outputs)
        qos = QoSProfile(depth=5, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
        node.create_subscription(Image, IMAGE_TOPIC, self._on_image, qos)

    @property
    def camera_subscribers(self) -> int:
        """How many subscribe to the camera, we included."""
        return int(self._node.count_subscribers(IMAGE_TOPIC))

    def alone(self) -> bool:
        """Whether no other node is known on this domain."""
        return len(self._node.get_node_names()) <= 1

    def publishers(self, topic: str) -> int:
        """How many publish ``topic``."""
        return int(self._node.count_publishers(topic))

    def spin(self, seconds: float) -> None:
        """Serve callbacks for about ``seconds``."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def close(self) -> None:
        """Stop serving."""
        self._executor.shutdown()

    def percentiles(self, seconds: float = math.inf) -> dict[str, Percentiles]:
        """By stage, over everything or the last ``seconds``; stages that were not measured in them are absent."""
        since = time.monotonic() - seconds
        rows = [times for moment, times in self.times if moment > since]
        found = {}
        for stage in STAGES:
            values = [value for times in rows if (value := getattr(times, stage)) is not None]
            percentiles = Percentiles.of(np.array(values))
            if percentiles is not None:
                found[stage] = percentiles
        return found

    @_ours_only
    def _on_image(self, message: Image) -> None:
        self.arrivals["image"].add()  # malformed or not: the node counts it as such
        stamp = stamp_ns(message.header)
        if self._keep(stamp):
            self._add(stamp, "image", camera_image(message))

    def _on_mask(self, message: Image) -> None:
        self.arrivals["mask"].add()
        if self.first_mask is None:
            self.first_mask = time.monotonic()

    @_ours_only
    def _on_panoptic(self, message: Image) -> None:
        if message.encoding != "16UC1" or message.step != 2 * message.width:
            raise MalformedImage(f"expected rows of 16UC1 without padding, got {message.encoding}")
        order = ">" if message.is_bigendian else "<"
        pixels = np.frombuffer(message.data, f"{order}u2").reshape(message.height, message.width)
        self.arrivals["panoptic"].add()
        self._add(stamp_ns(message.header), "panoptic", pixels.astype(np.uint16, copy=False))

    @_ours_only
    def _on_instances(self, message: Detection2DArray) -> None:
        instances = tuple(self._instance(detection) for detection in message.detections)
        counts = {label.name: 0 for label in self._labels.things}
        for instance in instances:
            counts[instance.class_name] += 1
        self.arrivals["instances"].add()
        self.instance_counts = counts
        self._add(stamp_ns(message.header), "instances", instances)

    @_ours_only
    def _on_lanes(self, message: PointCloud2) -> None:
        lanes = lanes_of(message)
        self.arrivals["lanes"].add()
        self._add(stamp_ns(message.header), "lanes", lanes)

    @_ours_only
    def _on_latency(self, message: DiagnosticArray) -> None:
        values = {pair.key: pair.value for pair in message.status[0].values}
        times = StageTimes(**{stage: _milliseconds(values.get(stage, "n/a")) for stage in STAGES})
        self.arrivals["latency"].add()
        self.times.append((time.monotonic(), times))
        self._add(stamp_ns(message.header), "times", times)

    @_ours_only
    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        engine = next((status for status in message.status if status.name == f"{NODE}: engine"), None)
        if engine is not None:
            camera = next((status for status in message.status if status.name.startswith(f"{NODE}: camera ")), None)
            values = _values(engine)
            # A batch that takes long is an ERROR too, and over as soon as it is done.
            failed = engine.level == DiagnosticStatus.ERROR and values.get("configured") != "true"
            state = NodeState(values, _values(camera) if camera else {}, engine.message if failed else "")
            state.counts()  # or whoever asks for them later would find out that they are none
            self.state = state

    def _add(self, stamp: int, part: str, value: Any) -> None:
        parts = self._parts.setdefault(stamp, {})
        parts[part] = value
        if len(parts) == 5:
            del self._parts[stamp]
            image, panoptic = parts["image"], parts["panoptic"]
            if panoptic.shape != (image.height, image.width):
                raise MalformedImage(f"a map of {panoptic.shape} for an image of {image.height}x{image.width}")
            self._whole(SeenFrame(stamp, **parts, fps=self.arrivals["latency"].rate()))
        while len(self._parts) > _WAITING:
            del self._parts[next(iter(self._parts))]

    def _instance(self, detection: Any) -> Instance:
        hypothesis, box = detection.results[0].hypothesis, detection.bbox
        left = round(box.center.position.x - box.size_x / 2)
        top = round(box.center.position.y - box.size_y / 2)
        panoptic_id, track = split_id(detection.id)
        if not 0 <= panoptic_id <= 0xFFFF or not 0 <= (track or 0) <= _LARGEST_TRACK:
            raise ValueError(f"{detection.id} is not the id of an instance")
        area = Box(left, top, round(box.size_x), round(box.size_y))
        label = self._labels.by_name(hypothesis.class_id)
        return Instance(panoptic_id, label.id, label.name, hypothesis.score, area, area.width * area.height, track)


def _values(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def _milliseconds(text: str) -> float | None:
    if text == "n/a":
        return None
    value = float(text)
    if not 0 <= value <= _LONGEST_MS:
        raise ValueError(f"{text} is not how long a stage takes")
    return value
