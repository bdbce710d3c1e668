"""The node as its users meet it: a process of its own, real messages over real DDS."""

from __future__ import annotations

import array
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from peer import TIMEOUT_S, Peer, node_command, pixels_of, serving, stay_apart
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64
from tiny_model import paint, write_tiny_model
from vision_msgs.msg import LabelInfo

from drive_seg.frame import split_id
from drive_seg.labels import DRIVING, PANOPTIC_UNLABELLED, mask_of

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


LATE_NODE = SLOW_NODE.replace(
    "def opener(config, allocate):",
    """def opener(config, allocate):
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.01)""",
).replace("import sys, time", "import os, sys, time")
"""Its engine opens once there is the file that it is told."""

OWN_SPIN = (
    SLOW_NODE[: SLOW_NODE.index("sys.exit")]
    + """
import threading, time
import rclpy

def ours():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("drive_seg")]

rclpy.init()
node = SegmentationNode(opener=opener)
end = time.monotonic() + 30
while not node.count_subscribers("/camera/image_raw") and time.monotonic() < end:
    rclpy.spin_once(node, timeout_sec=0.1)
print(ours())
node.destroy_node()
print(ours())
rclpy.try_shutdown()
"""
)
"""A main of somebody else's, that treats the node as any other."""

ROS_FIRST = OWN_SPIN.replace("time.sleep(0.06)", "time.sleep(2.5 if batch[..., 2].all() else 0)").replace(
    "print(ours())\nnode.destroy_node()",
    """from sensor_msgs.msg import Image
camera = rclpy.create_node("camera").create_publisher(Image, "/camera/image_raw", 1)
image = Image(height=32, width=64, encoding="rgb8", step=192, data=b"\\xff" * 6144)
while not node.session.worker.busy_s and time.monotonic() < end:
    camera.publish(image)
    rclpy.spin_once(node, timeout_sec=0.1)
print(ours())
rclpy.shutdown()  # as its handler of Ctrl-C does
node.destroy_node()""",
)
"""Another, that shuts ROS down while the engine has a batch that takes it seconds."""


@pytest.fixture
def peer(model: Path) -> Iterator[Peer]:
    with serving(*node_command(model)) as peer:
        yield peer


def test_outputs_keep_the_header_and_agree_with_each_other(peer: Peer) -> None:
    front = peer.front
    stamp = peer.send_until_served(paint(640, 384, [(c, 2 * x, 2 * y, 2 * w, 2 * h) for c, x, y, w, h in THINGS]))
    mask, panoptic, instances = front.masks[stamp], front.panoptics[stamp], front.instances[stamp]
    for message in (mask, panoptic, instances):
        assert (message.header.stamp.nanosec, message.header.frame_id) == (123456789, "front_optical")
    assert (mask.width, mask.height) == (panoptic.width, panoptic.height) == (640, 384)
    ids = pixels_of(panoptic)
    np.testing.assert_array_equal(pixels_of(mask), mask_of(ids))
    things = {int(v) for v in np.unique(ids) if v >= 1000 and v != PANOPTIC_UNLABELLED}
    named = {detection.id: split_id(detection.id) for detection in instances.detections}
    assert things == {value for value, _ in named.values()}
    tracks = [track for _, track in named.values()]
    assert None not in tracks and len(set(tracks)) == len(tracks)
    assert {3, 4} <= {value // 1000 for value in things}
    for detection in instances.detections:
        assert detection.header == instances.header
        value = named[detection.id][0]
        rows, columns = np.nonzero(ids == value)
        box = detection.bbox
        assert box.center.position.x - box.size_x / 2 == columns.min()
        assert box.center.position.x + box.size_x / 2 == columns.max() + 1
        assert box.center.position.y - box.size_y / 2 == rows.min()
        assert box.center.position.y + box.size_y / 2 == rows.max() + 1
        assert detection.results[0].hypothesis.class_id == DRIVING[value // 1000].name
    assert peer.set_parameter("tracking", False).successful
    stamp = peer.send_until_served(paint(640, 384, [(3, 200, 200, 100, 80)]))
    assert [detection.id for detection in front.instances[stamp].detections] == ["3001"]


def test_labels_reach_those_who_come_late(peer: Peer) -> None:
    found: list[LabelInfo] = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    peer.node.create_subscription(LabelInfo, "/segmentation/label_info", found.append, latched)
    peer.until(lambda: found, "label_info")
    assert [(c.class_id, c.class_name) for c in found[0].class_map] == [(x.id, x.name) for x in DRIVING]
    assert found[0].threshold == pytest.approx(0.3)
    assert peer.set_parameter("score_threshold", 0.5).successful
    peer.until(lambda: found[-1].threshold == pytest.approx(0.5), "label_info with the new threshold")
    assert found[-1].class_map == found[0].class_map


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

    def malformed() -> int:
        return peer.counts().get("dropped.malformed", 0)

    pause = 0.05

    def all_refused() -> bool:
        """A round in which every one of them arrived, none took another's place, and each was refused."""
        nonlocal pause
        before = malformed()
        for fields in bad:
            peer.front.send(good, **fields)
            peer.pace(pause)
        pause = min(1.0, 2 * pause)  # of a node that is slower than they come, the subscription keeps the last
        seen = len(peer.diagnostics)
        peer.until(lambda: malformed() == before + len(bad) or len(peer.diagnostics) > seen + 2, "/diagnostics")
        return malformed() == before + len(bad)

    peer.until(all_refused, "all of them to be dropped as malformed")
    peer.send_until_served(good)
    peer.until(lambda: peer.counts()["in_flight"] == 0, "every frame to have its fate")
    counts = peer.counts()
    assert counts["received"] == counts["published"] + counts["total_dropped_frames"]


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
    for name, value in (("backend", "onnxruntime"), ("cameras", ["front"]), ("front.image_topic", "/camera/image_raw")):
        assert peer.set_parameter(name, value).successful, f"{name} is that already"  # `ros2 param load` of a dump
    # Who is refused is told steps that an active node takes, in this order.
    steps = re.findall(r"deactivate|cleanup|\bconfigure`|activate`$", peer.set_parameter("model", "x").reason)
    assert steps == ["deactivate", "cleanup", "configure`", "activate`"]
    other = write_tiny_model(tmp_path, "other", (160, 96))
    again = ("deactivate", "cleanup", "configure", "activate")
    for _ in range(3):
        peer.change_state(*again[:2])
        assert peer.state() == "unconfigured"
        assert peer.set_parameter("model", str(other)).successful
        peer.change_state(*again[2:])
    threads = peer.threads()
    for _ in range(3):
        peer.change_state(*again)
    assert peer.threads() <= threads
    peer.wait_for_node()
    peer.send_until_served(paint(64, 48))


def test_the_time_that_a_node_is_inactive_is_no_cycle(peer: Peer) -> None:
    times: dict[str, list[float]] = {"processing": [], "cyclic": []}
    for name, seen in times.items():
        topic = f"/drive_seg/debug/{name}_time_ms"
        peer.node.create_subscription(Float64, topic, lambda message, seen=seen: seen.append(message.data), 50)

    def two_frames() -> bool:
        peer.front.send(paint(64, 48))
        peer.pace(0.05)
        return len(times["cyclic"]) > before["cyclic"]

    for _ in range(3):
        peer.wait_for_node()
        before = {name: len(seen) for name, seen in times.items()}
        peer.until(two_frames, "a cycle")
        peer.change_state("deactivate")  # returns when the last frame is out
        peer.pace(0.2)
        new = {name: len(seen) - before[name] for name, seen in times.items()}
        if before["processing"]:  # the first messages of all may not have found us yet
            assert new["cyclic"] == new["processing"] - 1, "the first frame ends none"
        peer.change_state("activate")


def test_without_autostart_it_waits_to_be_configured(model: Path) -> None:
    with closing(Peer(*node_command(model, "autostart:=false"))) as peer:

        def says(message: str) -> None:
            def said() -> bool:
                for report in peer.diagnostics[seen:]:
                    (engine,) = (state for state in report.status if state.name.endswith(": engine"))
                    if engine.message.startswith(message):
                        return True
                return False

            seen = len(peer.diagnostics)
            peer.until(said, f"/diagnostics to say {message}")

        says("not configured")
        assert peer.state() == "unconfigured"
        assert not peer.set_parameter("autostart", True).successful, "it is too late for that"
        peer.change_state("configure")
        assert peer.state() == "inactive"
        says("onnxruntime")
        peer.change_state("cleanup")
        says("not configured")


def test_a_transition_that_is_not_possible_now_is_refused_and_survived(peer: Peer) -> None:
    # What a lifecycle manager asks of a node that has configured and activated itself.
    assert not peer.request_state("configure")
    assert not peer.request_state("activate")
    assert not peer.request_state("cleanup")
    assert peer.state() == "active"
    peer.send_until_served(paint(64, 48))
    peer.change_state("deactivate")
    assert not peer.request_state("configure")
    assert peer.state() == "inactive"
    assert peer.process.poll() is None
    peer.process.terminate()
    said = peer.process.communicate(timeout=TIMEOUT_S)[1]
    found = re.findall(r"transition (\w+) is not possible now: the node is (\w+)", said)
    assert found == [(name, "active") for name in ("configure", "activate", "cleanup")] + [("configure", "inactive")]


def test_qos_follows_its_parameters_and_overrides_stand_above_them(model: Path) -> None:
    overridden = "qos_overrides./segmentation/panoptic.publisher.reliability:=best_effort"
    peer = Peer(*node_command(model, overridden))

    def reliable(topic: str, publishers: bool) -> set[bool]:
        find = peer.node.get_publishers_info_by_topic if publishers else peer.node.get_subscriptions_info_by_topic
        ends = [end for end in find(topic) if end.node_name == "drive_seg"]
        return {end.qos_profile.reliability == ReliabilityPolicy.RELIABLE for end in ends}

    def all_ends() -> tuple[set[bool], ...]:
        outputs = (reliable(f"/segmentation/{name}", True) for name in ("mask", "panoptic"))
        return reliable("/camera/image_raw", False), *outputs

    try:
        peer.until(lambda: all_ends() == ({False}, {True}, {False}), "the defaults")
        peer.change_state("deactivate", "cleanup")
        assert peer.set_parameter("input_qos", "DEFAULT").successful
        assert peer.set_parameter("output_qos", "SENSOR_DATA").successful
        peer.change_state("configure", "activate")
        peer.until(lambda: all_ends() == ({True}, {False}, {False}), "what the parameters say")
    finally:
        peer.close()


def test_cameras_may_be_named_while_the_node_runs(model: Path) -> None:
    named_before = "left.image_topic:=/port/image_raw", "rear.image_topic:=5"
    cameras = {"left": "/port/image_raw", "right": "/right/image_raw"}
    with closing(Peer(*node_command(model, *named_before), cameras=cameras)) as peer:
        peer.until(lambda: peer.state() == "active", "the node")
        assert not peer.set_parameter("cameras", ["left", "right"]).successful  # not while it is configured
        peer.change_state("deactivate", "cleanup")
        assert not peer.set_parameter("cameras", ["left", "left"]).successful
        for _ in range(2):
            assert "rear.image_topic" in peer.set_parameter("cameras", ["rear"]).reason
        assert peer.set_parameter("cameras", ["left", "right"]).successful
        peer.change_state("configure", "activate")
        for feed in peer.feeds.values():
            peer.until(feed.camera.get_subscription_count, f"the node to subscribe to {feed.name}")
            peer.send_until_served(paint(64, 48), feed)
        peer.process.terminate()
        said = peer.process.communicate(timeout=TIMEOUT_S)[1]
        assert "parameter 'left.image_topic' has no effect while 'cameras' has no 'left'" in said
        assert "unknown and ignored" not in said, "it was used above"


def test_what_fails_half_way_leaves_no_subscription_behind(peer: Peer) -> None:
    peer.change_state("deactivate", "cleanup")
    peer.until(lambda: not peer.front.camera.get_subscription_count(), "the camera to be alone")
    refused = peer.set_parameter("front.camera_info_topic", "no topic!")
    assert not refused.successful and "no topic!" in refused.reason
    # The images' own topic: one of two types is refused.
    assert peer.set_parameter("front.camera_info_topic", "/camera/image_raw").successful
    peer.change_state("configure")
    assert not peer.request_state("activate")
    peer.pace(0.5)  # a subscription that had stayed would have been found by now
    assert peer.front.camera.get_subscription_count() == 0
    assert peer.state() == "inactive"
    which = "activate failed: a subscription of /camera/image_raw cannot be created: "
    peer.until(lambda: (s := peer.status("camera front")) and which in s.message, "which one, in /diagnostics")
    peer.change_state("cleanup")
    assert peer.set_parameter("front.camera_info_topic", "").successful
    peer.change_state("configure", "activate")
    peer.wait_for_node()
    peer.send_until_served(paint(64, 48))


def test_an_interrupt_ends_the_node_in_order(peer: Peer) -> None:
    peer.send_until_served(paint(64, 48))
    peer.process.send_signal(signal.SIGINT)
    assert peer.process.wait(timeout=TIMEOUT_S) == 0


def test_an_interrupt_that_is_repeated_until_the_process_is_gone_ends_it_in_order_too(peer: Peer) -> None:
    end = time.monotonic() + 1.5  # patience ends after two seconds
    while peer.process.poll() is None and time.monotonic() < end:
        peer.process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    assert peer.process.wait(timeout=TIMEOUT_S) == 0


@pytest.mark.parametrize("main", [OWN_SPIN, ROS_FIRST], ids=["in order", "after ROS"])
def test_a_node_that_is_destroyed_while_active_leaves_nothing_at_work(
    main: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_apart(monkeypatch)
    done = subprocess.run([sys.executable, "-c", main], capture_output=True, text=True, timeout=2 * TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['drive_seg_worker']", "[]"]


@pytest.mark.parametrize(
    "wrong", [("--params-file", "absent.yaml"), ("-r", "__ns:=relative"), ("--no-such-option",)], ids=lambda w: w[0]
)
def test_arguments_that_ros_does_not_take_are_one_clear_end(wrong: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "drive_seg.ros.node", "--ros-args", *wrong]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "the ROS arguments are refused" in done.stderr and wrong[-1] in done.stderr


def test_security_that_cannot_be_had_is_one_clear_end(tmp_path: Path) -> None:
    (tmp_path / "enclaves").mkdir()
    secured = {"ENABLE": "true", "STRATEGY": "Enforce", "KEYSTORE": str(tmp_path)}
    environment = os.environ | {f"ROS_SECURITY_{name}": value for name, value in secured.items()}
    command = [sys.executable, "-m", "drive_seg.ros.node"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "the node cannot be created" in done.stderr and "docs/security.md" in done.stderr


def test_a_missing_model_is_an_error_state_not_a_crash(tmp_path: Path) -> None:
    with closing(Peer(*node_command(tmp_path / "absent.yaml"))) as peer:
        error = DiagnosticStatus.ERROR
        peer.until(lambda: (s := peer.status("engine")) is not None and s.level == error, "the error in /diagnostics")
        status = peer.status("engine")
        assert status is not None
        assert "absent.yaml" in status.message
        assert peer.state() == "unconfigured"
        assert peer.process.poll() is None


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


def test_diagnostics_go_on_while_an_engine_takes_long_to_open(tmp_path: Path) -> None:
    with closing(Peer("-c", LATE_NODE, str(tmp_path / "way_out"))) as peer:

        def said() -> list[str]:
            states = (state for array in peer.diagnostics for state in array.status)
            return [state.message for state in states if state.name.endswith(": engine")]

        peer.until(lambda: sum(text.startswith("opening the engine, ") for text in said()) >= 2, "signs of life")
        (tmp_path / "way_out").touch()
        peer.until(lambda: said()[-1].startswith("function"), "the engine")


def test_what_an_engine_says_while_it_is_built_is_in_the_nodes_log() -> None:
    """Python keeps to itself what nobody has asked for; TensorRT's builder takes minutes."""
    says = 'logging.getLogger("drive_seg.engines.planned").info("building it, 10 s so far")'
    program = SLOW_NODE.replace("import sys", "import logging, sys", 1).replace(
        "def opener(config, allocate):", f"def opener(config, allocate):\n    {says}"
    )
    with closing(Peer("-c", program)) as peer:
        peer.wait_for_node()
        peer.process.terminate()
        assert "[drive_seg]: building it, 10 s so far" in peer.process.communicate(timeout=TIMEOUT_S)[1]
