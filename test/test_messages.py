"""Messages and the vocabulary, both ways, without a node."""

from __future__ import annotations

import array
import time
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from drive_seg.config import load
from drive_seg.decode import decode_rgb
from drive_seg.frame import CameraImage, Frame, PanopticResult, StageTimes
from drive_seg.ros.convert import ImageBuffer, camera_image, stamp_ns
from drive_seg.ros.publishers import CameraOutput


def test_a_stamp_is_in_nanoseconds() -> None:
    assert stamp_ns(Header(stamp=Time(sec=1_700_000_000, nanosec=123_456_789))) == 1_700_000_000_123_456_789


@pytest.mark.parametrize("big_endian", [0, 1])
def test_the_order_of_bytes_is_the_message_s(big_endian: int) -> None:
    values = np.array([[0x1234, 0xFF00, 7]], ">u2" if big_endian else "<u2")
    message = Image(height=1, width=3, encoding="mono16", step=6, is_bigendian=big_endian)
    message.data = array.array("B", values.tobytes())
    assert decode_rgb(camera_image(message))[0, :, 0].tolist() == [0x12, 0xFF, 0]


@pytest.mark.parametrize(
    ("encoding", "dtype", "channels", "step"),
    [("mono8", np.uint8, (), 5), ("16UC1", np.uint16, (), 10), ("rgb8", np.uint8, (3,), 15)],
)
def test_a_buffer_is_a_message_of_its_pixels(encoding: str, dtype: type, channels: tuple[int, ...], step: int) -> None:
    buffer = ImageBuffer(encoding)
    for shape in ((2, 3), (4, 5), (4, 5)):  # another size, and the same again
        pixels = buffer.pixels((*shape, *channels), dtype)
        pixels[:] = np.arange(pixels.size).reshape(pixels.shape)
        message = buffer.message(Header(frame_id="front"))
        assert (message.height, message.width, message.encoding) == (*shape, encoding)
        np.testing.assert_array_equal(np.frombuffer(message.data, dtype), np.arange(pixels.size))
    assert (message.step, len(message.data), message.header.frame_id) == (step, 4 * step, "front")


class Listener:
    """A node without ROS: what is published, by topic. Somebody subscribes to everything."""

    def __init__(self) -> None:
        self.heard: dict[str, list[Any]] = defaultdict(list)

    def create_publisher(self, kind: type, topic: str, *_: Any, **__: Any) -> Any:
        listener = self

        class Publisher:
            def publish(self, message: Any) -> None:
                assert isinstance(message, kind)
                listener.heard[topic].append(message)

            def get_subscription_count(self) -> int:
                return 1

        return Publisher()

    def resolve_topic_name(self, topic: str) -> str:
        return f"/{topic}"


def test_the_times_of_a_frame_are_told_in_milliseconds_each_under_its_name() -> None:
    listener = Listener()
    output = CameraOutput(
        listener, load(lambda parameter: parameter.default), "segmentation", "~/debug", with_camera_info=False
    )  # type: ignore[arg-type]
    image = CameraImage("mono8", 4, 2, 4, np.zeros(8, np.uint8))
    maps = np.zeros((2, 4), np.uint8), np.zeros((2, 4), np.uint16)
    started = time.monotonic()
    for times in (StageTimes(inference=5.0, processing=7.0, end_to_end=9.0), StageTimes(inference=6.0, processing=8.0)):
        frame = Frame(image, token=Header(frame_id="front"))
        output.finish(PanopticResult(frame, *maps, (), (4, 2), times=times))
        time.sleep(0.02)
    elapsed = 1e3 * (time.monotonic() - started)
    told = {
        name: [value.data for value in listener.heard[f"~/debug/{name}"]]
        for name in ("processing_time_ms", "pipeline_latency_ms", "cyclic_time_ms")
    }
    assert told["processing_time_ms"] == [7.0, 8.0]
    assert told["pipeline_latency_ms"] == [9.0], "not where the clocks do not compare"
    (cycle,) = told["cyclic_time_ms"]
    assert 20 <= cycle < elapsed
    first, second = (
        {pair.key: pair.value for pair in message.status[0].values}
        for message in listener.heard["segmentation/latency"]
    )
    assert (first["inference"], first["processing"], first["end_to_end"]) == ("5.000", "7.000", "9.000")
    assert (second["end_to_end"], second["decode"]) == ("n/a", "n/a")
    assert not any(key.startswith("gpu_") for key in first), "there is none"
    assert listener.heard["segmentation/latency"][0].header.frame_id == "front"
