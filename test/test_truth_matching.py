"""How frames find their truth in a folder: by name, or by a stamp that is a time; never by what only looks like one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings import HEIGHT, WIDTH, picture, stamp_of, write_bag, write_images

from drive_seg.errors import SourceError
from drive_seg.frame import CameraImage, Frame
from drive_seg.labels import DRIVING
from drive_seg.offline.bag_images import IMAGE
from drive_seg.offline.bag_writer import BagFile
from drive_seg.offline.evaluate import evaluate_predictions, evaluate_source
from drive_seg.offline.evaluation import Evaluation
from drive_seg.offline.predictions import open_predictions
from drive_seg.offline.rendering import open_render_sink
from drive_seg.offline.runner import run
from drive_seg.offline.sinks import open_sink
from drive_seg.offline.sources import Origin, open_source, origin_of
from drive_seg.offline.truth import open_truth
from drive_seg.offline.truth_files import open_folder
from drive_seg.pipeline import Pipeline
from drive_seg.sim import Simulator


class Camera:
    """Some frames of a drive, each with the stamp of its number."""

    name, fps, live = "camera", 10.0, False

    def __init__(self, numbers: Sequence[int]) -> None:
        self.count = len(numbers)
        self._numbers = numbers

    def __iter__(self) -> Iterator[Frame]:
        for order, number in enumerate(self._numbers):
            token = Origin(f"{order:06d}", "optical", stamp_of(number))
            yield Frame(CameraImage.from_rgb(picture(number)), stamp_ns=stamp_of(number), token=token)


def segment(numbers: Sequence[int], out: Path, pipeline: Pipeline) -> Path:
    """The results of ``drive_seg run`` for these frames: right to the pixel."""
    assert run(Camera(numbers), open_sink(out, DRIVING, 10.0), pipeline, "tiny").error is None
    return out


def judge(predictions: Path, truth: Path) -> Evaluation:
    opened = open_predictions(str(predictions), DRIVING)
    assert opened is not None
    return evaluate_predictions(opened, open_truth(str(truth), DRIVING), DRIVING).evaluation


def put(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((4, 4), value, np.uint8))


def test_frames_of_one_stamp_use_up_one_truth(tmp_path: Path, pipeline: Pipeline) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    truth = segment(range(6), tmp_path / "truth", pipeline)
    repeated = segment([0, 0, 0, 1, 3, 3, 3, 3], tmp_path / "repeated.mcap", pipeline)
    found = judge(repeated, truth)
    assert found.metrics["frames"] == 8 and found.metrics["semantic"]["miou"] == 1.0
    assert found.metrics["unmatched"] == {"predictions": 0, "truths": 3}


def test_hidden_files_beside_images_and_truths_are_no_frames(tmp_path: Path, pipeline: Pipeline) -> None:
    """As macOS leaves them on disks and in archives that it did not format."""
    write_images(tmp_path / "in", ["a.png", "b.png"])
    segment(range(2), tmp_path / "truth", pipeline)
    for hidden in ("in/._a.png", "truth/panoptic/._000000.png"):
        (tmp_path / hidden).write_bytes(b"\0\5\x16\7 Mac OS X")
    source, truth = open_source(str(tmp_path / "in")), open_truth(str(tmp_path / "truth"), DRIVING)
    assert source.count == 2 and [origin_of(frame).stem for frame in source if isinstance(frame, Frame)] == ["a", "b"]
    assert truth.count == 2


def test_frames_stay_in_order_where_a_list_of_instances_is_missing(tmp_path: Path, pipeline: Pipeline) -> None:
    """The truth has three times the frames: what is asked for late is no longer there."""
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    from rosbags.highlevel import AnyReader
    from rosbags.rosbag2 import StoragePlugin, Writer

    from drive_seg.offline.bag_types import ros2_types

    def copy(source: Path, target: Path, name: str, without: int | None = None) -> Path:
        """Maps and lists under another name, less one of the lists."""
        store = ros2_types()
        with (
            AnyReader([source], default_typestore=store) as reader,
            Writer(target, version=8, storage_plugin=StoragePlugin.MCAP) as writer,
        ):
            for topic in ("panoptic", "instances"):
                connections = [c for c in reader.connections if c.topic == f"/segmentation/{topic}"]
                written = writer.add_connection(f"/{name}/{topic}", connections[0].msgtype, typestore=store)
                for number, (_, recorded, raw) in enumerate(reader.messages(connections)):
                    if topic == "panoptic" or number != without:
                        writer.write(written, recorded, raw)
        return target

    truth = copy(segment(range(36), tmp_path / "all.mcap", pipeline), tmp_path / "truth", "truth")
    some = range(0, 36, 3)
    made = copy(segment(some, tmp_path / "some.mcap", pipeline), tmp_path / "made", "segmentation", without=1)
    found = judge(made, truth)
    assert [frame.stamp_ns for frame in found.frames] == [stamp_of(number) for number in some]
    assert found.metrics["unmatched"] == {"predictions": 0, "truths": 24}


@pytest.mark.parametrize("listed", ["instances.jsonl", "lanes.jsonl"])
def test_predictions_of_a_bag_that_lacks_frames_find_their_own_truth(
    tmp_path: Path, pipeline: Pipeline, listed: str
) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    truth = segment(range(8), tmp_path / "truth", pipeline)
    if listed == "lanes.jsonl":
        rows = [json.loads(line) for line in (truth / "instances.jsonl").read_text().splitlines()]
        lanes = [{"frame": row["frame"], "stamp_ns": row["stamp_ns"], "lanes": []} for row in rows]
        (truth / listed).write_text("".join(json.dumps(row) + "\n" for row in lanes))
        (truth / "instances.jsonl").unlink()
    bag = segment([3, 5, 6], tmp_path / "some.mcap", pipeline)
    found = judge(bag, truth)
    assert found.metrics["semantic"]["miou"] == found.metrics["panoptic"]["all"]["pq"] == 1.0
    assert found.metrics["frames"] == 3 and found.metrics["unmatched"] == {"predictions": 0, "truths": 5}
    assert [frame.frame for frame in found.frames] == [str(stamp_of(number)) for number in (3, 5, 6)]


@pytest.mark.parametrize("knows", ["times", "numbers"])
def test_images_of_a_cut_bag_find_their_own_truth(tmp_path: Path, pipeline: Pipeline, knows: str) -> None:
    """Their running numbers are others than in the whole; they are asked only where the truth knows no times."""
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    truth = segment(range(8), tmp_path / "truth", pipeline)
    if knows == "numbers":
        (truth / "instances.jsonl").unlink()
    cut = open_source(str(write_bag(tmp_path / "cut", 3, first=4)))
    found = evaluate_source(cut, open_truth(str(truth), DRIVING), pipeline, "tiny").evaluation
    assert found.metrics["frames"] == 3 and [frame.frame for frame in found.frames] == ["000000", "000001", "000002"]
    assert (found.metrics["semantic"]["miou"] == 1.0) is (knows == "times")


def test_predictions_of_a_folder_find_the_results_of_a_bag_and_the_other_way_round(
    tmp_path: Path, pipeline: Pipeline
) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    simulator = Simulator(3, WIDTH, HEIGHT)
    for name in ("truth", "truth.mcap"):
        sink = open_render_sink(tmp_path / name)
        for number in range(3):
            sink.write(number, simulator.frame(number))
        sink.close()
    drive = open_source(str(tmp_path / "truth.mcap"))
    for name in ("made", "made.mcap"):
        assert run(drive, open_sink(tmp_path / name, DRIVING, 30.0), pipeline, "tiny").error is None
    pairs = [(made, true) for made in ("made", "made.mcap") for true in ("truth", "truth.mcap")]
    found = [judge(tmp_path / made, tmp_path / true) for made, true in pairs]
    for other in found:
        assert other.metrics["frames"] == 3 and other.metrics["unmatched"] == {"predictions": 0, "truths": 0}
        assert other.metrics == found[0].metrics and other.metrics["panoptic"]["all"]["n"] > 1


def test_a_bag_s_running_numbers_are_no_names(tmp_path: Path, pipeline: Pipeline) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    truth = segment(range(3), tmp_path / "truth", pipeline)
    (truth / "instances.jsonl").unlink()
    bag = segment([1, 2], tmp_path / "some.mcap", pipeline)
    with pytest.raises(SourceError, match=r"none of 2 frames has a truth .*in its instances\.jsonl"):
        judge(bag, truth)
    for number in range(3):
        (truth / f"panoptic/{number:06d}.png").rename(truth / f"panoptic/{stamp_of(number)}.png")
    assert judge(bag, truth).metrics["panoptic"]["all"]["pq"] == 1.0


def test_a_truth_of_masks_has_stamps_too(tmp_path: Path, pipeline: Pipeline) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    truth = segment(range(3), tmp_path / "truth", pipeline)
    (truth / "panoptic").rename(tmp_path / "elsewhere")
    found = judge(segment([1, 2], tmp_path / "some.mcap", pipeline), truth)
    assert found.metrics["semantic"]["miou"] == 1.0 and found.metrics["unmatched"]["truths"] == 1


def test_stamps_that_two_frames_have_find_neither(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / f"mask/{number:06d}.png", number)
    rows = [{"frame": f"{number:06d}", "stamp_ns": 5 if number else 0, "instances": []} for number in range(3)]
    (tmp_path / "instances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_folder(tmp_path, DRIVING)
    assert source.find("", 5) is None
    first = source.find("", 0)
    assert first is not None and first.map[0, 0] == 0


def test_images_of_other_names_have_no_truth_though_their_made_up_stamps_agree(tmp_path: Path) -> None:
    """The stamps of a folder's images count from zero, as those of the simulator do."""
    write_images(tmp_path / "in", ["x.png", "y.png"])
    stamps = [frame.stamp_ns for frame in open_source(str(tmp_path / "in")) if isinstance(frame, Frame)]
    for number, stamp in enumerate(stamps):
        put(tmp_path / f"truth/mask/{number:06d}.png", 1)
        with (tmp_path / "truth/instances.jsonl").open("a") as lines:
            lines.write(json.dumps({"frame": f"{number:06d}", "stamp_ns": stamp, "instances": []}) + "\n")
    source = open_folder(tmp_path / "truth", DRIVING)
    assert [source.find(name, stamp) for name, stamp in zip("xy", stamps, strict=True)] == [None, None]


def test_no_time_is_no_name(tmp_path: Path) -> None:
    """``0.png`` is the truth of the image called so, not of every frame without a stamp."""
    for number in range(3):
        put(tmp_path / f"labels/{number}.png", number)
    source = open_folder(tmp_path, DRIVING)
    assert [source.find(f"{number:06d}", 0) for number in range(3)] == [None] * 3
    found = [source.find(str(number), 0) for number in range(3)]
    assert [int(truth.map[0, 0]) for truth in found if truth is not None] == [0, 1, 2]


@pytest.mark.parametrize(
    ("stamps", "timed"), [((1_000, 2_000), True), ((0, 40_000_000), False), ((5_000, 5_000), False), ((), False)]
)
def test_stamps_are_times_where_none_is_zero_and_one_tells_a_frame(
    tmp_path: Path, stamps: tuple[int, ...], timed: bool
) -> None:
    for number in range(2):
        put(tmp_path / f"mask/{number:06d}.png", 1)
    rows = [{"frame": f"{n:06d}", "stamp_ns": stamp, "instances": []} for n, stamp in enumerate(stamps)]
    (tmp_path / "instances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert open_truth(str(tmp_path), DRIVING).timed is timed


def test_frames_that_come_a_little_late_still_find_their_truth_in_a_bag(tmp_path: Path) -> None:
    """But not all that ever came is kept: a bag may be hours long."""
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    bag = BagFile(tmp_path / "truth.mcap")
    for number in range(30):
        mask = np.full((4, 4), number % 3, np.uint8)
        bag.write("/truth/mask", IMAGE, bag.image(bag.header(stamp_of(number), "optical"), "mono8", mask), number)
    bag.close()
    truth = open_truth(str(tmp_path / "truth.mcap"), DRIVING)
    try:
        for number, there in ((20, True), (18, True), (22, True), (15, True), (5, False), (29, True), (28, True)):
            found = truth.find("", stamp_of(number))
            assert (found is not None) == there, number
            assert found is None or (found.map == number % 3).all()
    finally:
        truth.close()
