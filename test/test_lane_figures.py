"""Lane boundaries scored, written and read: the metric beside a slow one, files, bags, the simulator's truth."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from command_line import drive_seg, last_object
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from roads import FlatRoad
from tiny_model import RED_PER_CLASS, paint_mask, write_tiny_model

from drive_seg.errors import SourceError
from drive_seg.frame import CameraImage, Frame, Lane, PanopticResult
from drive_seg.labels import DRIVING, LabelSet
from drive_seg.offline.evaluate import EvaluationOptions, evaluate_predictions
from drive_seg.offline.lane_files import LANES_FILE, LaneReader, LaneWriter
from drive_seg.offline.metrics import LineScore, compare_lines
from drive_seg.offline.predictions import Answer, open_predictions
from drive_seg.offline.rendering import open_render_sink
from drive_seg.offline.scoring import Prediction
from drive_seg.offline.simulated import TruthfulSim
from drive_seg.offline.sinks import open_sink
from drive_seg.offline.sources import Origin
from drive_seg.offline.truth import open_truth
from drive_seg.sim import Simulator


def straight(x: float, top: float = 300.0, bottom: float = 710.0, lean: float = 0.0, order: int = 1) -> Lane:
    """A boundary from (x, bottom) up, ``lean`` columns per row."""
    rows = np.array([bottom, (top + bottom) / 2, top])
    return Lane(order, np.stack([x + lean * (bottom - rows), rows], axis=1).astype(np.float32))


def slowly(truth: list[Lane], prediction: list[Lane]) -> LineScore:
    """The definition of the docstring, one number after another, for images of 720 rows."""

    def column(lane: Lane, row: float) -> float | None:
        for (x0, y0), (x1, y1) in zip(lane.points[:-1].tolist(), lane.points[1:].tolist(), strict=True):
            if y1 <= row <= y0:
                return x0 + (x1 - x0) * (y0 - row) / (y0 - y1)
        return None

    table, points = [], []
    for lane in truth:
        places = [(10.0 * n, x) for n in range(72) if (x := column(lane, 10.0 * n)) is not None]
        if len(places) < 2:
            continue
        mean_y, mean_x = (sum(values) / len(places) for values in zip(*places, strict=True))
        slope = sum((y - mean_y) * (x - mean_x) for y, x in places) / sum((y - mean_y) ** 2 for y, _ in places)
        allowed = 20 / math.cos(math.atan(slope))
        row_of_table = []
        for other in prediction:
            found = [(x, column(other, y)) for y, x in places]
            row_of_table.append(sum(x2 is not None and abs(x2 - x1) < allowed for x1, x2 in found))
        table.append(row_of_table)
        points.append(len(places))
    right = sum(max(row, default=0) for row in table)
    pairs = sorted(
        ((row[n], i, n) for i, row in enumerate(table) for n in range(len(row))), key=lambda p: (-p[0], p[1], p[2])
    )
    used: set[tuple[str, int]] = set()
    for count, i, n in pairs:
        if count * 100 >= 85 * points[i] and count and ("t", i) not in used and ("p", n) not in used:
            used |= {("t", i), ("p", n)}
    return LineScore(1, len(used) // 2, len(prediction), len(points), right, sum(points))


leans = st.sampled_from([-2.0, -0.6, 0.0, 0.4, 1.5])
anywhere = st.builds(straight, st.floats(0, 1200), st.floats(200, 480), st.floats(500, 715), leans)
# Several that find the same one, each in other rows of it, and some that have one row or none.
side_by_side = st.builds(
    lambda x, top, tall: straight(x, top, top + tall),
    st.integers(590, 640),
    st.integers(300, 340),
    st.sampled_from([4, 9, 13, 18, 350, 360, 370]),
)
boundaries = st.lists(anywhere, max_size=4) | st.lists(side_by_side, max_size=5)


@settings(deadline=None)
@given(boundaries, boundaries, st.floats(-30, 30))
def test_the_metric_is_its_definition(truth: list[Lane], others: list[Lane], shift: float) -> None:
    moved = [Lane(1, lane.points + np.float32([shift, 0])) for lane in truth]
    for prediction in (others, moved, [*moved, *others]):
        assert compare_lines(truth, prediction, 720) == slowly(truth, prediction)


def test_eighty_five_percent_of_the_points_make_a_match() -> None:
    true = [straight(600, 310, 700)]  # 40 rows
    assert compare_lines(true, [straight(600, 360, 700)], 720).found == 1  # 35 of them: 87.5 %
    assert compare_lines(true, [straight(600, 370, 700)], 720).found == 1  # 34: 85 %
    assert compare_lines(true, [straight(600, 380, 700)], 720).found == 0  # 33
    assert compare_lines(true, [straight(619.9, 310, 700)], 720).found == 1
    assert compare_lines(true, [straight(620, 310, 700)], 720).found == 0  # lane.py: abs(pred - gt) < thresh


def test_one_prediction_finds_one_boundary() -> None:
    true = [straight(600), straight(610)]
    score = compare_lines(true, [straight(605)], 720)
    assert (score.found, score.predicted, score.true) == (1, 1, 2)
    assert score.f1 == pytest.approx(2 / 3)
    assert math.isnan(compare_lines([], [], 720).f1)
    assert compare_lines(true, [], 720).f1 == 0.0


def painted(road: FlatRoad) -> tuple[NDArray[np.uint8], tuple[Lane, ...]]:
    """uint8 (360, 640, 3) RGB that the tiny network takes for the road, and its true boundaries."""
    rows = np.arange(350.0, road.horizon + 12, -20)
    lanes = []
    for order, side in zip((-1, 1), road.sides, strict=True):
        points = np.stack([[road.column(side, row) for row in rows], rows], axis=1).astype(np.float32)
        lanes.append(Lane(order, points[(points[:, 0] > 0) & (points[:, 0] < 639)], 1.0, 7, None))
    return paint_mask(road.draw()), tuple(lanes)


FRAMES = 17


def write_drive(path: Path) -> Path:
    """A bag of painted roads; the truth of some frames is moved aside, and some have none."""
    from drive_seg.offline.bag_images import CLOUD, IMAGE
    from drive_seg.offline.bag_writer import BagFile

    bag = BagFile(path)
    for number in range(FRAMES):
        random = np.random.default_rng(number)
        image, lanes = painted(FlatRoad((-1.2, 1.1 + 0.2 * float(random.random())), vanish=300.0 + 3 * number))
        if number % 3 == 1:
            lanes = tuple(Lane(lane.order, lane.points + np.float32([40, 0])) for lane in lanes)
        at = number * 100_000_000
        header = bag.header(at, "optical")
        late = at + int(random.integers(0, 90_000_000))
        bag.write("/camera/image_raw", IMAGE, bag.image(header, "rgb8", image), at)
        mask = (image[..., 0] // RED_PER_CLASS).astype(np.uint8)
        bag.write("/camera/truth/mask", IMAGE, bag.image(header, "mono8", mask), late)
        if number not in (5, 6):
            bag.write("/camera/truth/lanes", CLOUD, bag.lanes(header, lanes), late + 1000)
    bag.close()
    return path


def test_chunks_add_up_to_one_pass(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("rosbags")
    from drive_seg.offline.chunks import Job, evaluate_chunks, one_after_another, plan
    from drive_seg.postprocess import FusionOptions

    bag = write_drive(tmp_path / "drive.mcap")
    model = str(write_tiny_model(tmp_path, size=(640, 384)))
    job = Job(model, "onnxruntime", "auto", FusionOptions(), EvaluationOptions(), threads=1)
    found = []
    for seconds in (100.0, 0.35, 0.1):
        judged, _ = evaluate_chunks(job, plan([str(bag)], seconds=seconds)[0], one_after_another, {})
        lines = judged.evaluation.metrics["lane"]["lines"]
        found.append((lines, [frame.lines for frame in judged.evaluation.frames]))
    assert found[0] == found[1] == found[2]
    lines, frames = found[0]
    assert lines["frames"] == FRAMES - 2 and lines["true"] == 2 * (FRAMES - 2)
    wrong = sum(number % 3 == 1 for number in range(FRAMES))
    assert lines["found"] == lines["true"] - 2 * wrong
    assert lines["f1"] == 2 * lines["found"] / (lines["predicted"] + lines["true"])
    assert frames[5] is frames[6] is None
    known = [frame for frame in frames if frame is not None]
    assert sum(known, LineScore()) == LineScore(*(lines[key] for key in vars(LineScore())))


@pytest.mark.parametrize("kind", ["folder", "bag.mcap"])
def test_what_run_writes_is_read_again(tmp_path: Path, kind: str) -> None:
    if kind != "folder":
        pytest.importorskip("rosbags")
    lanes = (straight(300.25, order=-1), Lane(1, straight(800.5).points, 0.75, 321, True))
    sink = open_sink(tmp_path / kind, DRIVING, 30.0)
    maps = np.ones((720, 1280), np.uint8), np.ones((720, 1280), np.uint16)
    for number, found in enumerate((lanes, (), None)):
        frame = Frame(CameraImage.from_rgb(np.zeros((2, 2, 3), np.uint8)), stamp_ns=number, token=Origin(f"f{number}"))
        sink.write(PanopticResult(frame, *maps, (), (1280, 720), lanes=found))
    sink.close()
    predictions = open_predictions(str(tmp_path / kind), DRIVING)
    assert predictions is not None
    read = [answer.prediction.lanes for answer in predictions]
    assert read[0] is not None and read[1:] == [(), None]
    for one, other in zip(read[0], lanes, strict=True):
        assert (one.order, one.confidence, one.support, one.dashed) == (
            other.order,
            other.confidence,
            other.support,
            other.dashed,
        )
        np.testing.assert_array_equal(one.points, other.points)


@pytest.mark.parametrize("line", ["{", "[]", '{"stamp_ns": 0}'])
def test_lines_of_other_files_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / LANES_FILE).write_text(line + "\n")
    with pytest.raises(SourceError, match="a line that is no frame's"):
        LaneReader(tmp_path / LANES_FILE)


@pytest.mark.parametrize("points", ["[[1, 2]]", "[]", "[[1, 2], [NaN, 1]]", "[[[1, 2]]]"])
def test_lanes_of_another_form_are_refused(tmp_path: Path, points: str) -> None:
    lane = f'{{"order": 1, "confidence": 1, "support": 9, "dashed": null, "points": {points}}}'
    (tmp_path / LANES_FILE).write_text(f'{{"frame": "a", "lanes": [{lane}]}}\n')
    reader = LaneReader(tmp_path / LANES_FILE)
    assert reader.find("b") is None
    with pytest.raises(SourceError, match="frame a are not of its form"):
        reader.find("a")


def test_lanes_of_a_folder_come_back_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    rows = np.sort(rng.uniform(0.0, 720.0, 24))[::-1]
    points = np.stack([rng.uniform(-0.5, 1280.0, 24), rows], axis=1).astype(np.float32)
    lanes = (Lane(-1, points, 0.123456789012, 7, True), Lane(1, points / 3, 1 / 3, 9, None))
    writer = LaneWriter(tmp_path)
    writer.write("a", 5, lanes)
    writer.close()
    found = LaneReader(tmp_path / LANES_FILE).find("a")
    assert found is not None
    for lane, back in zip(lanes, found, strict=True):
        assert back.points.dtype == np.float32
        np.testing.assert_array_equal(back.points, lane.points)
        assert (back.order, back.confidence, back.support, back.dashed) == (
            lane.order,
            lane.confidence,
            lane.support,
            lane.dashed,
        )


def test_points_may_be_written_from_far_to_near_but_not_to_and_fro(tmp_path: Path) -> None:
    def find(points: list[list[float]]) -> Lane:
        row = {"order": 1, "confidence": 1, "support": 9, "dashed": None, "points": points}
        (tmp_path / LANES_FILE).write_text(json.dumps({"frame": "a", "lanes": [row]}) + "\n")
        lanes = LaneReader(tmp_path / LANES_FILE).find("a")
        assert lanes is not None
        return lanes[0]

    near_to_far = [[9.0, 80.0], [7.0, 50.0], [6.0, 30.0]]
    np.testing.assert_array_equal(find(near_to_far).points, near_to_far)
    np.testing.assert_array_equal(find(near_to_far[::-1]).points, near_to_far)
    with pytest.raises(SourceError, match="rows must fall from point to point"):
        find([*near_to_far, [5.0, 60.0]])


@pytest.mark.parametrize("order", [[2, 1, 0], [0]], ids=["far to near", "one point"])
def test_boundaries_that_another_node_recorded(tmp_path: Path, order: list[int]) -> None:
    pytest.importorskip("rosbags")
    from drive_seg.offline.bag_images import CLOUD, IMAGE
    from drive_seg.offline.bag_writer import BagFile

    lane = straight(300.25)
    bag = BagFile(tmp_path / "drive.mcap")
    header = bag.header(7, "optical")
    bag.write("/segmentation/panoptic", IMAGE, bag.image(header, "16UC1", np.ones((720, 1280), np.uint16)), 7)
    cloud = bag.lanes(header, [lane])
    step = cloud.point_step
    cloud.data = np.concatenate([cloud.data[n * step : (n + 1) * step] for n in order])
    cloud.width = len(order)
    bag.write("/segmentation/lanes", CLOUD, cloud, 7)
    bag.close()
    predictions = open_predictions(str(tmp_path / "drive.mcap"), DRIVING)
    assert predictions is not None
    if len(order) > 1:
        (answer,) = predictions
        assert answer.prediction.lanes is not None
        np.testing.assert_array_equal(answer.prediction.lanes[0].points, lane.points)
    else:
        with pytest.raises(SourceError, match=r"the lanes at 7 cannot be read: boundary 1: points must be float32"):
            list(predictions)


def test_a_folder_of_frames_without_lanes_has_no_file(tmp_path: Path) -> None:
    LaneWriter(tmp_path).close()
    assert not (tmp_path / LANES_FILE).exists()


@pytest.mark.parametrize("kind", ["folder", "drive.mcap"])
def test_the_simulator_writes_its_truth_and_evaluate_reads_it(tmp_path: Path, kind: str) -> None:
    if kind != "folder":
        pytest.importorskip("rosbags")
    simulator = Simulator(3, 640, 360, weather="clear")
    sink = open_render_sink(tmp_path / kind)
    rendered = [simulator.frame(20 * number) for number in range(3)]
    for number, frame in enumerate(rendered):
        sink.write(number, frame)
    sink.close()
    truth = open_truth(str(tmp_path / kind), DRIVING)
    for number, frame in enumerate(rendered):
        found = truth.find(f"{number:06d}", frame.stamp_ns)
        assert found is not None and found.lanes is not None and len(found.lanes) == len(frame.lanes) > 0
        for one, other in zip(found.lanes, frame.lanes, strict=True):
            assert (one.order, one.support, one.dashed) == (other.order, other.support, other.dashed)
            np.testing.assert_allclose(one.points, other.points, atol=0.006)
    truth.close()


def test_a_perfect_prediction_of_the_simulator_scores_one() -> None:
    sim = TruthfulSim(3, 3, "clear", (640, 360))

    class Perfect:
        name, count, instances, summary, damage = "perfect", 3, True, {}, ""

        def __iter__(self) -> Any:
            for entry in sim:
                assert isinstance(entry, Frame)
                origin = entry.token
                assert isinstance(origin, Origin)
                truth = sim._truths[origin.stem]
                lanes = tuple(Lane(lane.order, lane.points + np.float32([5, 0])) for lane in truth.lanes or ())
                yield Answer(origin.stem, entry.stamp_ns, Prediction(truth.map, {}, lanes=lanes))

    lines = evaluate_predictions(Perfect(), sim, DRIVING).evaluation.metrics["lane"]["lines"]
    assert lines["f1"] == lines["accuracy"] == 1.0 and lines["true"] >= 3


def test_a_model_whose_labels_show_no_boundaries_has_not_missed_them(tmp_path: Path) -> None:
    """They are found in its labels ``road`` and ``lane_marking``; all would count as missed, and F1 as 0."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    labels = LabelSet(tuple(replace(label, name=label.name.replace("lane_marking", "paint")) for label in DRIVING))
    model = write_tiny_model(tmp_path, labels=labels)
    rows = {name: {} for name in ("background", "road", "vehicle", "pedestrian", "cyclist")}
    classes = {**rows, "lane_marking": {"predicted": ["paint"]}}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump({"classes": classes}))
    given = ("--model", model, "--frames", 2, "--seed", 3, "--json")
    drive_seg("run", "sim", "-o", tmp_path / "out", *given)
    drive_seg("sim", "-o", tmp_path / "sim", *given[2:])
    assert not (tmp_path / "out" / LANES_FILE).exists()
    for source in (("sim", *given), (tmp_path / "out", "-g", tmp_path / "sim", *given[:2], "--json")):
        figures = last_object(drive_seg("evaluate", *source, "--label-map", tmp_path / "map.yaml"))
        assert figures["frames"] == 2 and figures["lane"]["lines"] is None


@pytest.mark.parametrize("seed", [1, 2, 5, 8, 11, 14])
def test_the_simulator_s_boundaries_run_along_its_paint(seed: int) -> None:
    """Beside the class map, which is painted by other code: a solid line has paint (or something in front of it) under
    every point; from left to right; and paint in the distance of a lane lies on some boundary."""
    frame = Simulator(seed, 1280, 720, weather="clear").frame(10 * seed)
    near_paint = cv2.dilate((frame.mask == 2).astype(np.uint8), np.ones((9, 25), np.uint8))
    for lane in frame.lanes:
        column, row = np.rint(lane.points).astype(int).T
        assert (np.diff(lane.points[:, 1]) < 0).all()
        assert (column >= 0).all() and (column < 1280).all() and (row < 720).all()
        under = (near_paint[row, column] > 0) | (frame.mask[row, column] >= 3)
        assert under.mean() > (0.1 if lane.dashed else 0.8)
        assert near_paint[row[-1], column[-1]], "ends with the last of its paint"
    orders = [lane.order for lane in frame.lanes]
    assert orders == sorted(set(orders)) and 0 not in orders
    assert {(lane.order < 0) == (lane.points[0, 0] < 640) for lane in frame.lanes} == {True}, "counted from the camera"


def test_tusimple_s_boundaries_are_left_or_right_of_where_the_camera_stands(tmp_path: Path) -> None:
    (tmp_path / "lane_instances").mkdir()
    drawn = np.zeros((100, 200), np.uint8)
    for value, near, far in ((9, 20, 120), (5, 60, 130), (7, 180, 90)):  # in a bend to the right and across it
        cv2.line(drawn, (near, 99), (far, 40), value, 1)
    assert cv2.imwrite(str(tmp_path / "lane_instances/0000.png"), drawn)
    truth = open_truth(str(tmp_path), DRIVING).find("0000", 0)
    assert truth is not None and truth.lanes is not None
    assert [(lane.order, lane.points[0].tolist()) for lane in truth.lanes] == [
        (-2, [20, 99]),
        (-1, [60, 99]),
        (1, [180, 99]),
    ]


def test_tusimple_s_pictures_are_boundaries_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    image, lanes = painted(FlatRoad((-1.2, 1.3)))
    drawn = np.zeros(image.shape[:2], np.uint8)
    for value, lane in zip((20, 70), lanes, strict=True):
        cv2.polylines(drawn, [np.rint(lane.points).astype(np.int32)], False, value, 3)
    for folder, name, picture in (("images", "0000.png", image[..., ::-1]), ("lane_instances", "0000.png", drawn)):
        (tmp_path / folder).mkdir()
        assert cv2.imwrite(str(tmp_path / folder / name), picture)
    model = write_tiny_model(tmp_path, size=(640, 384))
    document = last_object(drive_seg("evaluate", tmp_path / "images", "-g", tmp_path, "--model", model, "--json"))
    assert document["lane"]["lines"] | {"right": 0, "points": 0, "accuracy": 0} == {
        "f1": 1.0,
        "precision": 1.0,
        "recall": 1.0,
        "accuracy": 0,
        "tolerance_px": 20,
        "frames": 1,
        "found": 2,
        "predicted": 2,
        "true": 2,
        "right": 0,
        "points": 0,
    }
    assert document["lane"]["iou"] is None and document["semantic"]["miou"] is None
    assert np.sum(document["semantic"]["confusion"]) == 0
