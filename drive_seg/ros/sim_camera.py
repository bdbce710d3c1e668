"""The node ``sim_camera``: publishes simulated images with their truth, or plays a video, a folder or a device."""

from __future__ import annotations

import array
import itertools
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, LabelInfo

from drive_seg.config import QOS_NAMES, SLOWEST_HZ, Parameter
from drive_seg.errors import ConfigError, counted
from drive_seg.frame import Instance
from drive_seg.labels import DRIVING, mask_of
from drive_seg.ros.ahead import Ahead, Drive
from drive_seg.ros.convert import detections, label_info
from drive_seg.ros.creation import creating
from drive_seg.ros.lanes import cloud
from drive_seg.ros.parameters import declare
from drive_seg.ros.pictures import Packed, Picture, Pictures, SimulatedPictures, open_pictures
from drive_seg.ros.process import run
from drive_seg.ros.qos import LATCHED, overrides, profile
from drive_seg.sim import WEATHERS

PARAMETERS = (
    Parameter("source", "", "Video, image folder, device or URL to play; empty is the simulator."),
    Parameter("loop", False, "Begin again when a video or folder ends, instead of ending the process."),
    Parameter("width", 1280, "Width of the simulated image in pixels.", limits=(32, 8192)),
    Parameter("height", 720, "Height of the simulated image in pixels.", limits=(32, 8192)),
    Parameter("rate", 0.0, "Images per second; 0: as the source says (simulator 30).", limits=(0.0, 1000.0)),
    Parameter("seed", 0, "The same seed drives the same road.", limits=(0, 2**63 - 1)),
    Parameter("weather", "", "Weather and light; empty draws it from the seed.", choices=("", *WEATHERS)),
    Parameter("frame_id", "camera_optical_frame", "Frame of the images: x right, y down, z forward (REP 103)."),
    Parameter(
        "prerender",
        0,
        "Render so many images first and replay them over and over: the camera then costs no CPU; 0 renders live.",
        limits=(0, 1000),
    ),
    Parameter(
        "hold",
        0,
        "With prerender, more than it: go on rendering the simulated drive while it plays, with processor time that "
        "nobody else wants, and replay so many images at most; 0 replays those of prerender.",
        limits=(0, 10_000),
    ),
    Parameter("frames", 0, "End after so many images; 0 is endless.", limits=(0, 2**31 - 1)),
    Parameter("wait_for_subscribers", 0, "Begin when so many subscribe to the images.", limits=(0, 100)),
    Parameter("qos", "SENSOR_DATA", "QoS profile of every topic.", choices=QOS_NAMES),
    Parameter("qos_depth", 5, "keep_last depth of every topic.", limits=(1, 100)),
)
_TOPICS = (
    ("camera/image_raw", Image),
    ("camera/camera_info", CameraInfo),
    ("camera/truth/panoptic", Image),
    ("camera/truth/mask", Image),
    ("camera/truth/lanes", PointCloud2),
    ("camera/truth/instances", Detection2DArray),
)
_POLL_S = 0.02
_LINGER_S = 0.5  # the last image must leave before the shared memory it lies in goes with the process


@dataclass(frozen=True)
class Shot:
    """The messages of one picture; their headers are set when they are sent."""

    image: Image
    panoptic: Packed | None = None
    lanes: PointCloud2 | None = None
    instances: tuple[Instance, ...] = ()


class SimCamera(Node):
    """Publishes ``camera/image_raw``, ``camera/camera_info``, and of the simulator ``camera/truth/panoptic``, ``mask``,
    ``instances``, ``lanes`` and, latched, ``label_info``.

    Raises:
        ConfigError: a parameter is refused.
        SourceError: the source cannot be opened.
    """

    def __init__(self, name: str = "sim_camera", **options: Any) -> None:
        super().__init__(name, **options)
        given = {parameter.name: declare(self, parameter, at_start_only=True) for parameter in PARAMETERS}
        if 0.0 < given["rate"] < SLOWEST_HZ:
            raise ConfigError(f"rate must be 0 or >= {SLOWEST_HZ:g}, got {given['rate']:g}")
        self._given = given
        self._pictures = _open(given)
        self._frame_id: str = given["frame_id"]
        self._awaited: int = given["wait_for_subscribers"]
        self._ended: float | None = None
        self._sent = 0
        self._shots: Iterator[Shot] = iter(())
        self._planned = [
            (kind, topic, profile(given["qos"], given["qos_depth"]), overrides(self, topic, "publisher"))
            for topic, kind in _TOPICS
        ]
        self._ahead = _ahead(given)
        if self._ahead is None:
            self._begin(_shots(self._pictures, given["prerender"], given["loop"]))
        else:
            self._poll = self.create_timer(_POLL_S, self._begin_when_ready, clock=_steady())

    def _begin_when_ready(self) -> None:
        assert self._ahead is not None
        if self._ahead.ready:
            self.destroy_timer(self._poll)
            self._begin(self._ahead)

    def _begin(self, shots: Iterable[Shot]) -> None:
        """Make the topics: whoever finds them may count on images."""
        given = self._given
        self._shots = itertools.islice(shots, given["frames"] or None)
        made = []
        for kind, topic, qos, overriding in self._planned:
            with creating(f"a publisher of {self.resolve_topic_name(topic)}"):
                made.append(self.create_publisher(kind, topic, qos, qos_overriding_options=overriding))
        self._image, self._info, self._panoptic, self._mask, self._lanes, self._instances = made
        if isinstance(self._pictures, SimulatedPictures):
            topic = "camera/truth/label_info"
            with creating(f"a publisher of {self.resolve_topic_name(topic)}"):
                labels = self.create_publisher(LabelInfo, topic, LATCHED)
            header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._frame_id)
            labels.publish(label_info(DRIVING, 0.0, header))
        rate = given["rate"] or self._pictures.rate
        self._timer = self.create_timer(1.0 / rate, self._tick, clock=_steady())
        self.get_logger().info(f"{given['source'] or 'simulator'} at {rate:g} Hz on {self._image.topic_name}")

    @property
    def finished(self) -> bool:
        """Whether the last image is sent and had time to leave."""
        return self._ended is not None and time.monotonic() - self._ended > _LINGER_S

    def close(self) -> None:
        """Say how many images there were."""
        self._shots = iter(())
        if self._ahead is not None:
            self._ahead.close()
        self.get_logger().info(f"{counted(self._sent, 'image')} sent")

    def _tick(self) -> None:
        if self._ended is not None or self._image.get_subscription_count() < self._awaited:
            return
        self._awaited = 0
        shot = next(self._shots, None)
        if shot is None:
            self._ended = time.monotonic()
            return
        self._send(shot, Header(stamp=self.get_clock().now().to_msg(), frame_id=self._frame_id))
        self._sent += 1

    def _send(self, shot: Shot, header: Header) -> None:
        shot.image.header = header
        self._image.publish(shot.image)
        if self._info.get_subscription_count():
            self._info.publish(_camera_info(shot.image, self._pictures.intrinsics))
        if shot.lanes is not None and self._lanes.get_subscription_count():
            shot.lanes.header = header
            self._lanes.publish(shot.lanes)
        if shot.panoptic is not None:
            self._send_truth(shot.panoptic, shot.instances, header)

    def _send_truth(self, packed: Packed, instances: tuple[Instance, ...], header: Header) -> None:
        if self._instances.get_subscription_count():
            self._instances.publish(detections(instances, header))
        if self._panoptic.get_subscription_count() or self._mask.get_subscription_count():
            panoptic = packed.array()
            maps = ((self._panoptic, panoptic, "16UC1"), (self._mask, mask_of(panoptic), "mono8"))
            for topic, pixels, encoding in maps:
                if topic.get_subscription_count():
                    message = _image(pixels, encoding)
                    message.header = header
                    topic.publish(message)


def _steady() -> Clock:
    return Clock(clock_type=ClockType.STEADY_TIME)


def _open(given: dict[str, Any]) -> Pictures:
    if given["source"]:
        return open_pictures(given["source"])
    return SimulatedPictures(given["seed"], given["width"], given["height"], given["rate"] or 30.0, given["weather"])


def _ahead(given: dict[str, Any]) -> Ahead[Shot] | None:
    if given["source"] or not given["prerender"]:
        return None
    drive = Drive(given["seed"], given["width"], given["height"], given["rate"] or 30.0, given["weather"])
    return Ahead(drive, given["prerender"], given["hold"], _shot)


def _shots(pictures: Pictures, prerender: int, loop: bool) -> Iterable[Shot]:
    """The messages to send, one by one; made ahead where ``prerender`` says so."""
    shots = map(_shot, _again_and_again(pictures) if loop else pictures)
    return itertools.cycle(list(itertools.islice(shots, prerender))) if prerender else shots


def _again_and_again(pictures: Pictures) -> Iterator[Picture]:
    """From the first again after the last; until there is none, as where no image of a video can be decoded."""
    while (first := next(again := iter(pictures), None)) is not None:
        yield from itertools.chain((first,), again)


def _shot(picture: Picture) -> Shot:
    return Shot(
        image=_image(picture.pixels, picture.encoding),
        panoptic=picture.panoptic,
        lanes=None if picture.lanes is None else cloud(picture.lanes, Header()),
        instances=picture.instances,
    )


def _image(pixels: NDArray[Any], encoding: str) -> Image:
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding=encoding, step=pixels.nbytes // height)
    message.is_bigendian = int(sys.byteorder == "big")
    message.data = array.array("B", pixels.tobytes())
    return message


def _camera_info(image: Image, intrinsics: NDArray[np.float64] | None) -> CameraInfo:
    """The calibration of an image; K of zeros says that it is not calibrated."""
    info = CameraInfo(header=image.header, height=image.height, width=image.width)
    if intrinsics is not None:
        info.distortion_model = "plumb_bob"
        info.d = [0.0] * 5
        info.k = intrinsics.reshape(-1)
        info.r = np.eye(3).reshape(-1)
        info.p = np.hstack([intrinsics, np.zeros((3, 1))]).reshape(-1)
    return info


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of ``sim_camera``: 0 at the end of its source or after a signal, 1 when that can no longer be read,
    2 when a parameter is refused."""
    return run(SimCamera, args)


if __name__ == "__main__":
    sys.exit(main())
