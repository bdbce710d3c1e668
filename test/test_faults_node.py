"""What goes wrong around a running node, over real DDS: engine, camera, model file, clock, namesake, supervisor."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import struct
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from peer import DOMAIN, TIMEOUT_S, Peer, by_second, node_command, pixels_of, serving
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tiny_model import paint, write_tiny_model
from vision_msgs.msg import Detection2DArray, LabelInfo

from drive_seg.errors import SourceError
from drive_seg.frame import split_id
from drive_seg.labels import DRIVING
from drive_seg.ros.ahead import Ahead, Drive
from drive_seg.ros.pictures import Picture
from drive_seg.ros.qos import LATCHED
from drive_seg.signals import requests_to_end
from drive_seg.sim import SimFrame, Simulator

OK, ERROR = DiagnosticStatus.OK, DiagnosticStatus.ERROR
GOOD, POISON, TAR = 0, 200, 100
"""The blue of images that the network of MOODY_NODE likes, fails on, gets stuck on."""

MOODY_NODE = """
import sys, time
from pathlib import Path
import numpy as np
from drive_seg.engines import FunctionEngine
from drive_seg.frame import RawOutputs
from drive_seg.labels import DRIVING
from drive_seg.pipeline import Pipeline
from drive_seg.ros.node import SegmentationNode
from drive_seg.ros.process import run

def network(batch):
    blue = batch[0, 16, 32, 2]
    if blue == 200:
        raise RuntimeError("device lost")
    while blue == 100 and not Path(sys.argv[1]).exists():
        time.sleep(0.01)
    n, h, w, _ = batch.shape
    road = np.ones((n, h, w), np.uint8)
    heat, offsets = (np.zeros((n, c, h // 4, w // 4), np.float32) for c in (3, 2))
    return RawOutputs(road, road, heat, offsets)

class Unwarmed(Pipeline):
    def warm_up(self, frames, rounds=1):  # with noise, of any blue
        pass

def opener(config, allocate):
    return Unwarmed(FunctionEngine(network, (64, 32)), DRIVING, allocate=allocate)

sys.exit(run(lambda: SegmentationNode(opener=opener), sys.argv))
"""


@contextmanager
def beside(peer: Peer, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Another process on the peer's domain."""
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path)


def picture(blue: int) -> NDArray[np.uint8]:
    image = np.zeros((64, 128, 3), np.uint8)
    image[..., 2] = blue
    return image


def until_status(peer: Peer, name: str, level: bytes, *, says: str = "") -> None:
    """Until /diagnostics has ``level`` for ``name``, with a reason."""

    def there() -> bool:
        status = peer.status(name)
        return status is not None and status.level == level and says in status.message

    peer.until(there, f"{name} to be {level!r}: {says}")


def publishers(peer: Peer) -> list[list[Any]]:
    """Who publishes masks, for each topic of them."""
    topics = [name for name, _ in peer.node.get_topic_names_and_types() if name.endswith("segmentation/mask")]
    return [peer.node.get_publishers_info_by_topic(name) for name in topics]


def check_accounts(peer: Peer) -> dict[str, int]:
    peer.await_drained()
    counts = peer.counts()
    assert counts["received"] == counts["published"] + counts["total_dropped_frames"] + counts["failed"]
    return counts


def test_an_engine_that_fails_or_is_stuck_is_reported_and_survived(tmp_path: Path) -> None:
    way_out = tmp_path / "way_out"
    with serving("-c", MOODY_NODE, str(way_out)) as peer:
        peer.send_until_served(picture(GOOD))

        def failing() -> bool:
            peer.front.send(picture(POISON))
            peer.pace(0.05)
            status = peer.status("camera front")
            return status is not None and status.level == ERROR and "failed in the last second" in status.message

        peer.until(failing, "frames to fail")
        peer.send_until_served(picture(GOOD))
        until_status(peer, "camera front", OK)
        assert check_accounts(peer)["failed"] > 0
        peer.send_until(
            picture(TAR), lambda: (peer.status("engine") or DiagnosticStatus()).level == ERROR, "a stuck engine",
            peer.front,
        )  # fmt: skip
        until_status(peer, "engine", ERROR, says="at work on one batch for")
        assert peer.state() == "active"
        way_out.touch()
        until_status(peer, "engine", OK)
        peer.send_until_served(picture(GOOD))
        check_accounts(peer)
        peer.process.send_signal(signal.SIGINT)
        assert "device lost" in peer.process.communicate(timeout=TIMEOUT_S)[1]


def test_what_is_in_work_when_the_node_is_deactivated_goes_out_with_its_calibration(tmp_path: Path) -> None:
    way_out, topic = tmp_path / "way_out", "/camera/camera_info"
    with serving("-c", MOODY_NODE, str(way_out), "--ros-args", "-p", f"front.camera_info_topic:={topic}") as peer:
        infos: dict[int, CameraInfo] = {}
        peer.node.create_subscription(CameraInfo, "/segmentation/camera_info", by_second(infos), 50)
        camera_info = peer.node.create_publisher(CameraInfo, topic, 10)

        def calibrated() -> set[int]:
            camera_info.publish(CameraInfo(width=128, height=64))
            return infos.keys() & peer.front.masks.keys()

        peer.send_until(picture(GOOD), calibrated, "a calibration", peer.front)
        peer.send_until(picture(TAR), lambda: peer.counts().get("in_flight"), "a frame in work", peer.front)
        peer.front.masks.clear()
        client = peer.node.create_client(ChangeState, "/drive_seg/change_state")
        peer.until(client.service_is_ready, "change_state")
        asked = client.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE)))
        peer.until(lambda: not peer.front.camera.get_subscription_count(), "the node to unsubscribe")
        peer.diagnostics.clear()
        until_status(peer, "engine", ERROR, says="at work on one batch for")
        until_status(peer, "camera front", OK, says="inactive")
        way_out.touch()
        peer.until(asked.done, "the node to be inactive")
        peer.until(lambda: peer.front.masks, "the mask of what was in work")
        peer.until(lambda: peer.front.masks.keys() <= infos.keys(), "its calibration")


def test_a_camera_that_is_killed_is_missed_and_welcome_back(model: Path) -> None:
    node = node_command(model, "expected_frequency:=20.0", "tolerance:=1.0")
    parameters = ("rate:=20.0", "width:=64", "height:=48", "prerender:=2")
    camera = ["-m", "drive_seg.ros.sim_camera", "--ros-args", *(w for item in parameters for w in ("-p", item))]
    with serving(*node) as peer:
        until_status(peer, "camera front", ERROR, says="no camera frame yet")
        arrived: list[float] = []
        peer.node.create_subscription(Image, "/segmentation/mask", lambda _: arrived.append(time.time()), 10)
        with beside(peer, *camera) as process:
            until_status(peer, "camera front", OK)
            peer.until(lambda: arrived, "masks")
            process.kill()
        until_status(peer, "camera front", ERROR, says="no camera frame for")

        def later() -> list[DiagnosticArray]:
            """What the node said from two periods after the last mask on."""
            return [d for d in peer.diagnostics if d.header.stamp.sec + d.header.stamp.nanosec / 1e9 > arrived[-1] + 2]

        late = peer.until(later, "/diagnostics two seconds after the last mask")
        assert {status.level for message in late for status in message.status if "camera" in status.name} == {ERROR}
        assert peer.process.poll() is None
        before = len(arrived)
        with beside(peer, *camera):
            until_status(peer, "camera front", OK)
            peer.until(lambda: len(arrived) > before, "masks of the new camera")


def camera_process(*arguments: str, **parameters: object) -> subprocess.CompletedProcess[str]:
    """``sim_camera`` from its start to its end."""
    given = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    command = [sys.executable, "-m", "drive_seg.ros.sim_camera", "--ros-args", *given, *arguments]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@pytest.mark.parametrize(
    ("content", "says"), [(b"no image", "is not an image"), (b"", "cannot be read"), (None, "cannot be read")]
)
def test_a_camera_whose_source_cannot_be_read_any_more_says_so_in_a_line(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    png = cv2.imencode(".png", picture(GOOD))[1].tobytes()
    enormous = png[:16] + struct.pack(">II", 60_000, 60_000) + png[24:29]
    enormous += struct.pack(">I", zlib.crc32(enormous[12:])) + png[33:]
    for name, data in (("1\udcff.png", png), ("2\udcff.png", enormous if content is None else content)):
        (tmp_path / name).write_bytes(data)  # names that are not UTF-8
    done = camera_process(source=tmp_path)
    assert done.returncode == 1 and f"2\ufffd.png {says}" in done.stderr
    assert "1 image sent" in done.stderr and "Traceback" not in done.stderr


def test_the_simulator_s_truth_names_its_classes_also_to_whoever_comes_late(model: Path) -> None:
    camera = [
        "-m",
        "drive_seg.ros.sim_camera",
        "--ros-args",
        "-p",
        "width:=64",
        "-p",
        "height:=32",
        "-p",
        "prerender:=2",
    ]
    with serving(*node_command(model)) as peer, beside(peer, *camera):
        peer.until(lambda: peer.front.masks, "masks of the camera's images")
        told: list[LabelInfo] = []
        peer.node.create_subscription(LabelInfo, "/camera/truth/label_info", told.append, LATCHED)
        peer.until(lambda: told, "the classes of the truth")
        assert {c.class_id: c.class_name for c in told[0].class_map} == {label.id: label.name for label in DRIVING}


def simulator(**parameters: object) -> list[str]:
    """Arguments of a Python that is ``sim_camera``, with an image of 64x48 unless it is told."""
    given = {"width": 64, "height": 48, "rate": 20.0, "weather": "clear", **parameters}
    words = [word for name, value in given.items() for word in ("-p", f"{name}:={value}")]
    return ["-m", "drive_seg.ros.sim_camera", "--ros-args", *words]


def test_what_a_camera_was_started_with_stays_and_is_not_said_to_change() -> None:
    with closing(Peer(*simulator(prerender=2))) as peer:
        for name, value in (("rate", 5.0), ("weather", "rain"), ("frames", 3)):
            answer = peer.set_parameter(name, value, "sim_camera")
            assert not answer.successful and "read-only" in answer.reason


def test_a_drive_goes_on_behind_what_was_rendered_ahead() -> None:
    first, held = 2, 3
    drive = Simulator(0, 64, 48, 20.0, "clear")
    frames: list[SimFrame] = []
    numbers: dict[bytes, int] = {}

    def number_of(image: bytes) -> int:
        while image not in numbers and len(frames) < 500:
            frames.append(drive.frame(len(frames)))
            numbers[frames[-1].image.tobytes()] = frames[-1].index
        return numbers[image]

    with closing(Peer(*simulator(prerender=first, hold=held))) as peer:
        shown: dict[str, int] = {}
        checked: set[str] = set()

        def on_image(message: Image) -> None:
            shown[str(message.header.stamp)] = number_of(pixels_of(message).tobytes())

        def truth(name: str, expected: Callable[[SimFrame], Any], got: Callable[[Any], Any]) -> Callable[[Any], None]:
            def on_truth(message: Any) -> None:
                number = shown.get(str(message.header.stamp))
                if number is not None:
                    np.testing.assert_array_equal(got(message), expected(frames[number]))
                    checked.add(name)

            return on_truth

        def ids(message: Detection2DArray) -> list[int]:
            return [split_id(detection.id)[0] for detection in message.detections]

        peer.node.create_subscription(Image, "/camera/image_raw", on_image, qos_profile_sensor_data)
        for name, kind, expected, got in (
            ("panoptic", Image, lambda frame: frame.panoptic, pixels_of),
            ("mask", Image, lambda frame: frame.mask, pixels_of),
            ("instances", Detection2DArray, lambda frame: [it.panoptic_id for it in frame.instances()], ids),
        ):
            topic = f"/camera/truth/{name}"
            peer.node.create_subscription(kind, topic, truth(name, expected, got), qos_profile_sensor_data)
        patient_until = time.monotonic() + 6 * TIMEOUT_S  # the renderers take what time nobody else wants
        while max(shown.values(), default=0) <= held and time.monotonic() < patient_until:
            peer.pace(0.5)
        assert max(shown.values()) > held, "nothing that was not rendered ahead"
        peer.until(lambda: len(checked) == 3, "the truth")
    order = list(shown.values())
    assert all(last - number < held for last, number in itertools.pairwise(order)), "it went back too far"


def test_every_seed_of_the_command_line_is_one_of_the_camera() -> None:
    done = camera_process(seed=2**63 - 1, width=64, height=48, frames=1)
    assert done.returncode == 0 and "1 image sent" in done.stderr


def living(mark: str) -> list[int]:
    """Processes with this in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # it ended meanwhile
            if folder.name.isdecimal() and mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="processes are looked for in /proc")
@pytest.mark.parametrize("how", ["interrupted", "killed", "without its renderers"])
def test_a_camera_that_renders_ahead_can_be_ended_and_leaves_nothing_behind(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = f"RENDERS_AHEAD={uuid.uuid4().hex}"
    monkeypatch.setenv(*mark.split("="))
    camera = simulator(prerender=1000, width=1920, height=1080)  # more than a minute
    with closing(Peer(*camera)) as peer:
        monkeypatch.undo()
        peer.until(lambda: "sim_camera" in peer.node.get_node_names(), "the camera's node")
        me = peer.process.pid
        renderers = peer.until(lambda: [pid for pid in living(mark) if pid != me], "those who render")
        if how == "without its renderers":
            for pid in renderers:
                os.kill(pid, signal.SIGKILL)
        else:
            peer.process.send_signal(signal.SIGINT if how == "interrupted" else signal.SIGKILL)
        _, said = peer.process.communicate(timeout=TIMEOUT_S)
        assert peer.process.returncode == {"interrupted": 0, "killed": -signal.SIGKILL}.get(how, 1)
        if how == "without its renderers":
            assert "the simulator's process ended" in said and "Traceback" not in said
        peer.until(lambda: not living(mark), "all to have ended")


def test_a_drive_that_cannot_be_kept_is_not_awaited_for_ever() -> None:
    def refuse(picture: Picture) -> None:
        raise MemoryError

    def wait(ahead: Ahead[None]) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not ahead.ready and time.monotonic() < end:
            time.sleep(0.01)

    why = pytest.raises(SourceError, match=r"a rendered image cannot be kept: MemoryError\(\)")
    with closing(Ahead(Drive(0, 64, 48, 20.0, "clear"), 2, 2, refuse)) as ahead, why:
        wait(ahead)


QOS = "qos_overrides./camera/image_raw.publisher"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("rate", "1.0e-10", "rate must be 0 or >= 1e-06, got 1e-10"),
        ("source", "\u00b2", "cannot open '\u00b2'"),
        ("source", "'99999999999'", "cannot open '99999999999'"),
        ("source", "~nobody_at_all/drive.mp4", "cannot open '~nobody_at_all/drive.mp4'"),
        ("source", 300 * "a", "File name too long" if sys.version_info < (3, 14) else "no such file"),
        ("use_sim_time", 1, "'use_sim_time' to '1'"),
        (f"{QOS}.reliability", "reliably", f"{QOS}.reliability must be one of"),
        (f"{QOS}.depth", -1, f"{QOS}.depth must be a number >= 0, got -1"),
        (f"{QOS}.durability", 1, f"{QOS}.durability must be one of"),
    ],
)
def test_a_camera_refuses_a_parameter_in_a_line(name: str, value: object, says: str) -> None:
    done = camera_process(**{"width": 64, "height": 32, name: value})
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert says in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("topic", ["mask", "label_info"])
def test_a_camera_whose_topic_is_refused_when_it_begins_says_which(topic: str) -> None:
    other_type = f"camera/truth/{topic}:=camera/camera_info"
    done = camera_process("-r", other_type, width=64, height=48, prerender=2)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "a publisher of /camera/camera_info cannot be created: " in done.stderr


def test_a_camera_that_begins_again_ends_where_nothing_of_its_video_can_be_decoded(tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    content = video.read_bytes()
    start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    video.write_bytes(content[:start] + bytes(end - start) + content[end:])
    done = camera_process(source=video, loop="true")
    assert done.returncode == 0 and "0 images sent" in done.stderr


def test_a_node_that_cannot_be_activated_says_why(model: Path) -> None:
    wrong = "qos_overrides./camera/image_raw.subscription.reliability:=somewhat"
    with closing(Peer(*node_command(model, wrong))) as peer:
        until_status(peer, "camera front", ERROR, says="subscription.reliability must be one of")
        assert peer.state() == "inactive"
        peer.change_state("cleanup", "configure")
        until_status(peer, "camera front", OK, says="inactive")


@pytest.mark.parametrize("parameter", ["image_topic", "camera_info_topic"])
def test_a_topic_that_substitutions_spoil_is_a_reason_and_no_crash(parameter: str, model: Path) -> None:
    with closing(Peer(*node_command(model, f"front.{parameter}:=/a/{{ns}}/topic"))) as peer:
        until_status(peer, "camera front", ERROR, says="activate failed: the topic /a/{ns}/topic cannot be created: ")
        assert peer.state() == "inactive"


def configure(peer: Peer) -> bool:
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    return bool(peer.call(ChangeState, "/drive_seg/change_state", request).success)


@pytest.mark.parametrize("digest_agrees", [False, True])
def test_a_model_that_became_garbage_is_refused_and_the_old_one_is_welcome_back(
    model: Path, digest_agrees: bool
) -> None:
    graph = model.with_suffix(".onnx")
    good = {path: path.read_bytes() for path in (model, graph)}
    with serving(*node_command(model)) as peer:
        peer.send_until_served(paint(64, 48))
        peer.change_state("deactivate", "cleanup")
        graph.write_bytes(b"garbage" * 100)
        if digest_agrees:
            card = yaml.safe_load(model.read_text())
            card["onnx"]["fp32"]["sha256"] = hashlib.sha256(graph.read_bytes()).hexdigest()
            model.write_text(yaml.safe_dump(card))
        for _ in range(2):
            assert not configure(peer)
            assert peer.state() == "unconfigured"
        until_status(peer, "engine", ERROR, says="tiny.onnx")
        for path, content in good.items():
            path.write_bytes(content)
        peer.change_state("configure", "activate")
        peer.wait_for_node()
        peer.send_until_served(paint(64, 48))
        until_status(peer, "engine", OK)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", sorted(set(requests_to_end()) - {signal.SIGINT}))
def test_a_node_under_load_ends_in_order_when_it_is_told_to(model: Path, number: int) -> None:
    with serving(*node_command(model)) as peer:
        peer.send_until_served(paint(64, 48))
        scene = paint(640, 384)
        for _ in range(50):
            peer.front.send(scene)
        peer.process.send_signal(number)

        def ended() -> bool:
            peer.front.send(scene)
            peer.pace(0.005)
            return peer.process.poll() is not None

        peer.until(ended, "the node to end while images keep coming")
        assert peer.process.returncode == 0
        assert "Traceback" not in peer.process.communicate(timeout=TIMEOUT_S)[1]
        group = os.getpgid(0)
        stats = [path.read_text().rsplit(")", 1)[1].split() for path in Path("/proc").glob("[0-9]*/stat")]
        assert not [stat for stat in stats if stat[0] == "Z" and int(stat[2]) == group]


def test_stamps_that_jump_back_and_images_that_change_their_size_and_encoding(model: Path) -> None:
    # At sizes and a network size between which nothing is interpolated.
    with serving(*node_command(model, "network_size:=model")) as peer:
        front = peer.front
        front.stamp = 1_000_000
        peer.send_until_served(paint(640, 384))
        front.stamp = 5

        def rate_by_stamps() -> bool:
            front.send(paint(64, 48))
            peer.pace(0.05)
            return float(peer.values("camera front").get("frame_rate_msg", 0)) > 0.3

        peer.until(rate_by_stamps, "a rate by the stamps since they jumped back (one second each)")
        assert min(front.masks) < 1000
        swapped = {"encoding": "bgr8"}
        for size, fields in (((320, 192), {}), ((640, 384), swapped), ((160, 192), {}), ((1280, 768), swapped)):
            scene = paint(*size, [(3, 40, 60, 80, 88)])
            before = front.stamp

            def sent(scene: NDArray[np.uint8] = scene, fields: dict[str, Any] = fields, before: int = before) -> int:
                front.send(np.ascontiguousarray(scene[..., ::-1]) if fields else scene, **fields)
                peer.pace(0.1)
                return max((stamp for stamp in front.served() if before < stamp < 1_000_000), default=0)

            stamp = peer.until(sent, f"{size} {fields}")
            mask, panoptic = front.masks[stamp], front.panoptics[stamp]
            assert (mask.width, mask.height) == (panoptic.width, panoptic.height) == size
            assert set(np.unique(pixels_of(mask))) == {1, 3}
            assert len(front.instances[stamp].detections) == 1
        front.send(paint(64, 48)[..., :1], encoding="mono8", step=64)
        check_accounts(peer)


def test_tracks_of_a_camera_without_stamps_age_by_the_time_its_images_come(model: Path) -> None:
    scene = paint(640, 384, [(3, 160, 120, 320, 200)])
    with serving(*node_command(model, "track_max_age_s:=0.5")) as peer:

        def track() -> int:
            peer.front.instances.clear()
            peer.until(shown, "an instance")
            (detection,) = peer.front.instances[0].detections
            return split_id(detection.id)[1] or 0

        def shown() -> bool:
            peer.front.send(scene, header=Header(frame_id="no stamp"))
            peer.pace(0.1)
            return 0 in peer.front.instances

        first = track()
        peer.pace(1.5)
        assert track() > first > 0
        assert peer.front.instances[0].header == Header(frame_id="no stamp")


def test_a_camera_is_not_missed_while_simulated_time_stands_still(model: Path) -> None:
    node = node_command(model, "use_sim_time:=true", "expected_frequency:=10.0", "tolerance:=1.0")
    with serving(*node) as peer:
        clock = peer.node.create_publisher(Clock, "/clock", 10)
        peer.until(clock.get_subscription_count, "the node to subscribe to /clock")
        now = Clock()

        def tick(*, with_image: bool) -> None:
            now.clock.nanosec += 100_000_000
            now.clock.sec, now.clock.nanosec = now.clock.sec + now.clock.nanosec // 10**9, now.clock.nanosec % 10**9
            clock.publish(now)
            if with_image:
                peer.front.send(paint(64, 48))
            peer.pace(0.05)

        def level() -> bytes:
            return (peer.status("camera front") or DiagnosticStatus(level=DiagnosticStatus.STALE)).level

        def running() -> bool:
            tick(with_image=True)
            return level() == OK and now.clock.sec >= 2

        peer.until(running, "a camera in simulated time")
        seen = len(peer.diagnostics)
        # With a second between them, the third speaks of more than the longest silence that is none, of a second.
        peer.until(lambda: len(peer.diagnostics) > seen + 2, "/diagnostics while simulated time stands still")
        camera = [s for d in peer.diagnostics[seen + 1 :] for s in d.status if s.name.endswith("camera front")]
        assert {status.level for status in camera} == {OK}, [status.message for status in camera]
        peer.send_until_served(paint(64, 48))

        def missed() -> bool:
            tick(with_image=False)
            return level() == ERROR

        peer.until(missed, "a camera that is silent in simulated time to be missed")


def test_two_nodes_of_one_name_are_warned_of_and_go_on(model: Path) -> None:
    with serving(*node_command(model)) as peer:
        until_status(peer, "node", OK)
        with beside(peer, *node_command(model)) as other:
            until_status(peer, "node", DiagnosticStatus.WARN, says="2 nodes are called /drive_seg")
            warned = peer.status("node")
            own = str(peer.process.pid)  # both publish this status; the one that goes on must have seen it too
            peer.until(lambda: peer.values("node") == {"pid": own, "namesakes": "1"}, "the first node's own warning")
            peer.send_until_served(paint(64, 48))
            other.send_signal(signal.SIGINT)
            assert other.wait(timeout=TIMEOUT_S) == 0
        until_status(peer, "node", OK)
        peer.send_until_served(paint(64, 48))
        assert peer.process.poll() is None
        assert warned is not None
        peer.until(lambda: sum(map(len, publishers(peer))) == 1, "the end of the second node's masks")
        with beside(peer, *node_command(model), *warned.message.partition("--ros-args ")[2].split()):
            peer.until(lambda: sum(map(len, publishers(peer))) == 2, "the masks of a second node that took the advice")
            assert sorted(map(len, publishers(peer))) == [1, 1], "they are mixed"
        peer.process.send_signal(signal.SIGINT)
        said = peer.process.communicate(timeout=TIMEOUT_S)[1]
        assert said.count("2 nodes are called /drive_seg") == 1
