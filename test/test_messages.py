"""Messages and the vocabulary, both ways, without a node."""

from __future__ import annotations

import array
import signal
import subprocess
import sys
import time
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")

from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, HistoryPolicy, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from drive_seg.config import Config, load
from drive_seg.decode import decode_rgb
from drive_seg.errors import EngineError, MalformedImage
from drive_seg.frame import CameraImage, Frame, PanopticResult, StageTimes
from drive_seg.ros import complaints
from drive_seg.ros.cameras import CameraInput
from drive_seg.ros.convert import ImageBuffer, camera_image, stamp_ns
from drive_seg.ros.publishers import CameraOutput
from drive_seg.ros.qos import profile
from drive_seg.telemetry import FrameLedger

SECONDS = 1_700_000_000


def defaults() -> Config:
    """What the node has where nobody says anything."""
    return load(lambda parameter: parameter.default)


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
    """A node without ROS: what is published, by topic, and its subscriptions. Somebody subscribes to everything."""

    def __init__(self) -> None:
        self.heard: dict[str, list[Any]] = defaultdict(list)
        self.handlers: dict[str, Any] = {}

    def create_subscription(self, kind: type, topic: str, handler: Any, *_: Any, **__: Any) -> None:
        self.handlers[topic] = handler

    def get_clock(self) -> Any:
        """Three milliseconds after the stamp of these tests."""
        now = SimpleNamespace(nanoseconds=SECONDS * 10**9 + 3_000_000)
        return SimpleNamespace(ros_time_is_active=False, now=lambda: now)

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
    output = CameraOutput(listener, defaults(), "segmentation", "~/debug", with_camera_info=False)  # type: ignore[arg-type]
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


def test_a_message_becomes_a_frame_or_is_counted_and_reported() -> None:
    listener, ledger, offered, reported = Listener(), FrameLedger(), [], []
    worker = SimpleNamespace(ledgers={"front": ledger}, offer=offered.append)
    config = defaults()
    CameraInput(listener, config.cameras[0], config, worker, lambda *lost: reported.append(lost))  # type: ignore[arg-type]
    handler = listener.handlers["/camera/image_raw"]
    good = {"height": 1, "width": 2, "encoding": "mono8", "step": 2, "data": array.array("B", b"ab")}
    stamped = Header(stamp=Time(sec=SECONDS), frame_id="optical")
    handler(Image(header=stamped, **good))
    handler(Image(**good))
    handler(Image(header=stamped, **{**good, "step": 1}))
    first, second = offered
    assert (first.camera, first.stamp_ns, first.transport_ms, first.token) == ("front", SECONDS * 10**9, 3.0, stamped)
    assert first.received_ns <= second.received_ns <= time.monotonic_ns()
    assert (second.stamp_ns, second.transport_ms) == (second.received_ns, None), "its camera gives no times"
    counts = ledger.counts()
    assert (counts.received, dict(counts.dropped), counts.in_flight) == (1, {"malformed": 1}, 0)
    ((name, error),) = reported
    assert name == "front" and isinstance(error, MalformedImage)


def test_errors_of_a_stream_are_one_line_a_second_for_each_camera_and_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = 100.0, []
    monkeypatch.setattr(complaints, "time", SimpleNamespace(monotonic=lambda: now))
    said = complaints.Complaints(SimpleNamespace(warning=lines.append, error=lines.append))
    for _ in range(31):
        said.add("left", MalformedImage("no rows"))
        said.add("left", EngineError("no engine"))
        now += 1 / 32
    said.add("right", MalformedImage("no columns"))
    assert lines == [
        "camera left: 1 image dropped as malformed, the last: no rows",
        "camera left: 1 image lost: no engine",
        "camera right: 1 image dropped as malformed, the last: no columns",
    ]
    for _ in range(2):
        now += 1.0
        said.add("left", MalformedImage("no end"))
    assert lines[3:] == [
        "camera left: 31 images dropped as malformed, the last: no end",
        "camera left: 1 image dropped as malformed, the last: no end",
    ]


@pytest.mark.parametrize(("name", "reliable"), [("SENSOR_DATA", False), ("DEFAULT", True)])
def test_a_profile_keeps_as_many_messages_as_it_is_told(name: str, reliable: bool) -> None:
    for depth in (1, 7):
        found = profile(name, depth)
        assert (found.depth, found.history) == (depth, HistoryPolicy.KEEP_LAST)
        assert (found.reliability == ReliabilityPolicy.RELIABLE) == reliable
        assert found.durability == DurabilityPolicy.VOLATILE


def test_a_signal_that_is_repeated_later_ends_what_does_not_end_in_order() -> None:
    script = (
        "import time; from drive_seg.ros.process import StopSignals; StopSignals._PATIENCE_S = 1.5\n"
        "stop = StopSignals(); print('ready', flush=True)\n"
        "while True: time.sleep(0.01); stop.requested and print('told', flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "told\n"
        process.send_signal(signal.SIGINT)  # the same, as a shell and a launcher both send it
        assert process.stdout.readline() == "told\n" and process.poll() is None
        time.sleep(1.7)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 128 + signal.SIGTERM
    finally:
        process.kill()
