"""``drive_seg evaluate`` on files written by the tests: where truth is found, what is counted, what it says."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from command_line import drive_seg, last_object
from evaluations import make_evaluation
from recordings import HEIGHT, WIDTH, Recording, picture, put, stamp_of, write_bag, write_images
from tiny_model import network

from drive_seg.engines import FunctionEngine
from drive_seg.errors import ConfigError, DriveSegError, SourceError
from drive_seg.frame import RawOutputs
from drive_seg.labels import DRIVING, Label, LabelSet
from drive_seg.offline.bags import BagCopy, BagSource
from drive_seg.offline.evaluate import EvaluationOptions, Judged, evaluate_predictions, evaluate_source, label_map_for
from drive_seg.offline.evaluation import Evaluation, FrameLog, FrameScore
from drive_seg.offline.predictions import open_predictions
from drive_seg.offline.rendering import open_render_sink
from drive_seg.offline.runner import run
from drive_seg.offline.simulated import TruthfulSim
from drive_seg.offline.sinks import open_sink
from drive_seg.offline.sources import open_source
from drive_seg.offline.truth import open_truth
from drive_seg.pipeline import Pipeline
from drive_seg.sim import Simulator

NAMES = ["a.png", "b_2.png", "b_10.png"]


@pytest.fixture(autouse=True, params=[2, 8], ids=["two cores", "eight cores"])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recordings are read and written in threads of their own only where there are cores for them."""
    monkeypatch.setattr("drive_seg.offline.prefetch.cpu_threads", lambda: request.param)


def truth_of(number: int) -> np.ndarray:
    """What ``picture(number)`` shows, from the numbers it is painted with."""
    truth = np.ones((HEIGHT, WIDTH), np.uint16)
    left = 16 + 8 * (number % 20)
    truth[80:120, left : left + 48] = 3001
    return truth


def write_truth(folder: Path, names: list[str], kind: str = "panoptic") -> None:
    (folder / kind).mkdir(parents=True)
    for number, name in enumerate(names):
        truth = truth_of(number)
        image = truth if kind == "panoptic" else np.where(truth >= 1000, 3, truth).astype(np.uint8)
        assert cv2.imwrite(str(folder / kind / name), image)


def write_truth_bag(
    path: Path,
    numbers: Iterable[int],
    *,
    camera: bool | int | Sequence[int],
    shift: int = 0,
    encoding: str = "16UC1",
    late: int = 0,
    topic: str = "",
    unset: bool = False,
) -> None:
    """A bag with ``/camera/truth/panoptic`` (or mask) of these frames, stamps as ``write_bag``'s plus ``shift`` ns.

    Args:
        topic: another one for the truth.
        camera: with the images of these frames, or so many images, or those of other frames.
        late: frames by which truths were recorded after their images.
        unset: nobody filled the stamps in: they are 0.
    """
    image, truth = "/camera/image_raw", topic or f"/camera/truth/{'panoptic' if encoding == '16UC1' else 'mask'}"
    numbers = list(numbers)
    images = numbers if camera is True else range(camera) if isinstance(camera, int) else camera
    messages = [(stamp_of(order), image, number) for order, number in enumerate(images)]
    places = {number: order for order, number in enumerate(images)} or {n: order for order, n in enumerate(numbers)}
    messages += [(stamp_of(places[number] + late), truth, number) for number in numbers]
    with Recording(path) as bag:
        for recorded, topic, number in sorted(messages):
            pixels = picture(number) if topic == image else truth_of(number)
            name = "rgb8" if topic == image else encoding
            if name in ("mono8", "8UC1"):
                pixels = np.where(pixels >= 1000, 3, pixels).astype(np.uint8)
            header = bag.header(0 if unset else stamp_of(number) + shift)
            bag.write(topic, bag.image(header, name, pixels), recorded)


def perfect(document: dict[str, Any], frames: int) -> None:
    assert document["frames"] == frames
    assert document["panoptic"]["all"] == {"pq": 1.0, "sq": 1.0, "rq": 1.0, "n": 2}
    assert document["panoptic"]["per_class"]["vehicle"]["tp"] == frames
    assert document["semantic"]["miou"] == document["instance"]["ap"] == 1.0


def judge(source: Path, truth: Path, pipeline: Pipeline, **options: Any) -> Evaluation:
    kind = options.pop("kind", "auto")
    opened = open_truth(str(truth), DRIVING, kind)
    outcome = evaluate_source(open_source(str(source)), opened, pipeline, "tiny", EvaluationOptions(**options))
    assert outcome.error is None
    return outcome.evaluation


def test_images_and_truth_are_matched_by_name(tmp_path: Path, pipeline: Pipeline) -> None:
    write_images(tmp_path / "in", NAMES)
    write_truth(tmp_path / "truth", NAMES)
    found = judge(tmp_path / "in", tmp_path / "truth", pipeline)
    perfect(found.to_dict(), 3)
    assert found.metrics["unmatched"] == {"predictions": 0, "truths": 0}
    assert [frame.frame for frame in found.frames] == ["a", "b_2", "b_10"]
    assert set(found.latency) >= {"decode", "preprocess", "inference", "postprocess"}


def test_a_wrong_frame_is_found_and_counted(tmp_path: Path, pipeline: Pipeline) -> None:
    write_images(tmp_path / "in", NAMES)
    write_truth(tmp_path / "truth", NAMES)
    nothing = np.ones((HEIGHT, WIDTH), np.uint16)
    cv2.imwrite(str(tmp_path / "truth/panoptic/b_2.png"), nothing)
    found = judge(tmp_path / "in", tmp_path / "truth", pipeline)
    row = found.metrics["panoptic"]["per_class"]["vehicle"]
    assert (row["tp"], row["fp"], row["fn"]) == (2, 1, 0) and row["rq"] == 2 / 2.5
    assert min(found.frames, key=lambda frame: frame.pq).frame == "b_2"
    assert found.metrics["semantic"]["confusion"][1][3] == 48 * 40


def test_frames_without_truth_and_truth_without_frames_are_counted(tmp_path: Path, pipeline: Pipeline) -> None:
    write_images(tmp_path / "in", NAMES)
    write_truth(tmp_path / "truth", [NAMES[0], NAMES[1], "x.png", "y.png"])
    found = judge(tmp_path / "in", tmp_path / "truth", pipeline)
    assert found.metrics["frames"] == 2 and found.metrics["unmatched"] == {"predictions": 1, "truths": 2}


def test_nothing_in_common_is_an_error(tmp_path: Path, pipeline: Pipeline) -> None:
    write_images(tmp_path / "in", NAMES)
    write_truth(tmp_path / "truth", ["x.png"])
    with pytest.raises(
        SourceError, match=r"none of 3 frames has a truth in .*; frames and truth must have equal names"
    ):
        judge(tmp_path / "in", tmp_path / "truth", pipeline)


def test_sizes_must_agree(tmp_path: Path, pipeline: Pipeline) -> None:
    write_images(tmp_path / "in", NAMES)
    (tmp_path / "truth/panoptic").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "truth/panoptic/a.png"), np.ones((10, 20), np.uint16))
    with pytest.raises(SourceError, match="frame a: the truth has 20x10 pixels, the prediction 320x192"):
        judge(tmp_path / "in", tmp_path / "truth", pipeline)


@pytest.mark.parametrize("encoding", ["16UC1", "mono8"])
def test_a_bag_brings_its_own_truth(tmp_path: Path, pipeline: Pipeline, encoding: str) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_truth_bag(tmp_path / "in", range(5), camera=True, encoding=encoding)
    found = judge(tmp_path / "in", tmp_path / "in", pipeline)
    if encoding == "16UC1":
        perfect(found.to_dict(), 5)
    else:
        assert found.metrics["semantic"]["miou"] == 1.0 and found.metrics["panoptic"]["things"]["n"] == 0
    assert found.metrics["temporal"]["pairs"] == 4


def test_bags_are_matched_by_stamp(tmp_path: Path, pipeline: Pipeline) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_bag(tmp_path / "in", 5)
    write_truth_bag(tmp_path / "truth", range(3), camera=False)
    found = judge(tmp_path / "in", tmp_path / "truth", pipeline)
    perfect(found.to_dict(), 3)
    assert found.metrics["unmatched"] == {"predictions": 2, "truths": 0}
    write_truth_bag(tmp_path / "longer", range(9), camera=False)
    assert judge(tmp_path / "in", tmp_path / "longer", pipeline).metrics["unmatched"] == {"predictions": 0, "truths": 4}
    write_truth_bag(tmp_path / "late", range(5), camera=False, shift=1)
    with pytest.raises(SourceError, match="none of 5 frames has a truth"):
        judge(tmp_path / "in", tmp_path / "late", pipeline)


def test_truth_that_is_sparse_and_out_of_step_is_found_all_the_same(tmp_path: Path, pipeline: Pipeline) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_bag(tmp_path / "in", 40)
    numbers = [number ^ 1 for number in range(40) if number % 5 < 2 or number > 30]
    write_truth_bag(tmp_path / "truth", numbers, camera=False)
    found = judge(tmp_path / "in", tmp_path / "truth", pipeline)
    perfect(found.to_dict(), len(numbers))
    assert [int(frame.frame) for frame in found.frames] == sorted(numbers)
    assert found.metrics["unmatched"]["predictions"] == 40 - len(numbers)


@pytest.mark.parametrize("late", [-40, 0, 3, 25, 90], ids="{} frames late".format)
@pytest.mark.parametrize("every", [1, 13])
def test_truth_far_from_its_images_in_the_same_bag_is_found(
    tmp_path: Path, pipeline: Pipeline, late: int, every: int
) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    numbers = range(0, 60, every)
    write_truth_bag(tmp_path / "in", numbers, camera=60, late=late)
    found = judge(tmp_path / "in", tmp_path / "in", pipeline)
    perfect(found.to_dict(), len(numbers))
    assert [int(frame.frame) for frame in found.frames] == list(numbers)
    assert found.metrics["unmatched"] == {"predictions": 60 - len(numbers), "truths": 0}


def test_of_two_images_of_one_stamp_the_first_has_its_truth(tmp_path: Path, pipeline: Pipeline) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_truth_bag(tmp_path / "in", range(20), camera=[number // 2 for number in range(40)])
    found = judge(tmp_path / "in", tmp_path / "in", pipeline)
    perfect(found.to_dict(), 20)
    assert [int(frame.frame) for frame in found.frames] == list(range(0, 40, 2))
    assert found.metrics["unmatched"] == {"predictions": 20, "truths": 0}


def test_truth_whose_stamps_nobody_filled_in_is_refused(tmp_path: Path, pipeline: Pipeline) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_truth_bag(tmp_path / "in", range(20), camera=True, unset=True)
    source, truth = str(tmp_path / "in"), open_truth(str(tmp_path / "in"), DRIVING)
    outcome = evaluate_source(open_source(source), truth, pipeline, "tiny")
    assert outcome.evaluation.metrics["frames"] == 1
    assert "/camera/truth/panoptic" in str(outcome.error) and "different images of one stamp (0)" in str(outcome.error)


def test_a_bag_damaged_in_the_middle_is_scored_up_to_there(tmp_path: Path, pipeline: Pipeline) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_truth_bag(tmp_path / "in", range(40), camera=True)
    (data,) = (tmp_path / "in").glob("*.mcap")
    content = bytearray(data.read_bytes())
    middle, size = len(content) // 2, len(content) // 20
    content[middle : middle + size] = np.random.default_rng(0).bytes(size)
    data.write_bytes(content)
    source, truth = str(tmp_path / "in"), open_truth(str(tmp_path / "in"), DRIVING)
    outcome = evaluate_source(open_source(source), truth, pipeline, "tiny")
    assert isinstance(outcome.error, SourceError) and "is damaged" in str(outcome.error)
    scored = outcome.evaluation.metrics["frames"]
    assert 5 < scored < 21
    perfect(outcome.evaluation.to_dict(), scored)


def test_a_damaged_truth_of_a_bag_that_was_cut_off_is_missing_and_the_others_count(
    tmp_path: Path, pipeline: Pipeline
) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_truth_bag(tmp_path / "truth", range(12), camera=False)
    write_bag(tmp_path / "in", 12, topic="/camera/image_raw")
    (data,) = (tmp_path / "truth").glob("*.mcap")
    content = bytearray(data.read_bytes())
    encodings = [place.start() for place in re.finditer(rb"\x06\0\0\x0016UC1\0", content)]
    content[encodings[3] : encodings[3] + 4] = b"\xff" * 4  # the length of its text
    data.write_bytes(content[: encodings[9]])
    outcome = evaluate_source(
        open_source(str(tmp_path / "in")), open_truth(str(tmp_path / "truth"), DRIVING), pipeline, "tiny"
    )
    assert outcome.error is None
    perfect(outcome.evaluation.to_dict(), 8)  # 0..8 without 3
    assert outcome.evaluation.to_dict()["unmatched"]["predictions"] == 4


@pytest.mark.parametrize(("encoding", "apart"), [("mono8", False), ("8UC1", False), ("16UC1", True)])
@pytest.mark.parametrize("topic", ["/gt/labels", "/semantic/ids"])
def test_a_topic_whose_name_says_nothing_has_objects_where_its_images_do(
    tmp_path: Path, pipeline: Pipeline, topic: str, encoding: str, apart: bool
) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_truth_bag(tmp_path / "in", range(3), camera=True, encoding=encoding, topic=topic)
    truth = open_truth(str(tmp_path / "in"), DRIVING, topic=topic)
    found = evaluate_source(open_source(str(tmp_path / "in")), truth, pipeline, "tiny", EvaluationOptions())
    assert truth.instances == apart and found.evaluation.metrics["semantic"]["miou"] == 1.0
    assert found.evaluation.metrics["panoptic"]["things"]["pq"] == (1.0 if apart else None)


def test_compressed_images_are_no_truth(tmp_path: Path) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    with Recording(tmp_path / "in") as bag:
        bag.add("/gt/labels/compressed", "sensor_msgs/msg/CompressedImage")
        bag.add("/gt/labels", "sensor_msgs/msg/Image")
    with pytest.raises(SourceError, match=r"no topic '/gt/labels/compressed' of .*msg/Image.* has /gt/labels$"):
        open_truth(str(tmp_path / "in"), DRIVING, topic="/gt/labels/compressed")


def test_objects_are_told_apart_in_a_namespace_that_is_called_semantic(tmp_path: Path) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_truth_bag(tmp_path / "in", [0], camera=False, topic="/semantic/truth/panoptic")
    source = open_truth(str(tmp_path / "in"), DRIVING)
    source.close()
    assert source.instances


def test_carlas_instance_camera_in_a_bag(tmp_path: Path) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    bgra = np.array([[[9, 0, 1, 255], [0, 1, 14, 255], [1, 0, 14, 255], [9, 0, 24, 255]]], np.uint8)
    with Recording(tmp_path / "in", "sqlite3") as bag:
        message = bag.image(bag.header(3_000_000_005), "bgra8", bgra)
        bag.write("/carla/ego/instance_segmentation_front/image", message, 0)
    source = open_truth(str(tmp_path / "in"), DRIVING)
    truth = source.find("000000", 3_000_000_005)
    source.close()
    assert truth is not None and truth.classes is not None and source.label_map == "carla" and source.instances
    assert truth.classes[truth.map].tolist() == [[1, 14, 14, 24]] and truth.map[0, 1] != truth.map[0, 2]


def test_a_bag_without_truth_lists_its_topics(tmp_path: Path) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_bag(tmp_path / "in", 1)
    with pytest.raises(SourceError, match=r"has no ground truth topic .*truth/panoptic.*it has /front/image_raw"):
        open_truth(str(tmp_path / "in"), DRIVING)


@pytest.mark.parametrize("ending", ["", ".mcap", ".bag2"], ids=["folder", "mcap", "sqlite"])
def test_predictions_of_run_score_as_the_run_itself(tmp_path: Path, pipeline: Pipeline, ending: str) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_truth_bag(tmp_path / "in", range(6), camera=True)
    made = tmp_path / f"out{ending}"
    opened = open_source(str(tmp_path / "in"))
    assert run(opened, open_sink(made, DRIVING, 30.0), pipeline, "tiny").error is None
    predictions = open_predictions(str(made), DRIVING)
    assert predictions is not None and predictions.instances and predictions.count == 6
    later = evaluate_predictions(predictions, open_truth(str(tmp_path / "in"), DRIVING), DRIVING).evaluation
    at_once = judge(tmp_path / "in", tmp_path / "in", pipeline)
    for key in ("frames", "panoptic", "semantic", "boundary", "lane", "instance"):
        assert later.metrics[key] == at_once.metrics[key], key
    assert later.metrics["fps"] is None and later.environment["model"] == "tiny"
    assert set(later.latency) - {"publish"} == set(at_once.latency)


def predictions_listed(folder: Path, numbers: list[int]) -> Judged:
    """Scores six right predictions, of which the list has these lines."""
    for side in ("truth", "out"):
        write_truth(folder / side, [f"{number:06d}.png" for number in range(6)])
    rows = [{"frame": f"{n:06d}", "stamp_ns": n * 10**8, "instances": [{"id": "3001", "score": 1.0}]} for n in numbers]
    (folder / "out/instances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    predictions = open_predictions(str(folder / "out"), DRIVING)
    assert predictions is not None
    return evaluate_predictions(predictions, open_truth(str(folder / "truth"), DRIVING), DRIVING)


def test_frames_that_the_list_leaves_out_are_told_and_not_scored_at_a_time_that_is_made_up(tmp_path: Path) -> None:
    judged = predictions_listed(tmp_path / "some", [0, 1, 4, 5])
    assert judged.evaluation.metrics["frames"] == 4 and judged.evaluation.metrics["unmatched"]["truths"] == 2
    assert re.search(r"instances\.jsonl has no line for 2 of the 6 frames .* such as 000002;", str(judged.error))
    with pytest.raises(SourceError, match=r"instances\.jsonl has no line for 6 of the 6 frames"):
        predictions_listed(tmp_path / "none", [])


def test_a_list_out_of_order_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"instances\.jsonl: frame 000001 comes behind 000002 .* order of time"):
        predictions_listed(tmp_path, [0, 2, 1, 3, 4, 5])


def test_ctrl_c_keeps_the_figures_of_the_predictions_scored_so_far(tmp_path: Path, pipeline: Pipeline) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_truth_bag(tmp_path / "in", range(12), camera=True)
    sink = open_sink(tmp_path / "out", DRIVING, 30.0)
    assert run(open_source(str(tmp_path / "in")), sink, pipeline, "tiny").error is None
    predictions = open_predictions(str(tmp_path / "out"), DRIVING)
    assert predictions is not None
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        judged = evaluate_predictions(
            predictions,
            open_truth(str(tmp_path / "in"), DRIVING),
            DRIVING,
            progress=lambda done: signal.raise_signal(signal.SIGINT) if done == 5 else None,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert judged.interrupted and judged.error is None
    assert judged.evaluation.metrics["frames"] == 5


def test_a_bag_of_predictions_may_hold_its_truth(tmp_path: Path, pipeline: Pipeline) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_truth_bag(tmp_path / "in", range(4), camera=True)
    opened = open_source(str(tmp_path / "in"))
    assert isinstance(opened, BagSource)
    for name, source in (("both", BagCopy(opened)), ("alone", opened)):
        assert run(source, open_sink(tmp_path / f"{name}.mcap", DRIVING, 30.0), pipeline, "tiny").error is None
    perfect(last_object(drive_seg("evaluate", tmp_path / "both.mcap", "--json")), 4)
    said = drive_seg("evaluate", tmp_path / "alone.mcap", code=1).stderr
    assert "has no ground truth topic" in said and "--ground-truth" in said


def test_predictions_of_a_bag_that_was_cut_off_are_scored_and_then_an_error(
    tmp_path: Path, pipeline: Pipeline, model: Path
) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_truth_bag(tmp_path / "in", range(20), camera=True)
    out = tmp_path / "out.mcap"
    opened = open_source(str(tmp_path / "in"))
    assert run(opened, open_sink(out, DRIVING, 30.0), pipeline, "tiny").error is None
    out.write_bytes(out.read_bytes()[: out.stat().st_size // 2])
    said = drive_seg("evaluate", out, "--ground-truth", tmp_path / "in", "--model", model, "--json", code=1)
    metrics = last_object(said)
    assert 0 < metrics["frames"] < 20 == metrics["frames"] + metrics["unmatched"]["truths"]
    assert said.stderr.count("error:") == 1 and "out.mcap is cut short or damaged" in said.stderr


def recorded_from_node(out: Path, results: dict[str, Path]) -> None:
    """The results of several bags in one, under the topics that a node of so many cameras has."""
    from rosbags.rosbag2 import Reader, StoragePlugin, Writer

    with Writer(out, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        for camera, bag in results.items():
            with Reader(bag) as reader:
                made = {
                    one.id: writer.add_connection(
                        one.topic.replace("/segmentation/", f"/segmentation/{camera}/"),
                        one.msgtype,
                        msgdef=one.msgdef.data,
                        rihs01=one.digest,
                    )
                    for one in reader.connections
                }
                for connection, stamp, data in reader.messages():
                    writer.write(made[connection.id], stamp, bytes(data))


def test_of_a_node_s_several_cameras_one_is_scored(tmp_path: Path, pipeline: Pipeline) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    results = {}
    for camera, numbers in (("front", range(4)), ("rear", range(10, 16))):
        write_truth_bag(tmp_path / camera, numbers, camera=True)
        results[camera] = tmp_path / f"{camera}.bag2"
        opened = open_source(str(tmp_path / camera))
        assert run(opened, open_sink(results[camera], DRIVING, 30.0), pipeline, "tiny").error is None
    recorded_from_node(tmp_path / "both", results)
    given = ("evaluate", tmp_path / "both", "--json", "-g")
    said = drive_seg(*given, tmp_path / "front", code=1).stderr
    assert "--topic: /segmentation/front/panoptic, /segmentation/rear/panoptic" in said
    for camera, frames in (("front", 4), ("rear", 6)):
        topic = f"/segmentation/{camera}/panoptic"
        perfect(last_object(drive_seg(*given, tmp_path / camera, "--topic", topic)), frames)
    recorded_from_node(tmp_path / "one", {"rear": results["rear"]})
    perfect(last_object(drive_seg("evaluate", tmp_path / "one", "--json", "-g", tmp_path / "rear")), 6)


def test_with_the_topic_of_its_images_a_bag_of_results_is_run_again(tmp_path: Path, pipeline: Pipeline) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_truth_bag(tmp_path / "in", range(3), camera=True)
    opened = open_source(str(tmp_path / "in"))
    assert isinstance(opened, BagSource)
    made = tmp_path / "both.mcap"
    assert run(BagCopy(opened), open_sink(made, DRIVING, 30.0), pipeline, "tiny").error is None
    assert open_predictions(str(made), DRIVING) is not None
    assert open_predictions(str(made), DRIVING, "/segmentation/mask") is not None
    assert open_predictions(str(made), DRIVING, opened.topic) is None


def test_a_source_is_not_taken_for_predictions(tmp_path: Path) -> None:
    write_images(tmp_path / "in/image", NAMES)
    write_truth(tmp_path / "in", NAMES)
    assert open_predictions(str(tmp_path / "in"), DRIVING) is None
    assert open_predictions("sim", DRIVING) is None


def test_files_hold_what_the_evaluation_holds(tmp_path: Path, pipeline: Pipeline) -> None:
    write_images(tmp_path / "in", NAMES)
    write_truth(tmp_path / "truth", NAMES)
    found = judge(
        tmp_path / "in", tmp_path / "truth", pipeline, out=tmp_path / "report", command="drive_seg evaluate x"
    )
    found.write(tmp_path / "report")
    document = json.loads((tmp_path / "report/metrics.json").read_text())
    assert document == json.loads(json.dumps(found.to_dict()))
    keys = "schema frames unmatched labels panoptic semantic boundary lane instance temporal tracking fps"
    assert list(document) == [*keys.split(), "latency_ms", "environment", "command"]
    assert document["schema"] == 1 and document["command"] == "drive_seg evaluate x"
    lines = (tmp_path / "report/frames.jsonl").read_text().splitlines()
    assert [FrameScore.from_dict(json.loads(line)) for line in lines] == list(found.frames)
    again = Evaluation.read(tmp_path / "report")
    assert again.to_dict() == document and list(again.frames) == list(found.frames)
    assert again.frames[-1].frame == "b_10" and [f.frame for f in again.frames[:2]] == ["a", "b_2"]


def test_where_there_is_no_room_for_frames_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before, score = resource.getrlimit(resource.RLIMIT_FSIZE), make_evaluation(1).frames[0]
    with tempfile.TemporaryFile("w+") as file:
        log = FrameLog(file)
        log.append(score)  # small enough to wait in the file's buffer
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))
        try:
            with pytest.raises(DriveSegError, match=f"cannot write a temporary file in {tmp_path}"):
                log.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_machine_without_a_temporary_folder_is_one_error(tmp_path: Path, model: Path) -> None:
    """As a container whose root is read-only; here as nothing at all can be written."""
    write_images(tmp_path / "in", NAMES)
    write_truth(tmp_path / "truth", NAMES)
    drive_seg("run", tmp_path / "in", "-o", tmp_path / "made", "--model", model)
    command = [sys.executable, "-m", "drive_seg", "evaluate", tmp_path / "made", "-g", tmp_path / "truth"]
    done = subprocess.run(
        list(map(str, command)),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY)),
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = [line for line in done.stderr.splitlines() if "error:" in line]
    assert done.returncode == 1 and "No usable temporary directory" in line and "TMPDIR=FOLDER" in line
    assert "internal" not in line


def test_other_schemas_are_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"schema": 2}')
    with pytest.raises(SourceError, match="has schema 2, expected 1"):
        Evaluation.read(tmp_path)
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(SourceError, match="has schema None"):
        Evaluation.read(tmp_path / "metrics.json")


def test_the_simulator_is_its_own_truth(pipeline: Pipeline) -> None:
    sim = TruthfulSim(3, seed=5, size=(WIDTH, HEIGHT))
    found = evaluate_source(sim, sim, pipeline, "tiny").evaluation
    assert found.metrics["frames"] == 3 and found.metrics["unmatched"] == {"predictions": 0, "truths": 0}


def test_an_engine_that_fails_leaves_the_figures_so_far(tmp_path: Path) -> None:
    calls = iter(range(100))

    def moody(batch: np.ndarray) -> RawOutputs:
        if next(calls) == 1:
            raise RuntimeError("out of memory")
        return network(batch)

    write_images(tmp_path / "in", NAMES)
    write_truth(tmp_path / "truth", NAMES)
    with Pipeline(FunctionEngine(moody, (WIDTH, HEIGHT)), DRIVING) as pipeline:
        truth = open_truth(str(tmp_path / "truth"), DRIVING)
        outcome = evaluate_source(open_source(str(tmp_path / "in")), truth, pipeline, "tiny")
    assert outcome.error is not None and "out of memory" in str(outcome.error)
    assert outcome.evaluation.metrics["frames"] == 2 and outcome.evaluation.metrics["unmatched"]["truths"] == 1


def test_cityscapes_has_a_folder_for_each_city(tmp_path: Path, pipeline: Pipeline) -> None:
    ids = np.where(truth_of(0) >= 1000, 26, 7)
    for city in ("bonn", "ulm"):
        name = f"{city}_000001_000019"
        write_images(tmp_path / f"leftImg8bit/val/{city}", [f"{name}_leftImg8bit.png"])
        put(tmp_path / f"gtFine/val/{city}/{name}_gtFine_labelIds.png", ids)
    found = judge(tmp_path / "leftImg8bit/val", tmp_path / "gtFine/val", pipeline)
    assert [frame.frame for frame in found.frames] == [
        "bonn_000001_000019_leftImg8bit",
        "ulm_000001_000019_leftImg8bit",
    ]
    assert found.metrics["semantic"]["miou"] == 1.0 and found.metrics["unmatched"] == {"predictions": 0, "truths": 0}


def test_a_truth_topic_of_other_classes_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    write_truth_bag(tmp_path / "in", [0], camera=False)
    labels = LabelSet(tuple(label for label in DRIVING if label.id < 3))
    source = open_truth(str(tmp_path / "in"), labels)
    with pytest.raises(SourceError, match=r"truth/panoptic of .* has panoptic id 3001 \(class 3\)"):
        source.find("", stamp_of(0))
    source.close()


OTHERS = LabelSet(
    tuple(Label(number, name, number > 2, (0, 0, 0)) for number, name in enumerate(["road", "sky", "wall", "car"]))
)


def test_a_recorded_truth_has_the_classes_that_it_was_recorded_with(tmp_path: Path) -> None:
    """Not those that its ids are in the model."""
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    recording = open_render_sink(tmp_path / "in.mcap")
    recording.write(0, Simulator(width=WIDTH, height=HEIGHT).frame(0))
    recording.close()
    source = open_truth(str(tmp_path / "in.mcap"), OTHERS)
    assert source.classes == {label.name: label.id for label in DRIVING}
    with pytest.raises(ConfigError, match="bring them together with --label-map"):
        label_map_for(source, OTHERS)
    with pytest.raises(SourceError, match=r"is a bag, .* the format cityscapes is one of folders"):
        open_truth(str(tmp_path / "in.mcap"), OTHERS, "cityscapes")
    names = {"road": {"truth": ["road"], "predicted": ["road", "sky", "wall"]}, "car": {"truth": ["vehicle"]}}
    (tmp_path / "map.yaml").write_text(json.dumps({"classes": names}))
    assert label_map_for(source, OTHERS, str(tmp_path / "map.yaml")).truth[:5].tolist() == [255, 0, 255, 1, 255]
    source.close()


@pytest.mark.parametrize("side", ["truth", "predictions"])
def test_instances_of_another_model_are_refused(tmp_path: Path, pipeline: Pipeline, side: str) -> None:
    write_images(tmp_path / "in", NAMES)
    run(open_source(str(tmp_path / "in")), open_sink(tmp_path / "out", DRIVING, 30), pipeline, "tiny")
    take = {"truth": open_truth, "predictions": lambda *given: list(open_predictions(*given) or ())}[side]
    with pytest.raises(SourceError, match="line 1 'vehicle' has the id 3, while the model has 0 road, 1 sky, "):
        take(str(tmp_path / "out"), OTHERS)


def test_a_label_map_joins_classes(tmp_path: Path, pipeline: Pipeline) -> None:
    write_images(tmp_path / "in", NAMES)
    write_truth(tmp_path / "truth", NAMES)
    rows = {"road": {}, "rest": {"truth": ["background"], "predicted": ["background", "lane_marking"]}}
    joint = {"truth": ["vehicle", "cyclist"], "predicted": ["vehicle", "pedestrian", "cyclist"]}
    path = tmp_path / "map.yaml"
    path.write_text(yaml.safe_dump({"classes": {**rows, "mover": joint}}, sort_keys=False))
    found = judge(tmp_path / "in", tmp_path / "truth", pipeline, label_map=str(path))
    assert [row["name"] for row in found.metrics["labels"]] == ["road", "rest", "mover"]
    assert found.metrics["panoptic"]["per_class"]["mover"]["tp"] == 3 and found.metrics["lane"]["f1"] is None


def test_the_command_prints_a_table_and_writes_its_files(tmp_path: Path, model: Path) -> None:
    for package in ("rosbags", "jinja2", "matplotlib"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    write_truth_bag(tmp_path / "in", range(4), camera=True)
    out = tmp_path / "report"
    options = ("--model", model, "-o", out)
    arguments = ("evaluate", tmp_path / "in", *options)
    printed = drive_seg(*arguments).stdout
    assert "vehicle" in printed and "100.0" in printed
    perfect(json.loads((out / "metrics.json").read_text()), 4)
    assert len((out / "frames.jsonl").read_text().splitlines()) == 4 and (out / "report.html").stat().st_size > 1000
    said = drive_seg(*arguments, code=1).stderr
    assert "exists already" in said and "--overwrite" in said
    for code, *broken in (
        (2, "--network-size", "7x7"),
        (1, "--label-map", "nowhere"),
        (1, "--truth-topic", "/no/such"),
        (1, "-g", tmp_path / "nowhere"),
    ):
        drive_seg(*arguments, "--overwrite", *broken, code=code)
        assert (out / "report.html").exists(), broken
    (tmp_path / "drives.txt").write_text("in\nnowhere\n")
    drive_seg("evaluate", tmp_path / "drives.txt", *options, "--overwrite", code=1)
    assert (out / "report.html").exists()
    assert last_object(drive_seg(*arguments, "--overwrite", "--json")) == json.loads((out / "metrics.json").read_text())


def test_the_command_scores_folders_and_says_what_is_missing(tmp_path: Path, model: Path) -> None:
    write_images(tmp_path / "in", NAMES)
    write_truth(tmp_path / "truth", NAMES)
    made, truth = tmp_path / "made", tmp_path / "truth"
    drive_seg("run", tmp_path / "in", "-o", made, "--model", model)
    perfect(last_object(drive_seg("evaluate", made, "-g", truth, "--json")), 3)
    said = drive_seg("evaluate", made, code=1).stderr
    assert "holds predictions only; name their truth with --ground-truth" in said
    assert "nowhere' does not exist" in drive_seg("evaluate", made, "-g", tmp_path / "nowhere", code=1).stderr
    said = drive_seg("evaluate", tmp_path / "nowhere", code=1).stderr
    assert "nowhere' is no file or folder" in said and "ground truth '" not in said
    drive_seg("evaluate", made, "-g", truth, "--format", "bmp", code=2)
    drive_seg("evaluate", code=2)
    assert "--engine ray" in drive_seg("evaluate", made, "-g", truth, "--workers", 2, code=2).stderr


def test_real_frames_score_as_the_models_card_says() -> None:
    data = os.environ.get("DRIVE_SEG_DATA")
    if not data or not (Path(data) / "camvid32/val/labels").is_dir():
        pytest.skip("DRIVE_SEG_DATA names no folder with camvid32/val")
    from drive_seg import open_pipeline

    folder = Path(data) / "camvid32/val"
    with open_pipeline() as pipeline:
        truth = open_truth(str(folder), pipeline.labels)
        limit = EvaluationOptions(limit=20)
        found = evaluate_source(open_source(str(folder / "images")), truth, pipeline, "default", limit).evaluation
    ious = found.metrics["semantic"]["per_class"]
    assert ious["background"] > 0.9 and ious["road"] > 0.8 and ious["lane_marking"] > 0.3 and ious["vehicle"] > 0.5
    assert found.metrics["unmatched"]["truths"] == 80
