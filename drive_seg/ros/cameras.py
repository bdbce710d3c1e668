"""The cameras' side in: messages become frames and are handed to the worker."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from drive_seg import frame as core
from drive_seg.config import CameraConfig, Config
from drive_seg.errors import DriveSegError, MalformedImage
from drive_seg.ros.convert import camera_image, compressed_image, stamp_ns
from drive_seg.ros.creation import creating, resolved
from drive_seg.ros.qos import overrides, profile
from drive_seg.worker import Worker

_LONGEST_TRANSPORT_MS = 60_000.0
"""A frame 'older' than this comes from another clock (a replayed bag, a camera that counts from its own start)."""
_LONG_STEPS = 10.0
"""A step between two stamps of so many usual ones is none of the camera's rate."""


class Arrivals:
    """When a camera's frames came, on our clock and by their stamps: they tell a slow camera from a slow link.

    Args:
        clock: seconds. Simulated time makes a camera that pauses with its simulator no silent one.
    """

    def __init__(
        self, seconds: float = 10.0, capacity: int = 4096, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque(maxlen=capacity)
        self._quiet_since = clock()
        self._heard = False

    def add(self, stamp: int) -> None:
        """A frame came now, with this stamp in nanoseconds."""
        self._quiet_since = self._now()
        self._heard = True
        self._seen.append((self._quiet_since, stamp))

    def idle_s(self) -> float | None:
        """Seconds since the last frame, or since simulated time jumped back after it; None before the first."""
        return self.quiet_s() if self._heard else None

    def quiet_s(self) -> float:
        """The same; before the first frame, seconds since it began to listen."""
        return self._now() - self._quiet_since

    @property
    def only_one(self) -> bool:
        """Whether there was one frame so far (since simulated time jumped back), which makes no rate."""
        return len(self._seen) == 1

    def rate(self, seconds: float | None = None) -> float:
        """Frames per second over the last ``seconds`` (default: the whole window); 0 below two frames.

        A silence after the last of them counts as soon as it is longer than their usual step.
        """
        times = [seen for seen, _ in self._fresh(seconds)]
        if len(times) < 2:
            return 0.0
        span = times[-1] - times[0]
        return _rate(len(times), max(span, self._now() - times[0] - span / (len(times) - 1)))

    def stamp_rate(self) -> float:
        """Frames per second by their stamps since these last jumped; 0 where stamps stand still."""
        stamps = [stamp for _, stamp in self._fresh(None)]
        steps = np.diff(stamps)
        # A step ahead that is longer than the window: the camera's clock was set. Unless all are, as in a time lapse.
        longest = max(self._seconds * 1e9, _LONG_STEPS * float(np.median(steps))) if steps.size else 0.0
        jumps = np.flatnonzero((steps < 0) | (steps > longest))
        stamps = stamps[int(jumps[-1]) + 1 :] if jumps.size else stamps
        return _rate(len(stamps), (stamps[-1] - stamps[0]) / 1e9) if stamps else 0.0

    def _fresh(self, seconds: float | None) -> list[tuple[float, int]]:
        oldest = self._now() - (self._seconds if seconds is None else seconds)
        return [item for item in self._seen if item[0] >= oldest]

    def _now(self) -> float:
        now = self._clock()
        if now < self._quiet_since:
            self._seen.clear()  # simulated time jumped back: what was before it is no measure
            self._quiet_since = now
        return now


def _rate(count: int, span: float) -> float:
    return (count - 1) / span if span > 0 else 0.0


class CameraInput:
    """The subscriptions of one camera. Exists while the node is active; its callbacks run on the executor's thread.

    Args:
        report: called with (camera, error) for every malformed image.
    """

    def __init__(
        self,
        node: Node,
        camera: CameraConfig,
        config: Config,
        worker: Worker,
        report: Callable[[str, DriveSegError], None],
    ) -> None:
        self.arrivals = Arrivals(clock=partial(_seconds, node.get_clock()))
        self.info: CameraInfo | None = None
        """The calibration that came last."""
        self._node = node
        self._clock = node.get_clock()
        self._camera = camera.name
        self._worker = worker
        self._report = report
        self._subscriptions: list[Subscription] = []
        self.topic = resolved(node, camera.image_topic)
        """Where its images come from, remapped and in full."""
        compressed = camera.compressed or self.topic.endswith("/compressed")
        kind, handler = (CompressedImage, self._on_compressed) if compressed else (Image, self._on_image)
        try:
            self._subscribe(kind, camera.image_topic, handler, config)
            if camera.camera_info_topic:
                self._subscribe(CameraInfo, camera.camera_info_topic, self._on_info, config)
        except BaseException:
            self.close()
            raise

    def _subscribe(self, kind: Any, topic: str, handler: Callable[[Any], None], config: Config) -> None:
        name = resolved(self._node, topic)
        qos = profile(config.input_qos, config.input_qos_depth)
        options = overrides(self._node, topic, "subscription")
        with creating(f"a subscription of {name}"):
            subscription = self._node.create_subscription(kind, topic, handler, qos, qos_overriding_options=options)
        self._subscriptions.append(subscription)

    @property
    def listening(self) -> bool:
        """Whether images can come: not any more while the last of them is in work."""
        return bool(self._subscriptions)

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _on_image(self, message: Image) -> None:
        moment = self._arrived(message.header)
        try:
            image = camera_image(message)
        except MalformedImage as error:
            ledger = self._worker.ledgers[self._camera]
            ledger.receive()
            ledger.drop("malformed")
            self._report(self._camera, error)
            return
        self._worker.offer(self._frame(image, message.header, moment))

    def _on_compressed(self, message: CompressedImage) -> None:
        moment = self._arrived(message.header)
        self._worker.offer(self._frame(compressed_image(message), message.header, moment))

    def _on_info(self, message: CameraInfo) -> None:
        self.info = message

    def _arrived(self, header: Header) -> tuple[int, float | None]:
        """When a message came (monotonic ns), and its age then: what is done with it from here on counts as waiting."""
        received = time.monotonic_ns()
        stamp = stamp_ns(header)
        age = transport_ms(self._clock, stamp)
        self.arrivals.add(stamp)
        return received, age

    def _frame(
        self, image: core.CameraImage | core.CompressedImage, header: Header, moment: tuple[int, float | None]
    ) -> core.Frame:
        received, age = moment
        moves_by = stamp_ns(header) or received  # the only time that is known of it, and what its tracks move by
        return core.Frame(image, self._camera, moves_by, received, age, token=header)


def _seconds(clock: Any) -> float:
    """Simulated time where there is one, else monotonic time."""
    return clock.now().nanoseconds / 1e9 if clock.ros_time_is_active else time.monotonic()


def transport_ms(clock: Any, stamp: int) -> float | None:
    """Now minus ``stamp`` (ns) on ``clock``, the node's ROSClock; None where the two do not compare.

    They do not under simulated time (it jumps, pauses and runs at another rate than the monotonic clock that all
    other durations come from), without a stamp, and where the difference is negative or absurd.
    """
    if stamp == 0 or clock.ros_time_is_active:
        return None
    age = (clock.now().nanoseconds - stamp) / 1e6
    return age if 0.0 <= age <= _LONGEST_TRANSPORT_MS else None
