"""The node as its users meet it: a process of its own, real messages over real DDS."""

from __future__ import annotations

import array
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="onnx is not installed")
rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from tiny_model import paint, write_tiny_model
from vision_msgs.msg import Detection2DArray, LabelInfo

from drive_seg.labels import DRIVING, PANOPTIC_UNLABELLED, mask_of
from drive_seg.resources import config_file
from drive_seg.ros.transport import PROFILE_VARIABLES

DOMAIN = 1 + os.getpid() % 100  # above 101 the ports of a domain are those the kernel hands out
TIMEOUT_S = 30.0
THINGS = [(3, 40, 60, 80, 50), (3, 200, 60, 60, 50), (4, 140, 60, 20, 60)]

SLOW_NODE = """
import sys, time
import numpy as np
from drive_seg.engines import FunctionEngine
from drive_seg.frame import RawOutputs
from drive_seg.labels import DRIVING
from drive_seg.pipeline import Pipeline
from drive_seg.ros.node import SegmentationNode
from drive_seg.ros.process import run

def network(batch):
    time.sleep(0.06)
    n, h, w, _ = batch.shape
    road = np.ones((n, h, w), np.uint8)
    heat, offsets = (np.zeros((n, c, h // 4, w // 4), np.float32) for c in (3, 2))
    return RawOutputs(road, road, heat, offsets)

def opener(config, allocate):
    return Pipeline(FunctionEngine(network, (64, 32)), DRIVING, allocate=allocate)

sys.exit(run(lambda: SegmentationNode(opener=opener)))
"""


class Peer:
    """A camera and every subscriber in one, and the node's process."""

    def __init__(self, *command: str) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = rclpy.create_node("peer", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.masks: dict[int, Image] = {}
        self.panoptics: dict[int, Image] = {}
        self.instances: dict[int, Detection2DArray] = {}
        self.diagnostics: list[DiagnosticArray] = []
        for kind, topic, store in (
            (Image, "mask", self.masks),
            (Image, "panoptic", self.panoptics),
            (Detection2DArray, "instances", self.instances),
        ):
            self.node.create_subscription(kind, f"/segmentation/{topic}", self._keep_in(store), 50)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, 10)
        self.camera = self.node.create_publisher(Image, "/camera/image_raw", 10)
        self.stamp = 0
        self.process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True)

    @staticmethod
    def _keep_in(store: dict[int, Any]) -> Callable[[Any], None]:
        return lambda message: store.__setitem__(message.header.stamp.sec, message)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + TIMEOUT_S
        while not (found := condition()):
            assert time.monotonic() < end, f"waited {TIMEOUT_S} s for {what}"
            self.executor.spin_once(timeout_sec=0.05)
        return found

    def wait_for_node(self) -> None:
        self.until(self.camera.get_subscription_count, "the node to subscribe")
        for topic in ("mask", "panoptic", "instances"):
            self.until(lambda topic=topic: self.node.count_publishers(f"/segmentation/{topic}"), topic)

    def image(self, pixels: NDArray[np.uint8], **fields: Any) -> Image:
        self.stamp += 1
        height, width = pixels.shape[:2]
        message = Image(height=height, width=width, encoding="rgb8", step=width * 3)
        message.header.stamp.sec, message.header.stamp.nanosec = self.stamp, 123456789
        message.header.frame_id = "front_optical"
        message.data = array.array("B", pixels.tobytes())
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    def send_until_served(self, pixels: NDArray[np.uint8]) -> int:
        """Best effort may lose an image: send anew until all three outputs of one are here; returns its stamp."""
        served: set[int] = set()

        def attempt() -> set[int]:
            self.camera.publish(self.image(pixels))
            end = time.monotonic() + 2.0
            while time.monotonic() < end and not served:
                self.executor.spin_once(timeout_sec=0.05)
                served.update(self.masks.keys() & self.panoptics.keys() & self.instances.keys())
            return served

        return max(self.until(attempt, "a frame to be served"))

    def status(self, name: str) -> DiagnosticStatus | None:
        for message in reversed(self.diagnostics):
            for status in message.status:
                if status.name.endswith(name):
                    return status
        return None

    def camera_counts(self) -> dict[str, int]:
        status = self.status("camera front")
        values = {} if status is None else {item.key: item.value for item in status.values}
        wanted = ("received", "published", "failed", "in_flight", "total_dropped_frames")
        return {key: int(value) for key, value in values.items() if key in wanted or key.startswith("dropped.")}

    def call(self, kind: Any, service: str, request: Any) -> Any:
        client = self.node.create_client(kind, service)
        self.until(client.service_is_ready, service)
        future = client.call_async(request)
        self.until(future.done, f"an answer of {service}")
        return future.result()

    def set_parameter(self, name: str, value: Any) -> Any:
        kinds = {
            bool: ("bool_value", ParameterType.PARAMETER_BOOL),
            float: ("double_value", ParameterType.PARAMETER_DOUBLE),
            int: ("integer_value", ParameterType.PARAMETER_INTEGER),
            str: ("string_value", ParameterType.PARAMETER_STRING),
        }
        field, number = kinds[type(value)]
        parameter = ParameterMsg(name=name, value=ParameterValue(type=number, **{field: value}))
        return self.call(
            SetParameters, "/drive_seg/set_parameters", SetParameters.Request(parameters=[parameter])
        ).results[0]

    def change_state(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, "/drive_seg/change_state", request).success)

    def state(self) -> str:
        return str(self.call(GetState, "/drive_seg/get_state", GetState.Request()).current_state.label)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=TIMEOUT_S)
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def node_command(model: Path | str, *parameters: str) -> list[str]:
    given = [f"model:={model}", "backend:=onnxruntime", *parameters]
    return ["-m", "drive_seg.ros.node", "--ros-args", *(word for item in given for word in ("-p", item))]


@pytest.fixture(scope="module", autouse=True)
def _apart_from_others() -> Iterator[None]:
    """A domain of this run's own on this machine, and shared memory that an image fits into."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        patch.setenv("ROS_LOCALHOST_ONLY", "1")  # the same for Humble
        for variable in PROFILE_VARIABLES:
            patch.setenv(variable, str(config_file("fastdds.xml")))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def peer(model: Path) -> Iterator[Peer]:
    peer = Peer(*node_command(model))
    try:
        peer.wait_for_node()
        yield peer
    finally:
        peer.close()


def pixels_of(message: Image) -> NDArray[Any]:
    kind = {"mono8": np.uint8, "16UC1": np.uint16}[message.encoding]
    return np.frombuffer(message.data, kind).reshape(message.height, message.width)


def test_outputs_keep_the_header_and_agree_with_each_other(peer: Peer) -> None:
    stamp = peer.send_until_served(paint(640, 384, [(c, 2 * x, 2 * y, 2 * w, 2 * h) for c, x, y, w, h in THINGS]))
    mask, panoptic, instances = peer.masks[stamp], peer.panoptics[stamp], peer.instances[stamp]
    for message in (mask, panoptic, instances):
        assert (message.header.stamp.nanosec, message.header.frame_id) == (123456789, "front_optical")
    assert (mask.width, mask.height) == (panoptic.width, panoptic.height) == (640, 384)
    ids = pixels_of(panoptic)
    np.testing.assert_array_equal(pixels_of(mask), mask_of(ids))
    things = {int(v) for v in np.unique(ids) if v >= 1000 and v != PANOPTIC_UNLABELLED}
    assert things == {int(detection.id) for detection in instances.detections}
    assert {3, 4} <= {value // 1000 for value in things}
    for detection in instances.detections:
        assert detection.header == instances.header
        rows, columns = np.nonzero(ids == int(detection.id))
        box = detection.bbox
        assert box.center.position.x - box.size_x / 2 == columns.min()
        assert box.center.position.x + box.size_x / 2 == columns.max() + 1
        assert box.center.position.y - box.size_y / 2 == rows.min()
        assert box.center.position.y + box.size_y / 2 == rows.max() + 1
        assert detection.results[0].hypothesis.class_id == DRIVING[int(detection.id) // 1000].name


def test_labels_reach_those_who_come_late(peer: Peer) -> None:
    found: list[LabelInfo] = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    peer.node.create_subscription(LabelInfo, "/segmentation/label_info", found.append, latched)
    peer.until(lambda: found, "label_info")
    assert [(c.class_id, c.class_name) for c in found[0].class_map] == [(x.id, x.name) for x in DRIVING]


def test_malformed_images_are_dropped_counted_and_survived(peer: Peer) -> None:
    good = paint(64, 48)
    bad = [
        {"data": array.array("B", bytes(10))},
        {"width": 0},
        {"encoding": "rainbow"},
        {"encoding": "16UC1"},
        {"step": 2**32 - 1},
        {"height": 2**31},
    ]
    for number, fields in enumerate(bad, start=1):

        def refused(number: int = number, fields: dict[str, Any] = fields) -> bool:
            if peer.camera_counts().get("dropped.malformed", 0) >= number:
                return True
            peer.camera.publish(peer.image(good, **fields))
            seen = len(peer.diagnostics)
            peer.until(lambda: len(peer.diagnostics) > seen, "/diagnostics")
            return False

        peer.until(refused, f"{list(fields)} to be dropped as malformed")
    peer.send_until_served(good)


def test_every_frame_is_accounted_for_when_the_camera_is_too_fast() -> None:
    peer = Peer("-c", SLOW_NODE)
    try:
        peer.wait_for_node()
        pixels = np.zeros((48, 64, 3), np.uint8)
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            peer.camera.publish(peer.image(pixels))
            tick = time.monotonic() + 0.03
            while time.monotonic() < tick:
                peer.executor.spin_once(timeout_sec=0.005)

        def drained() -> dict[str, int]:
            counts = peer.camera_counts()
            return counts if counts and counts["in_flight"] == 0 and len(peer.masks) == counts["published"] else {}

        seen = len(peer.diagnostics)
        peer.until(lambda: len(peer.diagnostics) > seen + 1, "/diagnostics after the last frame")
        counts = peer.until(drained, "the node to drain")
        assert counts["received"] == counts["published"] + counts["total_dropped_frames"] + counts["failed"]
        assert counts["dropped.superseded"] > 0
        assert counts["published"] > 10
        assert counts["failed"] == 0
    finally:
        peer.close()


def test_parameters_and_lifecycle(peer: Peer, model: Path, tmp_path: Path) -> None:
    assert peer.state() == "active"
    for name, value, reason in (
        ("score_threshold", 1.5, "score_threshold"),
        ("score_threshold", "high", ""),
        ("backend", "openvino", "configure"),
        ("no_such_parameter", 1, ""),
    ):
        answer = peer.set_parameter(name, value)
        assert not answer.successful
        assert reason in answer.reason
    assert peer.set_parameter("score_threshold", 0.5).successful
    other = write_tiny_model(tmp_path, "other", (160, 96))
    for _ in range(3):
        assert peer.change_state(Transition.TRANSITION_DEACTIVATE)
        assert peer.change_state(Transition.TRANSITION_CLEANUP)
        assert peer.state() == "unconfigured"
        assert peer.set_parameter("model", str(other)).successful
        assert peer.change_state(Transition.TRANSITION_CONFIGURE)
        assert peer.change_state(Transition.TRANSITION_ACTIVATE)
    threads = len(list(Path(f"/proc/{peer.process.pid}/task").iterdir()))
    for _ in range(3):
        for step in ("DEACTIVATE", "CLEANUP", "CONFIGURE", "ACTIVATE"):
            assert peer.change_state(getattr(Transition, f"TRANSITION_{step}"))
    assert len(list(Path(f"/proc/{peer.process.pid}/task").iterdir())) <= threads
    peer.wait_for_node()
    for store in (peer.masks, peer.panoptics, peer.instances):
        store.clear()
    peer.send_until_served(paint(64, 48))


def test_an_interrupt_ends_the_node_in_order(peer: Peer) -> None:
    peer.send_until_served(paint(64, 48))
    peer.process.send_signal(signal.SIGINT)
    assert peer.process.wait(timeout=TIMEOUT_S) == 0


def test_a_missing_model_is_an_error_state_not_a_crash(tmp_path: Path) -> None:
    peer = Peer(*node_command(tmp_path / "absent.yaml"))
    try:
        error = DiagnosticStatus.ERROR
        peer.until(lambda: (s := peer.status("engine")) is not None and s.level == error, "the error in /diagnostics")
        status = peer.status("engine")
        assert status is not None
        assert "absent.yaml" in status.message
        assert peer.state() == "unconfigured"
        assert peer.process.poll() is None
    finally:
        peer.close()


def test_under_simulated_time_what_cannot_be_compared_is_not_claimed(model: Path) -> None:
    peer = Peer(*node_command(model, "use_sim_time:=true"))
    latencies: list[DiagnosticArray] = []
    peer.node.create_subscription(DiagnosticArray, "/segmentation/latency", latencies.append, 10)
    try:
        peer.wait_for_node()
        peer.until(lambda: peer.node.count_publishers("/segmentation/latency"), "the latency topic")
        peer.until(lambda: peer.send_until_served(paint(64, 48)) and latencies, "a latency message")
        values = {item.key: item.value for item in latencies[-1].status[0].values}
        assert values["transport"] == values["end_to_end"] == "n/a"
        assert float(values["processing"]) > 0
    finally:
        peer.close()
