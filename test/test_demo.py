"""The demo from outside, over real DDS: its files, its accounts, and that nothing of it stays behind."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import HEIGHT, WIDTH, write_bag, write_video

from drive_seg.frame import StageTimes
from drive_seg.machine import ros_distro
from drive_seg.telemetry import FrameCounts, Percentiles

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from peer import stay_apart
from rclpy.node import Node
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from drive_seg.demo import children, spool
from drive_seg.demo.children import Child
from drive_seg.demo.display import LiveDisplay, PlainDisplay, open_display
from drive_seg.demo.player import _images
from drive_seg.demo.render import plot_latency, render_video
from drive_seg.demo.session import _Show, at_most, ros_arguments
from drive_seg.demo.spool import Spool, from_runs, runs_of
from drive_seg.demo.watch import Arrivals, NodeState, SeenFrame, Watcher
from drive_seg.errors import DriveSegError
from drive_seg.frame import Box, CameraImage, Instance, Lane
from drive_seg.labels import DRIVING
from drive_seg.offline.sources import open_source
from drive_seg.ros.convert import ImageBuffer, detections
from drive_seg.ros.lanes import cloud
from drive_seg.ros.pictures import open_pictures
from drive_seg.ros.publishers import latency_message

SUMMARY_KEYS = {"frames", "fps", "latency_ms", "backend", "precision", "model", "in_flight", "versions", "warnings"}
MARK = "DRIVE_SEG_TEST_MARK"


class Demo:
    """Starts demos on a ROS domain of their own, and finds processes that they leave behind."""

    def __init__(self, model: Path, out: Path) -> None:
        self.out = out
        self._mark = uuid.uuid4().hex
        self._model = model
        domain = str(60 + os.getpid() % 40)
        self.environment = {**os.environ, MARK: self._mark, "ROS_DOMAIN_ID": domain, "PYTHONUNBUFFERED": "1"}

    def start(
        self, *arguments: object, program: tuple[str, str] = ("-m", "drive_seg"), pipe: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        given = ["--out", self.out, "--model", self._model, "--backend", "onnxruntime", *arguments]
        command = [sys.executable, *program, "demo", *map(str, given)]
        return subprocess.Popen(command, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, *arguments: object, code: int = 0) -> tuple[dict, str]:
        """The object of ``--json``, and stderr."""
        process = self.start("--json", *arguments)
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == code, f"{stdout}\n{stderr}"
        return (json.loads(stdout.splitlines()[-1]) if stdout else {}), stderr

    def left_behind(self) -> list[int]:
        """Ids of living processes that carry our mark in their environment."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdecimal() and self._mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:  # it ended meanwhile
                continue
        return found


@pytest.fixture
def demo(model: Path, tmp_path: Path) -> Iterator[Demo]:
    made = Demo(model, tmp_path / "out")
    yield made
    if Path("/proc").is_dir():
        assert wait_for(lambda: not made.left_behind(), 20.0), f"still running: {made.left_behind()}"


def waits_for_signal(process: int, number: int) -> bool:
    """Whether it was sent one that it has not been given yet."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    (pending,) = [line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd:")]
    return bool(int(pending, 16) >> (number - 1) & 1)


def wait_for(done: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    return done()


def check_results(out: Path, size: tuple[int, int]) -> dict:
    """The three files; returns the summary."""
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary) == SUMMARY_KEYS
    frames = summary["frames"]
    assert frames["received"] == frames["published"] + sum(frames["dropped"].values()) + frames["failed"]
    assert frames["published"] > 0 and frames["failed"] == 0
    assert summary["model"] == "tiny" and summary["backend"] == "onnxruntime" and summary["precision"] == "fp32"
    assert {"inference", "processing", "end_to_end"} <= set(summary["latency_ms"])
    whole = summary["latency_ms"]["end_to_end"]
    assert 0 < whole["p50"] <= whole["p95"] <= whole["p99"] <= whole["max"]
    video = cv2.VideoCapture(str(out / "overlay.mp4"))
    ok, image = video.read()
    assert ok and (image.shape[1], image.shape[0]) == size
    plot = cv2.imread(str(out / "latency.png"))
    assert plot is not None and plot.std() > 1
    return summary


def test_the_main_job(demo: Demo) -> None:
    printed, _ = demo.run("--seconds", 4, "--rate", 10)
    summary = check_results(demo.out, (1280, 720))
    assert {key: printed[key] for key in summary} == summary
    assert printed["first_mask_s"] > 0
    # Every image that the camera sent reached the node, but for those before the two knew of each other.
    assert 25 <= summary["frames"]["received"] <= printed["camera_sent"]
    assert 5 <= printed["video_frames"] <= summary["frames"]["published"]
    assert summary["versions"]["ros"] != "none"


def test_a_recording_is_played_as_a_camera_and_ends_the_demo(demo: Demo, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", 12)
    started = time.monotonic()
    printed, _ = demo.run("--source", tmp_path / "in.mp4", "--seconds", 120)
    assert time.monotonic() - started < 100
    check_results(demo.out, (WIDTH, HEIGHT))
    assert printed["camera_sent"] == 12


def test_on_a_terminal_something_moves_while_it_waits_and_the_tables_stay(demo: Demo, tmp_path: Path) -> None:
    write_video(tmp_path / "drive.mp4", 30)
    ours, theirs = os.openpty()
    demo.environment |= {"TERM": "xterm", "COLUMNS": "80"}
    process = demo.start("--source", tmp_path / "drive.mp4", "--seconds", 2, "--loop", pipe=theirs)
    os.close(theirs)
    screen = b""
    with suppress(OSError):  # which is how a terminal ends
        while data := os.read(ours, 1 << 16):
            screen += data
    os.close(ours)
    assert process.wait(60) == 0, screen
    assert b"waiting for the camera's topic, 0 s" in screen
    before, found, after = screen.rpartition(b"waiting for the last frames, ")
    assert found and b"/segmentation/mask" in before and b"received" in after and b"/segmentation/mask" in after


def test_a_recording_that_is_cut_short_is_shown_as_far_as_it_goes(demo: Demo, tmp_path: Path) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    file = write_bag(tmp_path / "in", 20)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    _, stderr = demo.run("--source", file, "--seconds", 60)
    check_results(demo.out, (WIDTH, HEIGHT))
    assert len([line for line in stderr.splitlines() if "warning: camera: bag" in line and "cut short" in line]) == 1


def test_a_bag_with_a_chosen_topic_goes_round_until_the_time_is_up(demo: Demo, tmp_path: Path) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_bag(tmp_path / "in", 5, topic="/left/image_raw", others=("/right/image_raw",))
    source = ("--source", tmp_path / "in", "--topic", "/right/image_raw")
    printed, _ = demo.run(*source, "--loop", "--rate", 20, "--seconds", 2)
    check_results(demo.out, (WIDTH, HEIGHT))
    assert printed["camera_sent"] > 20


def test_a_rate_that_no_timer_has_is_bad_usage(demo: Demo) -> None:
    _, stderr = demo.run("--rate", "1e-10", code=2)
    assert "--rate must be 0 or >= 1e-06" in stderr


def test_what_the_node_complains_about_is_the_error(demo: Demo, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", 5)
    _, stderr = demo.run("--source", tmp_path / "in.mp4", "--backend", "tensorrt", code=1)
    (line,) = [line for line in stderr.splitlines() if "error:" in line]
    assert "backend tensorrt is unavailable" in line
    assert "Traceback" not in stderr


def test_that_somebody_else_is_a_camera_too_is_said_beside_the_figures(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_apart(monkeypatch)
    write_video(tmp_path / "in.mp4", 30)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=int(demo.environment["ROS_DOMAIN_ID"]))
    other = rclpy.create_node("other", context=context)
    try:
        other.create_publisher(Image, "/camera/image_raw", 1)
        process = demo.start("--source", tmp_path / "in.mp4", "--loop", "--seconds", 5)
        _, stderr = process.communicate(timeout=120)
        assert "somebody else publishes /camera/image_raw on ROS domain" in stderr
        # It does without figures where the two cameras come into view together.
        assert process.returncode == 1 or "warning: the figures are not of this demo alone" in stderr
    finally:
        other.destroy_node()
        rclpy.shutdown(context=context)


def test_ctrl_c_ends_it_in_order_with_its_results(demo: Demo, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", 30)
    process = demo.start("--source", tmp_path / "in.mp4", "--loop", "--seconds", 600)
    assert process.stdout is not None
    for line in process.stdout:
        if "mask" in line and "Hz" in line and "first" not in line:
            break
    time.sleep(1.0)  # something to show
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, f"{stdout}\n{stderr}"
    check_results(demo.out, (WIDTH, HEIGHT))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="finds the node's process in /proc")
def test_a_node_that_freezes_makes_no_good_figures(demo: Demo, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", 30)
    process = demo.start("--source", tmp_path / "in.mp4", "--loop", "--rate", 10, "--seconds", 6)
    assert process.stdout is not None
    assert any("first mask" in line for line in process.stdout)
    time.sleep(1.5)
    (node,) = [pid for pid in demo.left_behind() if b"drive_seg.ros.node" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(node, signal.SIGSTOP)
    try:
        # Until the demo, which can wait no longer, tells it to end; a node that has to be killed leaves memory behind.
        assert wait_for(lambda: waits_for_signal(node, signal.SIGINT), 60)
    finally:
        os.kill(node, signal.SIGCONT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0 and "the node has said nothing for 5 s" in stderr, stderr
    assert "does not keep up" in stdout and "did not reach the node" in stdout, stdout
    summary = json.loads((demo.out / "summary.json").read_text())
    assert summary["fps"] < 8, "not that of the time before it froze"
    assert all(f"warning: {line}" in " ".join(stderr.split()) for line in summary["warnings"])
    assert any("the node has said nothing" in line for line in summary["warnings"])


@pytest.mark.skipif(ros_distro() == "humble", reason="knows no range of discovery")
def test_processes_that_cannot_find_each_other_are_said_early(demo: Demo, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", 5)
    script = "from drive_seg import cli; from drive_seg.demo import session; session._DISCOVERY_S = 1; cli.main()"
    demo.environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "OFF"
    process = demo.start("--source", tmp_path / "in.mp4", program=("-c", script))
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in stderr
    assert "do not find each other" in stderr and "it is OFF" in stderr, stderr


def test_ctrl_c_while_the_video_is_drawn_ends_it(demo: Demo, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", 5)
    # In short naps: a signal that comes just before a long one would wait for its end.
    draw_for_ever = (
        "session.render_video = lambda *_: print('drawing', flush=True) or [*map(time.sleep, [0.01] * 60_000)]"
    )
    script = f"import time; from drive_seg import cli; from drive_seg.demo import session; {draw_for_ever}; cli.main()"
    process = demo.start("--source", tmp_path / "in.mp4", program=("-c", script))
    try:
        assert process.stdout is not None and "drawing\n" in process.stdout
        process.send_signal(signal.SIGTERM)  # taken as Ctrl-C, which children of a background job may not hear
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    (line,) = [line for line in stderr.splitlines() if "error:" in line]
    assert process.returncode == 1 and "interrupted" in line and "Traceback" not in stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends children with their parent")
def test_children_end_with_a_parent_that_was_killed(demo: Demo, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", 30)
    process = demo.start("--source", tmp_path / "in.mp4", "--loop", "--seconds", 600)
    assert process.stdout is not None
    assert any("first mask" in line for line in process.stdout)
    assert len(demo.left_behind()) >= 3
    process.kill()
    process.communicate(timeout=60)
    assert wait_for(lambda: not demo.left_behind(), 20.0)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a place where nobody may write, root included")
def test_that_its_folder_cannot_be_written_is_said_before_it_starts(demo: Demo) -> None:
    demo.out = Path("/proc/self/task")
    _, stderr = demo.run("--seconds", 20, code=1)
    assert "the folder /proc/self/task cannot be written" in stderr


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ROS_LOG_DIR", "/dev/null/log", "ROS_LOG_DIR=FOLDER"),
        ("ROS_LOG_DIR", "/proc", "ROS_LOG_DIR=FOLDER"),  # it is there, and nobody may write into it
        ("ROS_DOMAIN_ID", "x", "'x'"),
    ],
)
def test_what_ros_cannot_start_with_is_one_line_that_says_what_to_do(
    demo: Demo, name: str, value: str, says: str
) -> None:
    demo.environment[name] = value
    _, stderr = demo.run("--seconds", 20, code=1)
    (line,) = [line for line in stderr.splitlines() if "drive_seg: error:" in line]
    assert says in line and name in line and "internal" not in line
    command = [sys.executable, "-m", "drive_seg.ros.node"]
    done = subprocess.run(command, env=demo.environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert says in done.stderr and "arguments" not in done.stderr


def test_a_child_that_fails_is_quoted() -> None:
    with Child("camera", ["-c", "print('lens cap is on'); raise SystemExit(3)"]) as child:
        assert wait_for(lambda: child.exit_code is not None, 20.0)
        with pytest.raises(DriveSegError, match=r"camera process ended with code 3:\n  lens cap is on"):
            child.check()


def test_the_benchmarks_find_a_child_and_set_its_environment() -> None:
    say = "import os; print(os.getpid(), os.environ['LENS'], 'PATH' in os.environ)"
    with Child("camera", ["-c", say], {"LENS": "wide"}) as child:
        assert wait_for(lambda: list(child.lines) == [f"{child.pid} wide True"], 20.0), child.lines


def test_a_child_that_ignores_ctrl_c_is_killed() -> None:
    ignore = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    deaf = f"{ignore}; print('deaf', flush=True); time.sleep(99)"
    with pytest.MonkeyPatch.context() as patch, children.Child("deaf", ["-c", deaf]) as child:
        patch.setattr(children, "_PATIENCE_S", 0.5)
        assert wait_for(lambda: "deaf" in child.lines, 20.0)
        assert child.stop() == -signal.SIGKILL


@pytest.mark.parametrize(("claimed", "played"), [(25, 25), (1000, 30), (5000, 30), (0.05, 30)])
def test_the_camera_plays_a_video_at_the_rate_that_run_gives_it(tmp_path: Path, claimed: float, played: float) -> None:
    video = tmp_path / "in.mp4"
    write_video(video, 3, claimed)
    assert open_pictures(str(video)).rate == open_source(str(video)).fps == played


def test_going_round_in_a_recording_without_an_image_ends(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\nno more of it")
    assert list(_images(open_source(str(tmp_path)), loop=True)) == []
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((4, 4, 3), np.uint8))
    assert len(list(itertools.islice(_images(open_source(str(tmp_path)), loop=True), 3))) == 3


def test_a_recording_without_an_image_ends_the_camera_with_the_reason(tmp_path: Path) -> None:
    """The demo waited half a minute for a mask, and did not say why none came."""
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nno more of it")
    player = [sys.executable, "-m", "drive_seg.demo.player", str(tmp_path), "--subscribers", "0"]
    done = subprocess.run(player, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert f"no image of {tmp_path} can be shown: " in done.stderr and "cut short" in done.stderr
    assert "Traceback" not in done.stderr


@settings(deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(1, 40))
def test_runs_are_lossless(data: st.DataObject, height: int, width: int) -> None:
    values = st.sampled_from([0, 1, 2, 3001, 3002, 5999, 65535])
    pixels = data.draw(st.lists(values, min_size=height * width, max_size=height * width))
    panoptic = np.array(pixels, np.uint16).reshape(height, width)
    starts, run_values = runs_of(panoptic)
    assert np.array_equal(from_runs(starts, run_values, (height, width)), panoptic)
    assert np.all(run_values[1:] != run_values[:-1])


def seen(stamp_ns: int, value: int = 0, **times: float) -> SeenFrame:
    """A small frame that is all of one panoptic value."""
    image = CameraImage.from_rgb(np.zeros((64, 64, 3), np.uint8))
    return SeenFrame(stamp_ns, image, np.full((64, 64), value, np.uint16), (), StageTimes(**times))


def finish_in_time(kept: Spool) -> None:
    end = threading.Thread(target=kept.finish, daemon=True)
    end.start()
    end.join(20.0)
    assert not end.is_alive()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full")
def test_a_full_disk_ends_the_keeping_of_frames_and_not_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("wb+", buffering=0)  # noqa: SIM115 - the spool closes it
    monkeypatch.setattr(spool.tempfile, "TemporaryFile", lambda **options: full)
    kept = Spool()
    for number in range(20):
        kept.add(seen(number))
        time.sleep(0.01)
    finish_in_time(kept)
    assert len(kept) == 0 and list(kept.frames()) == []
    kept.__exit__(None, None, None)


def test_what_a_disk_takes_a_part_of_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Small(io.FileIO):
        """A file with room for one frame and a half."""

        def write(self, content: bytes) -> int:
            return super().write(content if self.tell() == 0 else content[: len(content) // 2])

    monkeypatch.setattr(spool.tempfile, "TemporaryFile", lambda **options: Small(tmp_path / "file", "w+"))
    with Spool() as kept:
        for number in range(3):
            kept.add(seen(number))
        kept.finish()
        assert [frame.stamp_ns for frame in kept.frames()] == [0]


def test_a_frame_that_memory_has_no_room_for_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended the thread, and the demo waited for it for ever."""
    runs_of = spool.runs_of
    taken: list[None] = []

    def short_of_memory(panoptic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        taken.append(None)
        if panoptic[0, 0]:
            raise MemoryError
        return runs_of(panoptic)

    monkeypatch.setattr(spool, "runs_of", short_of_memory)
    kept = Spool()
    for number in range(6):
        kept.add(seen(number, number < 3))
        assert wait_for(lambda number=number: len(taken) > number, 20.0)
    finish_in_time(kept)
    assert [frame.stamp_ns for frame in kept.frames()] == [3, 4, 5]
    kept.__exit__(None, None, None)


def test_frames_are_kept_where_there_is_one_scheduling_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)
    with Spool() as kept:
        kept.add(seen(7))
        kept.finish()
        assert [frame.stamp_ns for frame in kept.frames()] == [7]


def test_the_video_has_every_kept_frame_in_order_at_the_speed_of_their_stamps(tmp_path: Path) -> None:
    told: list[int] = []
    with Spool() as kept:
        for number in (1, 0, 3, 2):
            image = CameraImage.from_rgb(np.full((64, 96, 3), 60 * number, np.uint8))
            kept.add(SeenFrame(10**18 + number * 50_000_000, image, np.zeros((64, 96), np.uint16), (), StageTimes()))
        kept.finish()
        assert render_video(kept, DRIVING, tmp_path / "out.mp4", told.append) == len(kept) == 4
    assert told == [1, 2, 3, 4]
    video = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(20.0, rel=0.01)
    shown = [video.read()[1][:30].mean() for _ in range(4)]
    video.release()
    np.testing.assert_allclose(shown, [0, 60, 120, 180], atol=8)


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Node, Watcher, list[SeenFrame]]]:
    """A node, who watches with it, and the frames that were whole."""
    stay_apart(monkeypatch)
    rclpy.init(args=[])
    node = rclpy.create_node("watching")
    whole: list[SeenFrame] = []
    watcher = Watcher(node, DRIVING, lambda stamp: True, whole.append)
    yield node, watcher, whole
    watcher.close()
    node.destroy_node()
    rclpy.try_shutdown()


def test_the_parts_of_a_frame_are_put_together_by_their_stamp(watching: tuple[Node, Watcher, list[SeenFrame]]) -> None:
    node, watcher, whole = watching
    topics = {"panoptic": Image, "instances": Detection2DArray, "lanes": PointCloud2, "latency": DiagnosticArray}
    out = {name: node.create_publisher(kind, f"/segmentation/{name}", 10) for name, kind in topics.items()}
    out["image"] = node.create_publisher(Image, "/camera/image_raw", 10)
    car = Instance(3001, 3, "vehicle", 0.5, Box(3, 2, 5, 8), 40, track=77)
    lane = Lane(-1, np.array([[1, 9], [2, 3]], np.float32))
    times = StageTimes(inference=5.0, end_to_end=9.0)

    def send(name: str, stamp: int) -> None:
        header = Header(stamp=Time(sec=stamp))
        image, panoptic = ImageBuffer("rgb8"), ImageBuffer("16UC1")
        image.pixels((12, 16, 3), np.uint8)[:] = stamp
        panoptic.pixels((12, 16), np.uint16)[:] = 3001
        messages = {
            "image": lambda: image.message(header),
            "panoptic": lambda: panoptic.message(header),
            "instances": lambda: detections([car], header),
            "lanes": lambda: cloud([lane], header),
            "latency": lambda: latency_message("front", times, header),
        }
        before = watcher.arrivals[name].count
        out[name].publish(messages[name]())
        end = time.monotonic() + 20.0
        while watcher.arrivals[name].count == before and time.monotonic() < end:
            watcher.spin(0.01)
        assert watcher.arrivals[name].count > before, name

    end = time.monotonic() + 20.0
    while not all(topic.get_subscription_count() for topic in out.values()) and time.monotonic() < end:
        watcher.spin(0.05)
    for stamp in (5, 4):  # of two at once, the later comes first
        for name in ("image", "latency", "lanes", "panoptic"):
            send(name, stamp)
    assert not whole
    for stamp in (4, 5):
        send("instances", stamp)
    assert [frame.stamp_ns for frame in whole] == [4 * 10**9, 5 * 10**9]
    assert (whole[0].instances, whole[0].times) == ((car,), times)
    assert (whole[0].panoptic == 3001).all() and (whole[0].image.data == 4).all() and (whole[1].image.data == 5).all()
    np.testing.assert_array_equal(whole[0].lanes[0].points, lane.points)
    assert watcher.instance_counts["vehicle"] == 1
    for stamp in range(10, 41):  # one more than may be incomplete
        send("panoptic", stamp)
    for stamp in (11, 10):
        for name in ("image", "latency", "lanes", "instances"):
            send(name, stamp)
    assert [frame.stamp_ns for frame in whole[2:]] == [11 * 10**9], "the first was given up"


@pytest.mark.parametrize(("configured", "trouble"), [("false", "no such model"), ("true", "")])
def test_a_batch_that_takes_long_does_not_end_the_demo(
    configured: str, trouble: str, watching: tuple[Node, Watcher, list[SeenFrame]]
) -> None:
    node, watcher, _ = watching
    publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
    status = DiagnosticStatus(level=DiagnosticStatus.ERROR, name="drive_seg: engine")
    status.message = trouble or "the engine has been at work on one batch for 3 s"
    status.values = [KeyValue(key="configured", value=configured)]
    end = time.monotonic() + 20.0
    while watcher.state is None and time.monotonic() < end:
        publisher.publish(DiagnosticArray(status=[status]))
        watcher.spin(0.1)
    assert watcher.state is not None and watcher.state.trouble == trouble


def test_what_others_publish_on_its_topics_does_not_end_the_demo(
    watching: tuple[Node, Watcher, list[SeenFrame]],
) -> None:
    node, watcher, whole = watching

    def image(encoding: str, width: int, height: int, step: int, size: int) -> Image:
        return Image(encoding=encoding, width=width, height=height, step=step, data=bytes(size))

    def things(name: str, text: str, left: float = 1.0, results: int = 1) -> Detection2DArray:
        detection = Detection2D(id=text, results=[ObjectHypothesisWithPose() for _ in range(results)])
        for result in detection.results:
            result.hypothesis.class_id = name
        detection.bbox.center.position.x = left
        return Detection2DArray(detections=[detection])

    def status(name: str, **values: str) -> DiagnosticStatus:
        pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
        return DiagnosticStatus(level=DiagnosticStatus.ERROR, name=name, message="of another", values=pairs)

    picture, latency = image("rgb8", 4, 2, 12, 24), latency_message("front", StageTimes(inference=5.0), Header())
    ours = {
        "/camera/image_raw": picture,
        "/segmentation/panoptic": image("16UC1", 4, 2, 8, 16),
        "/segmentation/instances": things("vehicle", "3001/7"),
        "/segmentation/lanes": cloud((), Header()),
        "/segmentation/latency": latency,
        "/diagnostics": DiagnosticArray(status=[status("drive_seg: engine", configured="true")]),
    }
    theirs = {
        "/camera/image_raw": [image("rgb8", 4, 2, 12, 23), image("none", 0, 0, 0, 0)],
        "/segmentation/panoptic": [
            image("16UC1", 4, 2, 8, 15),
            image("16UC1", 4, 2, 8, 17),
            image("16UC1", 4, 2, 10, 20),
            image("mono8", 4, 2, 4, 8),
            image("16UC1", 0, 0, 0, 0),
            image("16UC1", 2, 4, 4, 16),
        ],
        "/segmentation/instances": [
            things("vehicle", "3001", results=0),
            things("road", "1"),
            things("tram", "3001"),
            things("vehicle", "seven"),
            things("vehicle", "3001/" + 400 * "9"),
            things("vehicle", "3001", float("nan")),
            things("vehicle", "3001", float("inf")),
        ],
        "/segmentation/lanes": [PointCloud2(width=9, height=9), PointCloud2(width=1, height=1, data=b"1")],
        "/segmentation/latency": [
            DiagnosticArray(),
            DiagnosticArray(status=[status("x", inference="soon")]),
            DiagnosticArray(status=[status("x", inference="nan")]),
            DiagnosticArray(status=[status("x", queue="1e308", inference="1e308")]),
        ],
        "/diagnostics": [
            DiagnosticArray(status=[status("car: engine", temperature="90"), status("car: camera front")]),
            DiagnosticArray(status=[status("drive_seg: engine"), status("drive_seg: camera front", received="many")]),
        ],
    }
    publishers = {topic: node.create_publisher(type(message), topic, 50) for topic, message in ours.items()}
    end = time.monotonic() + 20.0
    while not all(publisher.get_subscription_count() for publisher in publishers.values()):
        assert time.monotonic() < end
        watcher.spin(0.05)
    foreign = [(topic, message) for topic, messages in theirs.items() for message in messages]
    for second, (topic, message) in enumerate(foreign, start=1):
        for part, fine in ours.items():
            sent = message if part == topic else fine
            if part != "/diagnostics" or part == topic:
                sent.header.stamp.sec = second
                publishers[part].publish(sent)
        while watcher.arrivals["image"].count < second and time.monotonic() < end:
            watcher.spin(0.01)
    untouched = {second for second, (topic, _) in enumerate(foreign, start=1) if topic == "/diagnostics"}
    while len(whole) < len(untouched) and time.monotonic() < end:
        watcher.spin(0.05)
    watcher.spin(0.1)
    assert {frame.stamp_ns // 10**9 for frame in whole} == untouched
    assert watcher.state is None
    publishers["/diagnostics"].publish(ours["/diagnostics"])
    while watcher.state is None and time.monotonic() < end:
        watcher.spin(0.1)
    assert watcher.state is not None and watcher.state.trouble == "" and watcher.instance_counts["vehicle"] == 1
    assert watcher.percentiles()["inference"].max == 5.0
    assert watcher.percentiles(600.0) == watcher.percentiles() and not watcher.percentiles(0.0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it keeps its priority")
@pytest.mark.parametrize("more", [0, 15])
def test_a_demo_that_was_started_with_nice_stays_as_nice(more: int) -> None:
    script = (
        "import os; from drive_seg.demo.session import _step_back; os.getuid() or os.setuid(65534); "
        f"given = os.nice({more}); _step_back(); print(given, os.getpriority(os.PRIO_PROCESS, 0))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    given, found = map(int, done.stdout.split())
    assert found == max(10, given)


@pytest.mark.parametrize("name", ['it\'s "q" \\ \\ud83d\\ude00', "\u65e5\x85\u2028", "\U0001f600 \U00020bb7"])
def test_a_path_of_any_characters_reaches_the_node(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stay_apart(monkeypatch)
    context = rclpy.Context()
    rclpy.init(args=ros_arguments({"model": f"/tmp/{name}.yaml"}), context=context)
    try:
        node = Node("of_any_characters", context=context, automatically_declare_parameters_from_overrides=True)
        assert node.get_parameter("model").value == f"/tmp/{name}.yaml"
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def test_a_video_plays_at_its_pace_though_the_clock_was_set_meanwhile(tmp_path: Path) -> None:
    with Spool() as kept:
        for count, number in enumerate((*range(10), *range(36_000, 36_010)), start=1):
            kept.add(seen(number * 10**8, inference=1.0))
            assert wait_for(lambda count=count: len(kept) == count, 20.0)
        kept.finish()
        assert render_video(kept, DRIVING, tmp_path / "overlay.mp4", lambda done: None) == 20
    assert cv2.VideoCapture(str(tmp_path / "overlay.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize(("came", "complaints"), [(100, 0), (99, 0), (60, 1)])
def test_frames_whose_times_were_lost_count_and_are_said(came: int, complaints: int) -> None:
    """Whoever watches may be held up; the node goes on."""
    times = [(10 * number / (came - 1), StageTimes(end_to_end=5.0)) for number in range(came)]
    arrivals = {"image": SimpleNamespace(last=9.9), "latency": SimpleNamespace(count=came)}
    show = SimpleNamespace(
        _watcher=SimpleNamespace(times=times, arrivals=arrivals, percentiles=dict),
        _model=SimpleNamespace(name="tiny"),
        _mixed="",
        _silent=False,
        _first_mask_s=1.0,
        _stop=SimpleNamespace(requested=False),
    )
    state = NodeState({}, {"received": "100", "published": "100"})
    result = _Show.result(show, state, SimpleNamespace(lines=[]))  # type: ignore[arg-type]
    assert result.summary.fps == pytest.approx(9.9) and len(result.complaints) == complaints
    assert result.summary.as_dict()["warnings"] == list(result.complaints)


@pytest.mark.parametrize("hertz", [1, 30, 1000])
def test_the_rate_of_a_topic_is_that_of_the_last_two_seconds(hertz: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("drive_seg.demo.watch.time", SimpleNamespace(monotonic=lambda: now))
    arrivals = Arrivals()
    assert arrivals.rate() == 0
    for number in range(5 * hertz + 1):
        now = 100 + number / hertz
        arrivals.add()
    assert arrivals.rate() == pytest.approx(hertz, abs=0.5)
    now += 1.0
    assert arrivals.rate() == pytest.approx(hertz / 2, abs=0.5)
    now += 1.0
    assert arrivals.rate() == 0 and arrivals.count == 5 * hertz + 1


def test_at_most_so_many_frames_are_kept() -> None:
    keep = at_most(10.0)
    stamps = [round(number * 1e9 / 30) for number in range(90)]
    assert [number for number, stamp in enumerate(stamps) if keep(stamp)] == list(range(0, 90, 3))
    earlier = [stamp - 3600 * 10**9 for stamp in stamps]  # the clock was set back
    assert [number for number, stamp in enumerate(earlier) if keep(stamp)] == list(range(0, 90, 3))


def stage_times(scale: float = 1.0) -> StageTimes:
    values = [scale * ms for ms in (2.0, 1.0, 0.5, 0.5, 12.0, 4.0, 1.0)]
    return StageTimes(*values, processing=sum(values[2:]), end_to_end=sum(values))


def plotted(path: Path, rows: list[tuple[float, StageTimes]]) -> np.ndarray:
    """Where the upper panel of a plot has the colour of the inference, bool (H, W)."""
    plot_latency(rows, path)
    plot = cv2.imread(str(path))
    return (np.abs(plot[: plot.shape[0] // 2, :, ::-1].astype(int) - (230, 159, 0)).max(axis=2) < 8)[30:]


def test_the_plot_leaves_a_gap_where_no_frame_came(tmp_path: Path) -> None:
    moments = [k / 30 for k in (*range(150), *range(300, 450))]  # five seconds each
    panel = plotted(tmp_path / "gap.png", [(moment, stage_times()) for moment in moments])
    seen = np.flatnonzero(panel[:, :1000].sum(axis=0) > 20)
    third = (seen[-1] - seen[0]) // 3
    assert not panel[:, seen[0] + third + 8 : seen[-1] - third - 8].any()
    assert seen.size > 0.6 * (seen[-1] - seen[0])


def test_the_plot_shows_frames_that_come_in_bursts(tmp_path: Path) -> None:
    rows = [(burst / 4 + k / 10_000, stage_times()) for burst in range(40) for k in range(6)]
    assert np.median(plotted(tmp_path / "bursts.png", rows)[:, 100:900].sum(axis=0)) > 20, "rows of the picture"


def test_the_plot_shows_all_frames_beside_one_that_took_minutes(tmp_path: Path) -> None:
    rows = [(k / 30, stage_times(10_000 if k == 77 else 1)) for k in range(300)]
    panel = plotted(tmp_path / "outlier.png", rows)
    assert np.median(panel[:, 100:900].sum(axis=0)) > 20, "rows of the picture"


def test_the_legend_of_the_plot_hides_no_frame(tmp_path: Path) -> None:
    panel = plotted(tmp_path / "tall.png", [(k / 30, stage_times(20)) for k in range(300)])
    heights = panel.sum(axis=0)
    whole = np.flatnonzero(heights > 0.9 * heights.max())
    assert (np.diff(whole) == 1).all() and whole.size > 800


def test_the_live_tables_fit_a_terminal_of_24_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "53")  # the fewest that it is given
    names = ("transport", "queue", "decode", "preprocess", "inference", "postprocess", "publish", "processing")
    milliseconds = {name: Percentiles.of(np.array([1.0, 23.0, 456.0, 7890.0])) for name in (*names, "end_to_end")}
    topics = ("image", "mask", "panoptic", "instances", "lanes", "latency")
    counts = FrameCounts(1234, 1200, {"superseded": 20, "stale": 14}, 0)
    watcher = SimpleNamespace(
        arrivals={name: SimpleNamespace(count=9 if name == "mask" else 1234, rate=lambda: 29.97) for name in topics},
        percentiles=lambda seconds: milliseconds,
        state=SimpleNamespace(counts=lambda: counts),
        instance_counts={"vehicle": 8, "pedestrian": 5, "cyclist": 1},
    )
    with LiveDisplay() as display:
        display.update(watcher, 3.0, 20.0)  # type: ignore[arg-type]
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert len(lines) < 24 and lines[-1].split()[0] == "end_to_end"
    counted = [line for line in lines if line.strip().startswith(("/camera", "/segmentation"))]
    assert len({len(line) for line in counted}) == 1 and len({line.index("30.0") for line in counted}) == 1
    assert len({line.split()[1] for line in counted}) == 2
    assert len({len(line.partition("  30.0")[0].rstrip()) for line in counted}) == 1, "digits stand under digits"


def test_a_terminal_that_cannot_redraw_or_is_too_narrow_for_the_tables_is_given_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    kinds = (("dumb", "80", PlainDisplay), ("xterm", "40", PlainDisplay), ("xterm", "80", LiveDisplay))
    for name, columns, kind in kinds:
        monkeypatch.setenv("TERM", name)
        monkeypatch.setenv("COLUMNS", columns)
        assert isinstance(open_display(plain=False), kind)
