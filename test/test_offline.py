"""Offline runs on real files: what goes in comes out, in order, with its own names and stamps, or is accounted for."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import pack

import cv2
import numpy as np
import pytest
from recordings import FPS, HEIGHT, WIDTH, picture, stamp_of, write_bag, write_images, write_video
from tiny_model import network

from drive_seg.decode import decode_rgb
from drive_seg.engines import FunctionEngine
from drive_seg.engines.function import NetworkFunction
from drive_seg.errors import ConfigError, DriveSegError, EngineError, MissingDependency, SourceError
from drive_seg.frame import Frame, PanopticResult, RawOutputs
from drive_seg.labels import DRIVING, mask_of
from drive_seg.offline import video
from drive_seg.offline.interrupts import Interrupts
from drive_seg.offline.prefetch import prefetch
from drive_seg.offline.rendering import open_render_sink
from drive_seg.offline.runner import Outcome, run
from drive_seg.offline.sinks import open_sink
from drive_seg.offline.sources import camera_size, is_live, open_source, origin_of
from drive_seg.offline.truth import open_truth
from drive_seg.offline.video import VideoSource, VideoWriter
from drive_seg.pipeline import Pipeline
from drive_seg.sim import Simulator
from drive_seg.tracking import TrackingOptions

NAMES = ["b_2.png", "b_10.png", "a.png"]
IN_ORDER = ["a", "b_2", "b_10"]
SUMMARY_KEYS = {"frames", "fps", "latency_ms", "backend", "precision", "model", "in_flight", "versions"}


@pytest.fixture(autouse=True, params=[True, False], ids=["threads", "one thread"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether recordings are read and written in threads of their own changes nothing but the time."""
    monkeypatch.setattr(sys.modules[__name__], "run", functools.partial(run, threads=request.param))


def go(source: str | Path, out: Path, pipeline: Pipeline, topic: str | None = None) -> Outcome:
    opened = open_source(str(source), topic)
    return run(opened, open_sink(out, DRIVING, opened.fps), pipeline, "tiny")


def lines_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "instances.jsonl").read_text().splitlines()]


def test_folder_keeps_names_order_and_bit_depths(tmp_path: Path, pipeline: Pipeline) -> None:
    write_images(tmp_path / "in", NAMES)
    outcome = go(tmp_path / "in", tmp_path / "out", pipeline)
    assert outcome.error is None
    assert [line["frame"] for line in lines_of(tmp_path / "out")] == IN_ORDER
    for kind in ("mask", "panoptic"):
        assert {path.stem for path in (tmp_path / "out" / kind).iterdir()} == set(IN_ORDER)
    for stem, line in zip(IN_ORDER, lines_of(tmp_path / "out"), strict=True):
        mask = cv2.imread(str(tmp_path / "out/mask" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
        panoptic = cv2.imread(str(tmp_path / "out/panoptic" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint8 and mask.shape == (HEIGHT, WIDTH)
        assert panoptic.dtype == np.uint16 and panoptic.shape == (HEIGHT, WIDTH)
        assert np.array_equal(mask_of(panoptic), mask)
        assert set(np.unique(panoptic)) == {1, 3001}
        (instance,) = line["instances"]
        ys, xs = np.nonzero(panoptic == int(instance["id"]))
        box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
        assert instance["bbox"] == box == [box[0], 80, 48, 40]
        assert instance["area"] == len(ys)
        assert instance["class"] == "vehicle" and instance["class_id"] == 3


def test_scores_are_written_to_the_last_digit(tmp_path: Path, pipeline: Pipeline) -> None:
    result = pipeline(picture(0))
    scored = [dataclasses.replace(instance, score=1 / 3) for instance in result.instances]
    sink = open_sink(tmp_path / "out", DRIVING, 30.0)
    sink.write(dataclasses.replace(result, instances=scored))
    sink.close()
    assert [instance["score"] for line in lines_of(tmp_path / "out") for instance in line["instances"]] == [1 / 3]


def test_summary_has_the_contracts_keys_and_accounts_for_every_frame(tmp_path: Path, pipeline: Pipeline) -> None:
    write_images(tmp_path / "in", NAMES)
    (tmp_path / "in/broken.png").write_bytes(b"\x89PNG and then nothing")
    (tmp_path / "in/empty.jpg").touch()
    said: list[str] = []
    source = open_source(str(tmp_path / "in"))
    run(source, open_sink(tmp_path / "out", DRIVING, 30.0), pipeline, "tiny", warn=said.append)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert set(summary) == SUMMARY_KEYS
    assert summary["frames"] == {"received": 5, "published": 3, "dropped": {"malformed": 2}, "failed": 0}
    assert summary["model"] == "tiny" and summary["backend"] == "function" and summary["fps"] > 0
    assert set(summary["latency_ms"]["inference"]) == {"p50", "p95", "p99", "max"}
    assert len(said) == 2 and "broken" in said[0] and "empty" in said[1]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, pipeline: Pipeline) -> None:
    write_images(tmp_path / "in", NAMES)
    pipeline.tracking = TrackingOptions()
    go(tmp_path / "in", tmp_path / "one", pipeline)
    go(tmp_path / "in", tmp_path / "two", pipeline)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 8
    for file in files:
        if file.name != "summary.json":
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_images_in_folders_below_are_one_source(tmp_path: Path, pipeline: Pipeline) -> None:
    for name in ("drive_10/c", "drive_2/b", "drive_2/deep/a"):
        write_images((tmp_path / "in" / name).parent, [f"{Path(name).name}.png"])
    go(tmp_path / "in", tmp_path / "out", pipeline)
    assert [line["frame"] for line in lines_of(tmp_path / "out")] == ["b", "a", "c"]
    write_images(tmp_path / "in/drive_3", ["b.jpg"])
    with pytest.raises(SourceError, match=r"several images named 'b', drive_2/b\.png and drive_3/b\.jpg"):
        open_source(str(tmp_path / "in"))
    write_images(tmp_path / "in", ["top.png"])
    go(tmp_path / "in", tmp_path / "top", pipeline)
    assert [line["frame"] for line in lines_of(tmp_path / "top")] == ["top"]


def test_the_size_of_a_camera_is_that_of_the_first_image_that_can_be_read(tmp_path: Path) -> None:
    write_images(tmp_path, ["b.png"])
    (tmp_path / "a.png").write_bytes(b"half a picture")
    assert camera_size(open_source(str(tmp_path))) == (WIDTH, HEIGHT)
    (tmp_path / "b.png").unlink()
    assert camera_size(open_source(str(tmp_path))) is None


def test_a_single_image_is_a_folder_of_one(tmp_path: Path, pipeline: Pipeline) -> None:
    write_images(tmp_path, ["only.png", "other.png"])
    go(tmp_path / "only.png", tmp_path / "out", pipeline)
    assert [path.name for path in (tmp_path / "out/mask").iterdir()] == ["only.png"]


def test_video_in_and_overlay_video_out(tmp_path: Path, pipeline: Pipeline) -> None:
    write_video(tmp_path / "in.mp4", 12)
    outcome = go(tmp_path / "in.mp4", tmp_path / "out.mp4", pipeline)
    assert outcome.error is None and outcome.summary.counts.published == 12
    made = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert made.get(cv2.CAP_PROP_FPS) == pytest.approx(FPS)
    images = []
    while (read := made.read())[0]:
        images.append(read[1])
    assert len(images) == 12 and images[0].shape == (HEIGHT, WIDTH, 3)
    assert json.loads((tmp_path / "out.mp4.summary.json").read_text())["frames"]["published"] == 12


@pytest.fixture(params=["PyAV", "OpenCV"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What encodes videos: PyAV, or OpenCV where that is not installed."""
    if request.param == "PyAV":
        pytest.importorskip("av", reason="PyAV is not installed")
    else:
        monkeypatch.setitem(sys.modules, "av", None)
    return str(request.param)


def test_browsers_show_a_video(tmp_path: Path, encoder: str) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", 30.0)
    for red in (50, 150, 250):
        writer.write(np.full((HEIGHT, WIDTH, 3), (red, 100, 0), np.uint8))
    writer.close()
    made = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    codec = int(made.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little")
    assert codec in ((b"avc1", b"h264") if encoder == "PyAV" else (b"avc1", b"h264", b"mp4v", b"FMP4")), codec
    means = [made.read()[1].mean((0, 1)) for _ in range(3)]
    np.testing.assert_allclose(means, [(0, 100, red) for red in (50, 150, 250)], atol=4)


def test_a_video_that_cannot_be_written_is_named(tmp_path: Path, encoder: str) -> None:
    with pytest.raises(DriveSegError, match=r"cannot write video .*none/out\.mp4"):
        VideoWriter(tmp_path / "none" / "out.mp4", 30.0).write(picture(0))


@pytest.mark.parametrize("fps", [0.25, 29.97003, 66.6667, 99.9873, 655.4321])
@pytest.mark.usefixtures("encoder")
def test_a_video_is_written_at_any_rate_that_a_source_has(tmp_path: Path, fps: float) -> None:
    """A camera of 100 Hz has seldom exactly 100 in a bag."""
    writer = VideoWriter(tmp_path / "out.mp4", fps)
    writer.write(picture(0))
    writer.close()
    assert VideoSource(tmp_path / "out.mp4").fps == pytest.approx(fps, rel=1e-3)


def test_names_that_would_end_opencv_are_refused(tmp_path: Path) -> None:
    for name in ("stra\udcdfe.mp4", "\udcdf/out.mp4"):
        with pytest.raises(DriveSegError, match="expected UTF-8"):
            VideoWriter(tmp_path / name, 30.0).write(np.zeros((32, 32, 3), np.uint8))
        with pytest.raises(SourceError, match="expected UTF-8"):
            VideoSource(tmp_path / name)


@pytest.mark.usefixtures("encoder")
def test_an_image_of_another_shape_is_not_distorted_in_a_video(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", 30.0)
    for width, height in ((320, 192), (128, 384), (640, 96)):
        writer.write(np.full((height, width, 3), 200, np.uint8))
    writer.close()
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    lit = [capture.read()[1].mean(-1) > 100 for _ in range(3)]
    extents = [tuple(np.flatnonzero(frame.any(axis))[[0, -1]]) for frame in lit for axis in (0, 1)]
    expected = [(0, 319), (0, 191), (128, 191), (0, 191), (0, 319), (72, 119)]
    np.testing.assert_allclose(extents, expected, atol=2)


@pytest.mark.parametrize(
    ("size", "written"),
    [((1, 1), (2, 2)), ((1, 33), (2, 32)), ((33, 1), (32, 2)), ((8192, 64), (8190, 64)), ((2, 16384), (2, 8190))],
)
@pytest.mark.usefixtures("encoder")
def test_a_video_begins_with_an_image_of_any_size(
    size: tuple[int, int], written: tuple[int, int], tmp_path: Path
) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", 10.0)
    for width, height in (size, (96, 64)):
        writer.write(np.full((height, width, 3), 200, np.uint8))
    writer.close()
    images = [decode_rgb(frame.image) for frame in VideoSource(tmp_path / "out.mp4") if isinstance(frame, Frame)]
    assert [image.shape[1::-1] for image in images] == [written, written]
    assert images[0].max() > 150


def test_a_video_behind_a_url_is_read_to_its_end(tmp_path: Path, pipeline: Pipeline) -> None:
    write_video(tmp_path / "in.mp4", 9)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/in.mp4"
            outcome = go(url, tmp_path / "out", pipeline)
            assert outcome.error is None and outcome.summary.counts.published == 9
            assert not open_source(url).live, "its own rate, not that of the network"
            with pytest.raises(SourceError, match="cannot be opened"):
                open_source(url.replace("in.mp4", "none.mp4"))
        finally:
            server.shutdown()


def test_video_frames_are_numbered_and_stamped_by_the_frame_rate(tmp_path: Path, pipeline: Pipeline) -> None:
    write_video(tmp_path / "in.mp4", 4)
    go(tmp_path / "in.mp4", tmp_path / "out", pipeline)
    lines = lines_of(tmp_path / "out")
    assert [line["frame"] for line in lines] == ["000000", "000001", "000002", "000003"]
    assert [line["stamp_ns"] for line in lines] == [round(k * 1e9 / FPS) for k in range(4)]


@pytest.fixture
def rosbags() -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")


@pytest.mark.usefixtures("rosbags")
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "compressed"])
@pytest.mark.parametrize("ending", [".mcap", ".bag2"])
def test_bag_in_and_bag_out_keep_headers(
    tmp_path: Path, pipeline: Pipeline, storage: str, compressed: bool, ending: str
) -> None:
    from rosbags.highlevel import AnyReader

    topic = "/front/image_raw/compressed" if compressed else "/front/image_raw"
    write_bag(tmp_path / "in", 5, storage, topic, compressed)
    out = tmp_path / f"out{ending}"
    assert go(tmp_path / "in", out, pipeline).error is None
    seen: dict[str, list] = {}
    with AnyReader([out]) as reader:
        for connection, recorded, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            seen.setdefault(connection.topic, []).append((recorded, message))
    assert {topic: len(messages) for topic, messages in seen.items()} == {
        "/segmentation/label_info": 1,
        "/segmentation/mask": 5,
        "/segmentation/panoptic": 5,
        "/segmentation/instances": 5,
    }
    for name in ("mask", "panoptic", "instances"):
        for number, (recorded, message) in enumerate(seen[f"/segmentation/{name}"]):
            stamp = message.header.stamp
            assert stamp.sec * 10**9 + stamp.nanosec == stamp_of(number)
            assert recorded == stamp_of(number) + 5_000_000
            assert message.header.frame_id == "front_optical"
    mask, panoptic = seen["/segmentation/mask"][2][1], seen["/segmentation/panoptic"][2][1]
    assert (mask.encoding, mask.width, mask.height, mask.step) == ("mono8", WIDTH, HEIGHT, WIDTH)
    assert (panoptic.encoding, panoptic.step, panoptic.is_bigendian) == ("16UC1", 2 * WIDTH, 0)
    pixels = panoptic.data.view(np.uint16).reshape(HEIGHT, WIDTH)
    expected = pipeline(picture(2))
    assert np.array_equal(pixels, expected.panoptic)
    assert np.array_equal(mask.data.reshape(HEIGHT, WIDTH), expected.mask)
    (detection,) = seen["/segmentation/instances"][2][1].detections
    box = expected.instances[0].box
    assert detection.id == "3001" and detection.results[0].hypothesis.class_id == "vehicle"
    assert detection.bbox.center.position.x == box.x + box.width / 2 and detection.bbox.size_x == box.width
    info = seen["/segmentation/label_info"][0][1]
    assert [(c.class_id, c.class_name) for c in info.class_map] == [(label.id, label.name) for label in DRIVING]


@pytest.mark.usefixtures("rosbags")
def test_label_info_is_latched_in_the_bag(tmp_path: Path, pipeline: Pipeline) -> None:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import QosDurability

    write_images(tmp_path / "in", NAMES)
    go(tmp_path / "in", tmp_path / "out.bag2", pipeline)
    with AnyReader([tmp_path / "out.bag2"]) as reader:
        durability = {c.topic: c.ext.offered_qos_profiles[0].durability for c in reader.connections}
    assert durability["/segmentation/label_info"] is QosDurability.TRANSIENT_LOCAL
    assert durability["/segmentation/mask"] is QosDurability.VOLATILE


@pytest.mark.usefixtures("rosbags")
def test_a_malformed_message_is_left_out_and_counted(tmp_path: Path, pipeline: Pipeline) -> None:
    write_bag(tmp_path / "in", 5, broken=2)
    outcome = go(tmp_path / "in", tmp_path / "out", pipeline)
    assert dict(outcome.summary.counts.dropped) == {"malformed": 1}
    assert [line["frame"] for line in lines_of(tmp_path / "out")] == ["000000", "000001", "000003", "000004"]


def test_a_video_that_was_cut_off_gives_what_it_has_and_one_error(tmp_path: Path, pipeline: Pipeline) -> None:
    path = tmp_path / "in.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (WIDTH, HEIGHT))
    for number in range(40):
        writer.write(picture(number))
    writer.release()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    outcome = go(path, tmp_path / "out", pipeline)
    assert isinstance(outcome.error, SourceError)
    assert "announces 40 frames" in str(outcome.error)
    assert 10 <= outcome.summary.counts.published == len(lines_of(tmp_path / "out")) < 40


def element(name: str, *content: bytes) -> bytes:
    """One of Matroska: its id in hex, its size in eight bytes."""
    data = b"".join(content)
    return bytes.fromhex(name) + (len(data) | 1 << 56).to_bytes(8, "big") + data


def write_matroska(path: Path, times_ms: Sequence[int], length_ms: int, codec: bytes = b"V_MJPEG") -> None:
    """A video of JPEGs that says that it has ten frames a second, is so long, and of this codec."""
    header = element("1a45dfa3", element("4282", b"matroska"), element("4287", b"\4"), element("4285", b"\2"))
    info = element("1549a966", element("2ad7b1", (10**6).to_bytes(4, "big")), element("4489", pack(">d", length_ms)))
    size = element("e0", element("b0", WIDTH.to_bytes(2, "big")), element("ba", HEIGHT.to_bytes(2, "big")))
    kind = element("d7", b"\1"), element("73c5", b"\1"), element("83", b"\1"), element("86", codec)
    tracks = element("1654ae6b", element("ae", *kind, element("23e383", (10**8).to_bytes(4, "big")), size))
    blocks = [
        element("a3", pack(">BhB", 0x81, time_ms, 0x80), cv2.imencode(".jpg", picture(number))[1].tobytes())
        for number, time_ms in enumerate(times_ms)
    ]
    path.write_bytes(header + element("18538067", info, tracks, element("1f43b675", element("e7", b"\0"), *blocks)))


def test_a_video_without_a_frame_that_can_be_decoded_names_its_codec(tmp_path: Path) -> None:
    """As those in AV1, which OpenCV from pip opens and cannot decode; it called them cut short.

    OpenCV 4.5, as in Ubuntu 22.04, does not say the codec of a Matroska file.
    """
    path = tmp_path / "a drive.mkv"
    write_matroska(path, range(0, 4000, 100), 4000, codec=b"V_VP8")
    with pytest.raises(SourceError, match=r"its codec \((VP80|unknown)\), then do: ffmpeg -i '.*a drive\.mkv' -c:v"):
        list(open_source(path))


def test_a_video_of_a_varying_rate_is_whole_where_its_time_is_over(tmp_path: Path, pipeline: Pipeline) -> None:
    path, times = tmp_path / "in.mkv", [100 * number for number in range(40) if number % 4]
    write_matroska(path, times, 4000)
    capture = cv2.VideoCapture(str(path))
    while capture.read()[0] and not capture.get(cv2.CAP_PROP_POS_MSEC):
        pass
    if not capture.get(cv2.CAP_PROP_POS_MSEC):
        pytest.skip("this OpenCV does not say where in a video it is")
    outcome = go(path, tmp_path / "whole", pipeline)
    assert outcome.error is None and outcome.summary.counts.published == 30
    stamps = [line["stamp_ns"] for line in lines_of(tmp_path / "whole")]
    assert stamps == [(time - times[0]) * 1_000_000 for time in times]
    write_matroska(path, times[:15], 4000)
    outcome = go(path, tmp_path / "cut", pipeline)
    assert isinstance(outcome.error, SourceError) and "cut short" in str(outcome.error)
    assert outcome.summary.counts.published == 15


class Telling:
    """OpenCV at a container that says ten frames a second, and these times."""

    def __init__(self, times_ms: Sequence[float]) -> None:
        self._left, self._now = list(times_ms), 0.0
        self.isOpened, self.release = lambda: True, lambda: None
        self._count = len(times_ms)

    def read(self) -> tuple[bool, np.ndarray]:
        if not self._left:
            return False, np.empty(0)
        self._now = self._left.pop(0)
        return True, picture(0)

    def get(self, what: int) -> float:
        return {cv2.CAP_PROP_FPS: 10.0, cv2.CAP_PROP_FRAME_COUNT: self._count}.get(what, self._now)


@pytest.mark.parametrize(
    ("told_ms", "stamps_ms"),
    [
        ([0, 0, 0, 0], [0, 100, 200, 300]),  # of older releases, which do not say
        ([1000, 1099.5, 1200.5], [0, 100, 200]),
        ([0, 50, 50, 310, 0, 600], [0, 50, 200, 310, 410, 600]),
        ([0, 100, 550, 0, 0, 700], [0, 100, 550, 650, 750, 850]),
    ],
)
def test_stamps_of_a_video_are_those_told_where_they_can_be_and_never_turn_back(
    told_ms: list[float], stamps_ms: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "_capture", lambda name: Telling(told_ms))
    frames = list(VideoSource("drive.mkv"))
    assert [frame.stamp_ns / 1e6 for frame in frames] == pytest.approx(stamps_ms, abs=0.001)


def make(kind: str, path: Path) -> str:
    if kind == "missing":
        return str(path / "nowhere.mp4")
    if kind == "empty folder":
        return str(path)
    if kind == "text as video":
        (path / "notes.mp4").write_text("this is no video")
        return str(path / "notes.mp4")
    if kind == "bitmaps":
        write_images(path, ["a.bmp", "b.tif"])
        return str(path)
    if kind == "doubled stem":
        write_images(path, ["a.png", "a.jpg"])
        return str(path)
    if kind == "list of bags":
        (path / "drives.txt").write_text("".join(f"/data/drives/front_{number:04d}.mcap\n" for number in range(500)))
        return str(path / "drives.txt")
    if kind == "record":
        (path / "20240501.record.00000").write_bytes(bytes(4096))
        return str(path / "20240501.record.00000")
    if kind.endswith("pointer"):
        name = {"video pointer": "drive.mp4", "bag pointer": "drive.bag", "bag folder pointer": "drive_0.db3"}[kind]
        (path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234567\n")
        return str(path if kind == "bag folder pointer" else path / name)
    if kind == "text as bag":
        (path / "notes.mcap").write_text("this is no bag")
        return str(path / "notes.mcap")
    assert kind == "device"
    return "97"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "nowhere.mp4' does not exist; expected 'sim', a video file"),
        ("empty folder", "has no images; expected files ending in .jpeg .jpg .png"),
        ("bitmaps", "has no images; expected files ending in .jpeg .jpg .png"),
        ("text as video", "notes.mp4 (16 bytes) is no video that can be decoded: expected an MP4"),
        ("list of bags", "drives.txt (14500 bytes) is no video that can be decoded"),
        ("record", "record.00000 (4096 bytes) is no video that can be decoded: expected an MP4, AVI, MKV or similar"),
        ("record", "or a bag, which ends in .mcap, .db3 or .bag"),
        ("doubled stem", "several images named 'a'"),
        ("text as bag", "notes.mcap has no readable image topic"),
        ("video pointer", "drive.mp4 is only a pointer of Git LFS: do git lfs pull"),
        ("bag pointer", "drive.bag is only a pointer of Git LFS: do git lfs pull"),
        ("bag folder pointer", "drive_0.db3 is only a pointer of Git LFS: do git lfs pull"),
        ("device", "camera 97 cannot be opened"),
    ],
)
def test_errors_of_sources_name_what_is_there_and_what_was_expected(tmp_path: Path, kind: str, says: str) -> None:
    if "bag" in kind:
        pytest.importorskip("rosbags", reason="rosbags is not installed")
    with pytest.raises(SourceError) as caught:
        open_source(make(kind, tmp_path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said_and_not_left_out(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", 3)
    (tmp_path / "in.mp4").chmod(0)
    with pytest.raises(SourceError, match=r"in\.mp4: Permission denied"):
        open_source(tmp_path / "in.mp4")
    write_images(tmp_path / "drives" / "before", ["a.png"])
    closed = tmp_path / "drives" / "of" / "today"
    write_images(closed, ["b.png"])
    closed.chmod(0)
    try:
        with pytest.raises(SourceError, match="of/today: Permission denied"):
            open_source(tmp_path / "drives")
        with pytest.raises(SourceError, match="of/today: Permission denied"):
            open_truth(tmp_path / "drives", DRIVING, "camvid")
    finally:
        closed.chmod(0o755)


@pytest.mark.usefixtures("rosbags")
def test_the_topic_is_chosen_or_asked_for(tmp_path: Path) -> None:
    write_bag(tmp_path / "two", 1, topic="/left/image_raw", others=("/right/image_raw",))
    with pytest.raises(SourceError, match=r"choose one with --topic: /left/image_raw \(1\), /right/image_raw \(1\)"):
        open_source(str(tmp_path / "two"))
    with pytest.raises(SourceError, match="no image topic '/nose'; it has /left/image_raw"):
        open_source(str(tmp_path / "two"), "/nose")
    assert len(list(open_source(str(tmp_path / "two"), "/right/image_raw"))) == 1
    write_bag(tmp_path / "truth", 1, topic="/camera/image_raw", others=("/camera/truth/mask",))
    assert len(list(open_source(str(tmp_path / "truth")))) == 1


def test_bags_without_rosbags_name_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rosbags", *(name for name in sys.modules if name.startswith("rosbags."))):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "in.mcap").touch()
    for attempt in (
        lambda: open_source(str(tmp_path / "in.mcap")),
        lambda: open_sink(tmp_path / "out.mcap", DRIVING, 30.0),
    ):
        with pytest.raises(MissingDependency, match=r"-m pip install 'rosbags>="):
            attempt()


def test_a_rosbags_that_is_too_old_is_named_and_no_bag_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = pytest.importorskip("rosbags.rosbag2.reader", reason="rosbags is not installed")
    (tmp_path / "in.mcap").touch()
    monkeypatch.delattr(reader, "zstd")  # as before 0.11.6
    for attempt in (
        lambda: open_source(str(tmp_path / "in.mcap")),
        lambda: open_sink(tmp_path / "out.mcap", DRIVING, 30.0),
    ):
        with pytest.raises(MissingDependency, match=r"'rosbags>=0\.11\.7'.*-m pip install 'rosbags>=0\.11\.7,"):
            attempt()


def test_results_are_replaced_only_when_asked_and_strangers_never(tmp_path: Path, pipeline: Pipeline) -> None:
    write_images(tmp_path / "in", NAMES)
    go(tmp_path / "in", tmp_path / "out", pipeline)
    with pytest.raises(ConfigError, match=r"exists already.*--overwrite"):
        open_sink(tmp_path / "out", DRIVING, 30.0)
    assert len(lines_of(tmp_path / "out")) == 3
    open_sink(tmp_path / "out", DRIVING, 30.0, overwrite=True).close()
    assert lines_of(tmp_path / "out") == []
    (tmp_path / "in/thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"files of others \(a.png\)"):
        open_sink(tmp_path / "in", DRIVING, 30.0, overwrite=True)
    assert (tmp_path / "in/thesis.tex").exists()
    with pytest.raises(ConfigError, match=r"must end in .mp4, .mcap or .bag2, or be a folder; got .avi"):
        open_sink(tmp_path / "out.avi", DRIVING, 30.0)
    with pytest.raises(ConfigError, match=r"must end in .mp4, .mcap or .bag2, or be a folder; got .MCAP"):
        open_sink(tmp_path / "OUT.MCAP", DRIVING, 30.0)
    (tmp_path / "drives").mkdir()
    (tmp_path / "drives/monday.mcap").write_text("a recording")
    with pytest.raises(ConfigError, match=r"files of others \(monday.mcap\)"):
        open_sink(tmp_path / "drives", DRIVING, 30.0, overwrite=True)
    (tmp_path / "notes").write_text("years of work")
    with pytest.raises(ConfigError, match="is to be a folder, and a file has that name"):
        open_sink(tmp_path / "notes", DRIVING, 30.0, overwrite=True)
    assert (tmp_path / "drives/monday.mcap").exists() and (tmp_path / "notes").exists()


@pytest.mark.parametrize("name", ["drive.mcap", "drive.bag2", "drive"])
def test_a_rendered_drive_is_replaced_when_asked_for(tmp_path: Path, name: str) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    simulator = Simulator(0, width=96, height=64)
    for again in (False, True):
        sink = open_render_sink(tmp_path / name, again)
        sink.write(0, simulator.frame(0))
        sink.close()
    with pytest.raises(ConfigError, match=r"exists already.*--overwrite"):
        open_render_sink(tmp_path / name)


class FailingSink:
    """Fails at the third write."""

    def __init__(self, folder: Path) -> None:
        self.summary_path = folder / "summary.json"
        self.written: list[str] = []
        self.closed = False

    def write(self, result: PanopticResult) -> None:
        if len(self.written) == 2:
            raise OSError("no space left on device")
        self.written.append(origin_of(result.frame).stem)

    def close(self) -> None:
        self.closed = True


def test_a_full_disk_ends_the_run_and_everything_is_accounted_for(tmp_path: Path, pipeline: Pipeline) -> None:
    write_images(tmp_path / "in", [f"{number:03d}.png" for number in range(20)])
    sink = FailingSink(tmp_path)
    outcome = run(open_source(str(tmp_path / "in")), sink, pipeline, "tiny")
    assert isinstance(outcome.error, DriveSegError) and "no space left" in str(outcome.error)
    counts = outcome.summary.counts
    assert sink.closed and sink.written == ["000", "001"]
    assert counts.published == 2 and counts.in_flight == 0 and counts.failed >= 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("drive_seg_")]


def test_what_progress_raises_ends_the_run_and_is_raised_where_it_was_called(
    tmp_path: Path, pipeline: Pipeline
) -> None:
    def progress(done: int) -> None:
        if done == 2:
            raise LookupError("nobody is left to tell")

    def attempt() -> None:
        with pytest.raises(LookupError, match="nobody is left to tell"):
            run(open_source(str(tmp_path / "in")), sink, pipeline, "tiny", progress=progress)
        raised.set()

    write_images(tmp_path / "in", [f"{number:03d}.png" for number in range(20)])
    sink = open_sink(tmp_path / "out", DRIVING, 10.0)
    raised = threading.Event()
    caller = threading.Thread(target=attempt, daemon=True)
    caller.start()
    caller.join(60.0)
    assert raised.is_set()
    assert 2 <= len(lines_of(tmp_path / "out")) < 20  # on the disk, so it was closed
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("drive_seg_")]


def test_frames_that_the_engine_does_not_take_are_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(count: int) -> None:
        raise EngineError("fell off the bus")

    write_images(tmp_path / "in", NAMES)
    engine = FunctionEngine(network, (WIDTH, HEIGHT), slots=1)
    monkeypatch.setattr(engine.slots[0], "submit", refuse)
    with Pipeline(engine, DRIVING) as pipeline:
        outcome = go(tmp_path / "in", tmp_path / "out", pipeline)
    assert (outcome.summary.counts.failed, outcome.summary.counts.total_dropped) == (3, 0)
    assert "fell off the bus" in str(outcome.error)


class Uneven(FunctionEngine):
    """Computes all its slots at once, from ``submit`` on, and every other frame takes long."""

    def __init__(self, function: NetworkFunction, slots: int) -> None:
        super().__init__(function, (WIDTH, HEIGHT), slots=slots)
        self.pool = ThreadPoolExecutor(slots)
        self.slots = [UnevenSlot(function, self) for _ in range(slots)]
        self.flying = self.most = self.started = 0

    def close(self) -> None:
        self.pool.shutdown()


class UnevenSlot:
    def __init__(self, function: NetworkFunction, engine: Uneven) -> None:
        self.input = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
        self.function, self.engine = function, engine

    def submit(self, count: int) -> None:
        engine = self.engine
        engine.started += 1
        engine.flying += 1
        engine.most = max(engine.most, engine.flying)
        self.running = engine.pool.submit(self.compute, 0.03 if engine.started % 2 else 0.0)

    def compute(self, seconds: float) -> RawOutputs:
        time.sleep(seconds)
        return self.function(self.input)

    def wait(self) -> RawOutputs:
        try:
            return self.running.result()
        except RuntimeError as error:
            raise EngineError(str(error)) from error
        finally:
            self.engine.flying -= 1


def test_frames_in_flight_together_keep_their_order_and_their_masks(tmp_path: Path, pipeline: Pipeline) -> None:
    names = [f"{number:03d}" for number in range(12)]
    write_images(tmp_path / "in", [f"{name}.png" for name in names])
    with Pipeline(FunctionEngine(network, (WIDTH, HEIGHT), slots=1), DRIVING) as one_by_one:
        assert go(tmp_path / "in", tmp_path / "one", one_by_one).summary.in_flight == 1
    engine = Uneven(network, slots=3)
    with Pipeline(engine, DRIVING) as together:
        assert together.slots == 3
        outcome = go(tmp_path / "in", tmp_path / "three", together)
    assert engine.most == 3 and outcome.summary.in_flight == 3
    assert outcome.summary.counts.published == 12 and outcome.error is None
    assert [line["frame"] for line in lines_of(tmp_path / "three")] == names
    assert lines_of(tmp_path / "three") == lines_of(tmp_path / "one")
    for name in names:
        for kind in ("mask", "panoptic"):
            assert (tmp_path / f"three/{kind}/{name}.png").read_bytes() == (
                tmp_path / f"one/{kind}/{name}.png"
            ).read_bytes()


def test_a_frame_that_fails_in_flight_is_counted_once_and_its_slot_goes_on(tmp_path: Path) -> None:
    calls = iter(range(100))

    def moody(batch: np.ndarray) -> RawOutputs:
        if next(calls) in (1, 4, 5):
            raise RuntimeError("out of memory")
        return network(batch)

    write_images(tmp_path / "in", [f"{number:03d}.png" for number in range(10)])
    said: list[str] = []
    with Pipeline(Uneven(moody, slots=3), DRIVING) as pipeline:
        source = open_source(str(tmp_path / "in"))
        outcome = run(source, open_sink(tmp_path / "out", DRIVING, 30.0), pipeline, "tiny", warn=said.append)
        counts = outcome.summary.counts
        assert (counts.received, counts.published, counts.failed, counts.total_dropped) == (10, 7, 3, 0)
        assert len(said) == 3 and "out of memory" in str(outcome.error)
        done = [line["frame"] for line in lines_of(tmp_path / "out")]
        assert len(done) == 7 and done == sorted(done)
        again = go(tmp_path / "in", tmp_path / "again", pipeline)
        assert again.summary.counts.published == 10


def test_a_full_disk_leaves_no_slot_taken(tmp_path: Path) -> None:
    write_images(tmp_path / "in", [f"{number:03d}.png" for number in range(20)])
    with Pipeline(Uneven(network, slots=3), DRIVING) as pipeline:
        outcome = run(open_source(str(tmp_path / "in")), FailingSink(tmp_path), pipeline, "tiny")
        counts = outcome.summary.counts
        assert counts.published == 2 and counts.received == 2 + counts.failed and not counts.dropped
        assert go(tmp_path / "in", tmp_path / "again", pipeline).summary.counts.published == 20


def test_ctrl_c_leaves_readable_results_and_a_balanced_summary(tmp_path: Path) -> None:
    calls = iter(range(100))

    def interrupted(batch: np.ndarray) -> RawOutputs:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return network(batch)

    write_video(tmp_path / "in.mp4", 10)
    with Pipeline(FunctionEngine(interrupted, (WIDTH, HEIGHT)), DRIVING) as pipeline:
        outcome = go(tmp_path / "in.mp4", tmp_path / "out", pipeline)
    assert outcome.interrupted
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["frames"] == {"received": 4, "published": 2, "dropped": {"interrupted": 2}, "failed": 0}
    assert len(lines_of(tmp_path / "out")) == 2


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """Who runs in the background may have inherited that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_ends_a_run_before_its_source_does(tmp_path: Path, pipeline: Pipeline) -> None:
    write_images(tmp_path / "in", [f"{number:03d}.png" for number in range(20)])
    sink = open_sink(tmp_path / "out", DRIVING, 10.0)
    source = open_source(str(tmp_path / "in"))

    def progress(done: int) -> None:
        if done == 1:
            signal.raise_signal(signal.SIGINT)

    assert run(source, sink, pipeline, "tiny", progress=progress).interrupted
    assert len(lines_of(tmp_path / "out")) < 20


@pytest.mark.usefixtures("hears_ctrl_c")
def test_a_second_request_to_end_acts_at_once() -> None:
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_reading_ahead_ends_while_nothing_comes() -> None:
    """Ctrl-C at a stream that hangs."""
    asked, more = iter(range(100)), threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert more.wait(20), "it waits for the next one"
        yield 2

    def stop() -> bool:
        return next(asked) >= 3 and not more.set()

    assert list(prefetch(items(), stop=stop)) == [1]


def test_the_simulator_is_a_source_that_repeats_itself() -> None:
    first, second = (list(zip(range(2), open_source("sim", seed=3), strict=False)) for _ in range(2))
    for (_, one), (_, two) in zip(first, second, strict=True):
        assert isinstance(one, Frame) and isinstance(two, Frame)
        assert np.array_equal(one.image.data, two.image.data) and one.stamp_ns == two.stamp_ns
    assert first[1][1].stamp_ns == round(1e9 / 30)


def test_message_definitions_agree_with_the_interface_package() -> None:
    from drive_seg.offline.vision_msgs import DEFINITIONS

    folder = Path(__file__).parents[1] / "tools/vision_msgs/msg"
    if not folder.is_dir():
        pytest.skip("tools/ is not beside the tests")
    for name, text in DEFINITIONS.items():
        kind = name.rpartition("/")[2]
        written = (folder / f"{kind}.msg").read_text().split()
        # Inside a package its own types may go without the package's name.
        assert [word.removeprefix("vision_msgs/") for word in text.split()] == written, name


@pytest.mark.parametrize(
    ("spec", "live"),
    [
        ("0", True),
        ("/dev/video0", True),
        ("rtsp://camera/1", True),
        ("/dev/video0.mp4", False),
        ("/dev/videos", False),
        ("drive.mp4", False),
        ("a/rtsp://x", False),
        ("-1", False),
    ],
)
def test_devices_and_streams_are_live(spec: str, live: bool) -> None:
    assert is_live(spec) is live
