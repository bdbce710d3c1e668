"""Messages and the vocabulary, both ways, without a node."""

from __future__ import annotations

import array
import copy
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")

from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, HistoryPolicy, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from drive_seg.config import Config, load
from drive_seg.decode import decode_rgb
from drive_seg.errors import EngineError, MalformedImage
from drive_seg.frame import Box, CameraImage, Frame, Instance, Lane, PanopticResult, StageTimes
from drive_seg.labels import DRIVING
from drive_seg.lanes.table import lanes_of
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
    """A node without ROS: what is published, by topic, and its subscriptions.

    Args:
        wanted: topics that somebody subscribes to; None: all.
    """

    def __init__(self, wanted: Collection[str] | None = None, remapped: Mapping[str, str] = {}) -> None:
        self.wanted = wanted
        self.remapped = remapped
        self.simulated = False
        self.elapsed_ns = 3_000_000
        self.open: list[Any] = []
        self.heard: dict[str, list[Any]] = defaultdict(list)
        self.handlers: dict[str, Any] = {}

    def create_subscription(self, kind: type, topic: str, handler: Any, *_: Any, **__: Any) -> Any:
        if topic == "/refused":
            raise RuntimeError("no room")
        self.handlers[topic] = handler
        self.open.append((kind, topic))
        return self.open[-1]

    def destroy_subscription(self, subscription: Any) -> None:
        self.open.remove(subscription)

    def get_clock(self) -> Any:
        return self

    @property
    def ros_time_is_active(self) -> bool:
        return self.simulated

    def now(self) -> Any:
        """Some milliseconds after the stamp of these tests."""
        return SimpleNamespace(nanoseconds=SECONDS * 10**9 + self.elapsed_ns)

    def create_publisher(self, kind: type, topic: str, *_: Any, **__: Any) -> Any:
        listener = self

        class Publisher:
            def publish(self, message: Any) -> None:
                assert isinstance(message, kind)
                listener.heard[topic].append(copy.deepcopy(message))  # as it is now: it is filled again

            def get_subscription_count(self) -> int:
                return int(listener.wanted is None or topic in listener.wanted)

        self.open.append(Publisher())
        return self.open[-1]

    def destroy_publisher(self, publisher: Any) -> None:
        self.open.remove(publisher)

    def resolve_topic_name(self, topic: str) -> str:
        return self.remapped.get(topic, f"/{topic}")


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


LAZY = ["segmentation/" + name for name in ("mask", "panoptic", "instances", "confidence", "lanes", "latency")]
LAZY += ["segmentation/overlay", "segmentation/overlay/compressed"]
LAZY += ["~/debug/" + name for name in ("processing_time_ms", "pipeline_latency_ms", "cyclic_time_ms")]


@pytest.mark.parametrize("seed", range(16))
def test_every_frame_goes_to_those_who_listen_and_nothing_else_is_made(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    wanted = {topic for topic in LAZY if rng.random() < (0.15, 0.5, 0.85)[seed % 3]}
    overlays = wanted & {"segmentation/overlay", "segmentation/overlay/compressed"}
    drawn = []

    def draw(rgb: Any, result: PanopticResult, *said: Any, out: Any, fps: float | None) -> None:
        drawn.append((said, fps))
        out[:] = (200, 100, 10)

    monkeypatch.setattr("drive_seg.ros.publishers.draw_overlay", draw)
    listener = Listener(wanted)
    output = CameraOutput(listener, defaults(), "segmentation", "~/debug", with_camera_info=True)  # type: ignore[arg-type]
    assert output.confidence_wanted == ("segmentation/confidence" in wanted)
    assert output.lanes_wanted == bool(overlays or "segmentation/lanes" in wanted)
    image = CameraImage("mono8", 16, 8, 16, np.zeros(128, np.uint8))
    line = Lane(-1, np.array([[3, 7], [4, 1]], np.float32))
    headers = [Header(stamp=Time(sec=second), frame_id="optical") for second in range(1, 4)]
    sent = []
    for number, header in enumerate(headers):
        kinds = {"mask": np.uint8, "panoptic": np.uint16, "confidence": np.uint8}
        maps = {kind: output.allocate(kind, (8, 16), dtype) for kind, dtype in kinds.items()}
        for pixels in maps.values():
            pixels[:] = rng.integers(0, 256, (8, 16))
        confidence = maps["confidence"] if output.confidence_wanted else None
        thing = Instance(3001, 3, "vehicle", 0.5, Box(1, 2, 3, 4), 12)
        times = StageTimes(inference=number, processing=number + 1.0, end_to_end=number + 2.0)
        lanes = (line,) if output.lanes_wanted else None
        shown = maps["mask"], maps["panoptic"], (thing,) * number, (16, 8)
        result = PanopticResult(Frame(image, token=header), *shown, confidence=confidence, lanes=lanes, times=times)
        output.publish(result, CameraInfo(width=32, height=16) if number else None, DRIVING)
        sent.append({kind: pixels.tobytes() for kind, pixels in maps.items()})
        time.sleep(0.002 * rng.random())
        output.finish(result)
    heard = {topic for topic, messages in listener.heard.items() if messages}
    assert heard == wanted | {"segmentation/camera_info"}, "whoever has a calibration is sent it"
    assert [message.header for message in listener.heard["segmentation/camera_info"]] == headers[1:]
    assert {(message.width, message.height) for message in listener.heard["segmentation/camera_info"]} == {(16, 8)}
    for topic in wanted - {topic for topic in LAZY if topic.startswith("~")}:
        assert [message.header for message in listener.heard[topic]] == headers
    for kind in ("mask", "panoptic", "confidence"):
        pixels = [message.data.tobytes() for message in listener.heard[f"segmentation/{kind}"]]
        assert pixels == [frame_[kind] for frame_ in sent] or f"segmentation/{kind}" not in wanted
    for message in listener.heard["segmentation/lanes"]:
        assert [found.order for found in lanes_of(message)] == [-1]
    assert [len(message.detections) for message in listener.heard["segmentation/instances"]] in ([], [0, 1, 2])
    for message in listener.heard["segmentation/overlay"]:
        assert (message.encoding, bytes(message.data[:3])) == ("rgb8", bytes((200, 100, 10)))
    for message in listener.heard["segmentation/overlay/compressed"]:
        blue, green, red = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR).mean(axis=(0, 1))
        assert (red, green, blue) == pytest.approx((200, 100, 10), abs=4)
    # The strip has what is known by then: the times of the frame before, and the rate since the one before that.
    assert len(drawn) == (3 if overlays else 0)
    assert [times.processing for (_, times), _ in drawn] == [None, 1.0, 2.0][: len(drawn)]
    assert [fps is None for _, fps in drawn] == [True, True, False][: len(drawn)]
    for (_, fps), cycle in zip(drawn[2:], listener.heard["~/debug/cyclic_time_ms"], strict=False):
        assert fps == pytest.approx(1e3 / cycle.data)
    listener.wanted = None  # who comes while a frame is in work waits for the next, which has what was not made for it
    output.publish(PanopticResult(Frame(image, token=headers[0]), *shown), None, DRIVING)
    for kind in ("confidence", "lanes"):
        assert len(listener.heard[f"segmentation/{kind}"]) == (3 if f"segmentation/{kind}" in wanted else 0)
    output.close()
    assert not listener.open


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


@pytest.mark.parametrize("topic", ["/a", "/a/compressed"])
def test_what_is_done_with_a_message_that_has_come_is_not_its_transport(
    monkeypatch: pytest.MonkeyPatch, topic: str
) -> None:
    """It is in the time from reception to published, and would be in end_to_end twice."""
    listener, offered = Listener(), []

    def slow(message: Any) -> CameraImage:
        listener.elapsed_ns += 50_000_000
        return CameraImage.from_rgb(np.zeros((2, 2, 3), np.uint8))

    for view in ("camera_image", "compressed_image"):
        monkeypatch.setattr(f"drive_seg.ros.cameras.{view}", slow)
    config = load(lambda parameter: topic if parameter.name == "front.image_topic" else parameter.default)
    worker = SimpleNamespace(offer=offered.append)
    CameraInput(listener, config.cameras[0], config, worker, pytest.fail)  # type: ignore[arg-type]
    kind = CompressedImage if topic.endswith("compressed") else Image
    listener.handlers[topic](kind(header=Header(stamp=Time(sec=SECONDS))))
    assert offered[0].transport_ms == 3.0


@pytest.mark.parametrize(
    ("topic", "remapped", "jpeg"),
    [("/a/compressed", "/a/compressed", True), ("/a", "/b/compressed", True), ("/a", "/a", False)],
)
@pytest.mark.parametrize("calibration", ["", "/a/camera_info"])
def test_a_camera_subscribes_to_what_its_topics_carry_until_it_is_closed(
    topic: str, remapped: str, jpeg: bool, calibration: str
) -> None:
    listener, offered = Listener(remapped={topic: remapped}), []
    worker = SimpleNamespace(offer=offered.append)
    named = {"front.image_topic": topic, "front.camera_info_topic": calibration}
    config = load(lambda parameter: named.get(parameter.name, parameter.default))
    camera = CameraInput(listener, config.cameras[0], config, worker, pytest.fail)  # type: ignore[arg-type]
    kinds = {topic: CompressedImage if jpeg else Image} | ({calibration: CameraInfo} if calibration else {})
    assert {name: kind for kind, name in listener.open} == kinds and camera.listening
    if calibration:
        assert camera.info is None
        info = CameraInfo(width=3)
        listener.handlers[calibration](info)
        assert camera.info is info
    if jpeg:
        header = Header(stamp=Time(sec=SECONDS), frame_id="optical")
        listener.handlers[topic](CompressedImage(header=header, format="jpeg", data=array.array("B", b"abc")))
        assert camera.arrivals.only_one
        (frame,) = offered
        assert (frame.image.data.tobytes(), frame.image.format) == (b"abc", "jpeg")
        assert (frame.camera, frame.stamp_ns, frame.transport_ms, frame.token) == (
            "front",
            SECONDS * 10**9,
            3.0,
            header,
        )
    camera.close()
    assert not listener.open and not camera.listening


def test_what_is_refused_half_way_leaves_no_subscription() -> None:
    listener = Listener()
    config = load(lambda parameter: "/refused" if parameter.name == "front.camera_info_topic" else parameter.default)
    with pytest.raises(RuntimeError, match="no room"):
        CameraInput(listener, config.cameras[0], config, SimpleNamespace(), pytest.fail)  # type: ignore[arg-type]
    assert not listener.open


def test_a_camera_s_silence_is_measured_in_simulated_time_where_there_is_one() -> None:
    listener, config = Listener(), defaults()
    worker = SimpleNamespace(ledgers={"front": FrameLedger()}, offer=lambda frame: None)
    camera = CameraInput(listener, config.cameras[0], config, worker, lambda *_: None)  # type: ignore[arg-type]
    listener.handlers["/camera/image_raw"](Image())  # malformed, but it came
    assert camera.arrivals.only_one
    listener.elapsed_ns += 7_000_000_000
    assert camera.arrivals.quiet_s() < 7, "of the monotonic clock, which had no seven seconds"
    listener.simulated = True
    listener.handlers["/camera/image_raw"](Image())
    listener.elapsed_ns += 7_000_000_000
    assert camera.arrivals.quiet_s() == pytest.approx(7)


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
