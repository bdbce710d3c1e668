"""A camera process that plays a recording: ``python -m drive_seg.demo.player SOURCE``.

Publishes ``/camera/image_raw`` with the recording's own encodings, stamped when they are sent, as a camera's are.
"""

from __future__ import annotations

import argparse
import array
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from drive_seg.decode import decode
from drive_seg.errors import DriveSegError, MalformedImage, SourceError, counted
from drive_seg.frame import CameraImage, Frame
from drive_seg.offline.sources import Source, open_source
from drive_seg.ros.process import run

TOPIC = "/camera/image_raw"
_LINGER_S = 0.5  # the last image must leave before the shared memory it lies in goes with the process


class Player(Node):  # type: ignore[misc] # rclpy has no stubs
    """A node that publishes a source at its own rate, beginning when somebody subscribes.

    Args:
        rate: images per second; 0 takes the source's.
        loop: begin again at the end instead of ending.
        subscribers: how many to wait for before the first image.
    """

    def __init__(self, source: Source, rate: float = 0.0, loop: bool = False, subscribers: int = 1) -> None:
        super().__init__("drive_seg_player")
        self._name = source.name
        self._refused: deque[str] = deque(maxlen=1)
        self._images = _images(source, loop, self._refused.append)
        self._publisher = self.create_publisher(Image, TOPIC, qos_profile_sensor_data)
        # A live source sets the pace by itself: reading waits for its next image.
        period = 0.001 if source.live else 1.0 / (rate or source.fps)
        self._timer = self.create_timer(period, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._awaited = subscribers
        self._ended: float | None = None
        self.sent = 0
        self.trouble: DriveSegError | None = None

    @property
    def finished(self) -> bool:
        """Whether the last image is sent and had time to leave.

        Raises:
            SourceError: there was none that could be sent.
        """
        if self._ended is not None and self.sent == 0:
            why = self.trouble or (self._refused[0] if self._refused else "it has none")
            raise SourceError(f"no image of {self._name} can be shown: {why}")
        return self._ended is not None and time.monotonic() - self._ended > _LINGER_S

    def _tick(self) -> None:
        if self._ended is not None or self._publisher.get_subscription_count() < self._awaited:
            return
        self._awaited = 0
        try:
            image = next(self._images, None)
        except DriveSegError as error:
            self.trouble, image = error, None
        if image is None:
            self._ended = time.monotonic()
            return
        message = _message(image)
        message.header = Header(stamp=self.get_clock().now().to_msg(), frame_id="camera_optical_frame")
        self._publisher.publish(message)
        self.sent += 1

    def close(self) -> None:
        """Say how it ended."""
        if self.trouble is not None and self.sent:
            self.get_logger().error(str(self.trouble))
        self.get_logger().info(f"{counted(self.sent, 'image')} sent")


def _images(source: Source, loop: bool, refuse: Callable[[str], None] = lambda why: None) -> Iterator[CameraImage]:
    again = True
    while again:
        again = False
        for entry in source:
            if not isinstance(entry, Frame):
                refuse(str(entry.error))
            else:
                try:
                    image = decode(entry.image)
                except MalformedImage as error:
                    refuse(str(error))
                    continue  # a real camera would not send it either; `drive_seg run` reports it
                again = loop  # but never look for ever for an image in a recording that has none
                yield image


def _message(image: CameraImage) -> Image:
    message = Image(height=image.height, width=image.width, encoding=image.encoding, step=image.step)
    message.is_bigendian = int(image.big_endian)
    message.data = array.array("B", image.data.tobytes())
    return message


def main(arguments: Sequence[str] | None = None) -> int:
    """0 at the end of the recording or after a signal, 1 when it has no image, 2 when it cannot be opened."""
    parser = argparse.ArgumentParser(description="Publish a recording as a camera.")
    parser.add_argument("source", help="a video, a folder of images, a bag, a device (0) or a URL")
    parser.add_argument("--rate", type=float, default=0.0, help="images per second; 0: the recording's")
    parser.add_argument("--topic", help="image topic of a bag")
    parser.add_argument("--loop", action="store_true", help="begin anew at its end")
    parser.add_argument("--subscribers", type=int, default=1, help="how many to wait for before the first image")
    given = parser.parse_args(arguments)
    return run(lambda: Player(open_source(given.source, given.topic), given.rate, given.loop, given.subscribers), [])


if __name__ == "__main__":
    sys.exit(main())
