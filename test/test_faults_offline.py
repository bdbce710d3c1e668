"""Full disks, signals and bags that lack what is asked for: the commands as processes, and what they leave behind."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import drive_seg, drive_seg_process, errors
from recordings import Recording, write_bag, write_images, write_video

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("rosbags", reason="rosbags is not installed")


from drive_seg.errors import SourceError
from drive_seg.offline.bag_images import bag_topics
from drive_seg.offline.bag_writer import BagFile
from drive_seg.offline.disk import LEAST_FREE
from drive_seg.offline.sources import open_source

FRAMES = 60
LONG = 3000
ROOM = 4 << 20
"""Bytes that the output may have: about 20 of the frames."""


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bag") / "in"
    write_bag(folder, FRAMES)
    return folder


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "in.mp4"
    write_video(path, LONG)
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with ROOM bytes above what is kept free."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", f"size={LEAST_FREE + ROOM}", "none", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the privilege to mount a tmpfs")
    yield folder
    # Lazily: on Python 3.10 the SQLite reader of rosbags, with the newest apsw there is for it, leaves a file open.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def start(*arguments: object, prepare: Callable[[], object] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "drive_seg", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=prepare)


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it said on stdout and stderr; it has failed with one line of error."""
    try:
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1, stderr
    assert stderr.count("error:") == 1 and "Traceback" not in stderr, stderr
    return stdout, next(line for line in stderr.splitlines() if "error:" in line)


def run_on_full_disk(
    bag: Path, out: Path, model: Path, prepare: Callable[[], object] | None = None
) -> tuple[dict, str]:
    """The summary's frames and the one line of error."""
    process = start(
        "run", bag, "-o", out, "--model", model, "--backend", "onnxruntime", "--json", prepare=prepare
    )  # fmt: skip
    stdout, line = finish(process)
    frames = json.loads(stdout.splitlines()[-1])["frames"]
    assert frames["received"] == frames["published"] + sum(frames["dropped"].values()) + frames["failed"]
    assert 0 < frames["published"] < FRAMES
    return frames, line


def masks_in(bag: Path) -> tuple[int, str]:
    """How many masks can be read from a bag, and why not more."""
    source = open_source(str(bag), "/segmentation/mask")
    count = 0
    try:
        for _ in source:
            count += 1
    except SourceError as error:
        return count, str(error)
    return count, ""


@pytest.mark.parametrize("name", ["out.mcap", "out.bag2"])
def test_a_bag_is_closed_in_order_before_the_disk_is_full(small_disk: Path, bag: Path, model: Path, name: str) -> None:
    frames, line = run_on_full_disk(bag, small_disk / name, model)
    assert f"the disk of {small_disk} is full" in line
    assert masks_in(small_disk / name) == (frames["published"], "")
    assert not list(small_disk.glob(".drive_seg_*"))


@pytest.mark.parametrize(("name", "at_most_lost", "why"), [("out.mcap", 6, "cut short"), ("out.bag2", 0, "")])
def test_what_was_written_before_the_system_refused_more_is_readable(
    tmp_path: Path, bag: Path, model: Path, name: str, at_most_lost: int, why: str
) -> None:
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))  # noqa: E731
    out = tmp_path / name
    frames, line = run_on_full_disk(bag, out, model, limit)
    assert f"cannot write bag {out}" in line
    found, ended = masks_in(out)
    # MCAP is written by chunks of 1 MiB, of which the one in work is lost: five frames.
    assert max(5, frames["published"] - at_most_lost) <= found <= frames["published"]
    assert why in ended and bool(why) == bool(ended)
    assert not list(tmp_path.glob(".drive_seg_*"))


def test_images_are_whole_or_absent(tmp_path: Path, model: Path) -> None:
    import cv2

    write_images(tmp_path / "in", [f"{number:02d}.png" for number in range(4)])
    # The masks fit, of the first panoptic map only a part.
    out, size = tmp_path / "out", 900
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # noqa: E731
    given = ["run", tmp_path / "in", "-o", out, "--model", model, "--backend", "onnxruntime"]
    finish(start(*given, prepare=limit))
    written = list(out.rglob("*.png"))
    assert all(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) is not None for path in written)
    assert all(path.stat().st_size < size for path in written)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("out.mcap", signal.SIGTERM),
        ("out.bag2", signal.SIGTERM),
        ("out.mcap", signal.SIGINT),
        ("out.mcap", signal.SIGHUP),
    ],
)
def test_a_run_that_is_told_to_end_closes_its_bag(
    tmp_path: Path, model: Path, long_video: Path, name: str, number: int
) -> None:
    out = tmp_path / name
    given = ["run", long_video, "-o", out, "--model", model, "--backend", "onnxruntime", "--json"]
    # A shell starts background jobs with SIGINT ignored, nohup with SIGHUP, and children inherit that.
    process = start(*given, prepare=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGHUP)])
    growing = tmp_path if name.endswith(".mcap") else out
    end = time.monotonic() + 60
    while not any(file.stat().st_size > 1 << 20 for file in storage_files(growing)) and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    stdout, line = finish(process)
    assert "error: interrupted" in line
    frames = json.loads(stdout.splitlines()[-1])["frames"]
    assert 0 < frames["published"] < LONG
    assert masks_in(out) == (frames["published"], "")
    assert not list(tmp_path.glob(".drive_seg_*"))


def test_a_run_that_nohup_started_outlives_its_terminal(tmp_path: Path, model: Path, long_video: Path) -> None:
    given = ["run", long_video, "-o", tmp_path / "out.mcap", "--model", model, "--frames", 60]
    process = start(*given, "--json", prepare=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    end = time.monotonic() + 60
    while not storage_files(tmp_path) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    stdout, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert json.loads(stdout.splitlines()[-1])["frames"]["published"] == 60


def test_what_a_library_says_on_a_closed_stderr_is_not_in_the_bag(tmp_path: Path, model: Path) -> None:
    (tmp_path / "in").mkdir()
    jpeg = bytearray(cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8))[1])
    jpeg[len(jpeg) // 2 :] = b"\xff\xd9"  # of which libjpeg itself says on stderr that it ends too early
    for number in range(60):
        (tmp_path / "in" / f"{number:02d}.jpg").write_bytes(jpeg)
    given = ["run", tmp_path / "in", "-o", tmp_path / "out.mcap", "--model", model, "--backend", "onnxruntime"]
    process = start(*given, prepare=lambda: os.close(2))
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert masks_in(tmp_path / "out.mcap") == (60, "")


@pytest.mark.parametrize("name", ["out.mcap", "out.bag2"])
def test_the_simulator_that_is_told_to_end_within_a_frame_finishes_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = BagFile.write
    masks = iter(range(3))

    def write_and_be_told(bag: BagFile, topic: str, *arguments: Any, **options: Any) -> None:
        write(bag, topic, *arguments, **options)
        if topic.endswith("mask") and next(masks) == 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(BagFile, "write", write_and_be_told)
    out = tmp_path / name
    (line,) = errors(drive_seg("sim", "-o", out, "--width", 64, "--height", 64, code=1))
    assert "interrupted after 2 frames" in line
    counts = {topic: found.count for topic, found in bag_topics(out).items()}
    assert set(counts.values()) == {1, 2} and counts.pop("/camera/truth/label_info") == 1, counts


def storage_files(folder: Path) -> list[Path]:
    try:
        return [file for kind in ("mcap", "db3") for file in folder.rglob(f"*.{kind}") if file.is_file()]
    except FileNotFoundError:  # moved meanwhile
        return []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "{bag}", "--topic", "/nose/image_raw", "-o", "{out}.mcap"), "it has /front/image_raw (60)"),
        (("run", "{notes}", "-o", "{out}.mcap"), "no readable image topic of type sensor_msgs/msg/Image"),
        (("evaluate", "{bag}", "-o", "{out}"), "truth"),
        (("demo", "--source", "{notes}", "--out", "{out}"), "no readable image topic"),
    ],
)
def test_a_bag_without_the_topic_is_one_clear_error(
    tmp_path: Path, bag: Path, model: Path, arguments: tuple[str, ...], says: str
) -> None:
    if arguments[0] == "demo":
        pytest.importorskip("rclpy", reason="rclpy is not installed")
    write_notes(tmp_path / "notes")
    names = {"bag": bag, "notes": tmp_path / "notes", "out": tmp_path / "out"}
    given = [word.format(**names) for word in arguments]
    command = drive_seg_process if arguments[0] == "demo" else drive_seg
    done = command(*given, "--model", model, "--backend", "onnxruntime", code=1)
    (line,) = errors(done)
    assert says in line and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out*.mcap"))


def write_notes(folder: Path) -> None:
    """A bag without images."""
    with Recording(folder) as bag:
        bag.write("/note", bag.message("std_msgs/String", "rain"), 1)
