"""Identities that last: what they survive, what ends them, and that nothing grows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import HEIGHT, WIDTH, picture, write_images
from tiny_model import network

from drive_seg.engines import FunctionEngine
from drive_seg.frame import CameraImage, Extent, Frame, PanopticResult, split_id
from drive_seg.labels import DRIVING
from drive_seg.offline.evaluate import evaluate_predictions, evaluate_source
from drive_seg.offline.metrics import Trajectories
from drive_seg.offline.metrics.identity import Encounter, Segment
from drive_seg.offline.predictions import open_predictions
from drive_seg.offline.rendering import open_render_sink
from drive_seg.offline.runner import run
from drive_seg.offline.sinks import open_sink
from drive_seg.offline.sources import open_source
from drive_seg.offline.truth import TruthSource, open_truth
from drive_seg.overlay import draw_overlay
from drive_seg.pipeline import Pipeline
from drive_seg.sim import Simulator
from drive_seg.tracking import CONFIRMED_HITS, MAX_TRACKS, Sighting, Tracker, TrackingOptions

SIZE = (1280, 720)
FRAME_NS = 33_333_333
CAR, WALKER = 3, 4

Row = tuple[float, float, float, float]
"""x, y, width, height."""


def sight(
    number: float,
    rows: Sequence[Row],
    classes: int | Sequence[int] = CAR,
    scores: float | Sequence[float] = 0.9,
    size: tuple[int, int] = SIZE,
) -> Sighting:
    """Frame ``number`` at 30 Hz."""
    boxes = np.array(rows, np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    count = len(boxes)
    return Sighting(
        round(number * FRAME_NS),
        size,
        boxes,
        np.array(np.broadcast_to(classes, count), np.int64),
        np.array(np.broadcast_to(scores, count), np.float64),
    )


def follow(frames: Iterable[Sequence[Row]], tracker: Tracker | None = None, first: int = 0) -> list[list[int]]:
    tracker = tracker or Tracker()
    return [tracker.update(sight(first + number, rows)) for number, rows in enumerate(frames)]


def still(count: int, rows: Sequence[Row] = ((100, 300, 80, 60),)) -> list[Sequence[Row]]:
    return [rows] * count


def test_objects_that_cross_keep_their_numbers() -> None:
    numbers = follow([[(100 + 12 * t, 300, 90, 60), (1000 - 12 * t, 310, 70, 55)] for t in range(70)])
    assert all(pair == [1, 2] for pair in numbers)


def test_the_order_of_the_instances_does_not_matter() -> None:
    rows = [(100.0 + 200 * k, 300.0, 90.0, 60.0) for k in range(5)]
    tracker = Tracker()
    rng = np.random.default_rng(0)
    for number in range(20):
        order = rng.permutation(5) if number else np.arange(5)
        moved = [(rows[k][0] + 3 * number, *rows[k][1:]) for k in order]
        assert tracker.update(sight(number, moved)) == [k + 1 for k in order]


def test_what_comes_nearer_and_leaves_the_image_is_one_object() -> None:
    frames = []
    for number in range(64):
        distance = 30 - 0.45 * number
        left, width, height = 640 - 3500 / distance, 1800 / distance, 1500 / distance
        right = min(left + width, 1280.0)
        if right > 4:
            frames.append([(max(left, 0.0), 360 - height / 3, right - max(left, 0.0), height)])
    assert 40 < len(frames) < 64
    assert follow(frames) == [[1]] * len(frames)


def test_an_object_that_was_hidden_comes_back_as_itself() -> None:
    tracker = Tracker()
    walk = [[(100 + 6 * t, 300, 30, 80)] for t in range(100)]
    assert follow(walk[:20], tracker)[-1] == [1]
    assert follow([[]] * 25, tracker, 20) == [[]] * 25
    assert follow(walk[45:], tracker, 45) == [[1]] * 55


def test_a_track_waits_as_long_as_it_is_told_and_is_then_forgotten() -> None:
    for seconds, again in ((0.5, 2), (3.0, 1)):
        tracker = Tracker(TrackingOptions(max_age_s=seconds))
        follow(still(10), tracker)
        follow([[]] * 60, tracker, 10)
        assert tracker.known == (again == 1)
        assert tracker.update(sight(70, still(1)[0])) == [again]


def test_a_track_seen_once_or_twice_is_given_up_sooner() -> None:
    for hits in range(1, CONFIRMED_HITS + 1):
        tracker = Tracker()
        follow(still(hits), tracker)
        follow([[]] * 10, tracker, hits)
        confirmed = hits >= CONFIRMED_HITS
        assert tracker.known == confirmed
        assert tracker.update(sight(hits + 10, still(1)[0])) == [1 if confirmed else 2]


def test_a_slow_camera_confirms_too() -> None:
    tracker = Tracker()
    assert [tracker.update(sight(30 * number, still(1)[0])) for number in range(5)] == [[1]] * 5
    tracker.update(sight(150, []))
    assert tracker.update(sight(180, still(1)[0])) == [1]


def test_births_and_deaths_never_give_a_number_twice() -> None:
    seen: set[int] = set()
    tracker = Tracker(TrackingOptions(max_age_s=0.1))
    for number in range(200):
        place = 62.0 * (7 * (number // 10) % 20)
        (track,) = tracker.update(sight(number, [(place, 300, 50, 50)]))
        seen.add(track)
    assert seen == set(range(1, 21))


def test_a_class_has_its_own_numbers() -> None:
    tracker = Tracker()
    box = still(1)[0]
    for number in range(5):
        assert tracker.update(sight(number, box, CAR)) == [1]
    assert tracker.update(sight(5, box, WALKER)) == [2]
    assert tracker.update(sight(6, box, CAR)) == [1]
    assert tracker.update(sight(7, [*box, *box], [WALKER, CAR])) == [2, 1]


def test_uncertain_instances_keep_a_track_alive() -> None:
    tracker = Tracker()
    walk = [[(100 + 6 * t, 300, 60, 80)] for t in range(30)]
    assert [tracker.update(sight(t, row, scores=0.9 if t < 5 else 0.31)) for t, row in enumerate(walk)] == [[1]] * 30


def test_a_part_that_breaks_off_does_not_take_the_number() -> None:
    tracker = Tracker()
    whole, part = (100.0, 300.0, 200.0, 100.0), (250.0, 310.0, 120.0, 60.0)
    follow(still(10, [whole]), tracker)
    assert tracker.update(sight(10, [part, (100, 300, 190, 100)]))[1] == 1
    assert tracker.update(sight(11, [whole])) == [1]


def test_a_lost_track_does_not_take_the_place_of_one_that_is_followed() -> None:
    tracker = Tracker()
    follow(still(10, [(100, 300, 100, 60), (110, 300, 100, 60)]), tracker)
    follow(still(2, [(100, 300, 100, 60)]), tracker, 10)
    # Together the two would be more like what they were the other way round.
    assert tracker.update(sight(12, [(110, 300, 100, 60), (80, 300, 100, 60)])) == [1, 2]


def test_what_still_overlaps_goes_on_before_what_was_lost_nearby() -> None:
    lost, followed = (262, 300, 100, 60), (100, 300, 100, 60)
    for score in (0.9, 0.31):
        tracker = Tracker()
        follow(still(200, [lost]), tracker)
        follow([[]] * 25, tracker, 200)
        assert follow(still(5, [followed]), tracker, 225) == [[2]] * 5
        moved = (174, 300, 100, 60)  # a sixth of the union with the one, a sixteenth with the other
        assert tracker.update(sight(230, [moved], scores=score)) == [2]


def test_a_part_goes_on_only_while_the_whole_was_seen_just_now() -> None:
    whole, part = (100.0, 100.0, 600.0, 500.0), (300.0, 300.0, 30.0, 30.0)
    for hidden, number in ((10, 1), (30, 2)):
        tracker = Tracker()
        follow([*still(10, [whole]), *([[]] * hidden)], tracker)
        assert tracker.update(sight(10 + hidden, [part])) == [number]


def test_an_object_seen_in_two_parts_for_a_while_goes_on_under_its_own_number() -> None:
    whole = (100, 300, 100, 60)
    tracker = Tracker()
    assert follow(still(60, (whole,)), tracker) == [[1]] * 60
    grown = [min(t, 10) for t in range(23)]
    parts: list[Sequence[Row]] = [((100, 300, 65 - t, 60), (150 - t, 300, 50 + t, 60)) for t in grown]
    assert follow(parts, tracker, 60) == [[1, 2]] * 23
    assert follow(still(5, (whole,)), tracker, 83) == [[1]] * 5, "the other part is more like the whole"


def test_time_that_runs_back_a_long_gap_and_another_size_begin_anew() -> None:
    box = still(1)[0]
    for changed in (sight(3, box), sight(9 + 61, box), sight(10, box, size=(640, 360))):
        tracker = Tracker()
        follow(still(10), tracker)
        assert tracker.update(changed) == [2]
        assert tracker.known == 1
    tracker = Tracker()
    follow(still(10), tracker)
    assert tracker.update(sight(9 + 59, box)) == [1]
    assert tracker.update(sight(9 + 59, box)) == [1], "the same stamp twice is no step back"


def test_a_bag_that_loops_gets_new_numbers_each_time() -> None:
    tracker = Tracker()
    loops = [follow(still(30, [(100, 300, 80, 60), (600, 300, 80, 60)]), tracker) for _ in range(4)]
    assert [loop[0] for loop in loops] == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert all(row == loop[0] for loop in loops for row in loop)


def test_motion_follows_the_stamps_and_not_the_count_of_frames() -> None:
    tracker = Tracker()
    rng = np.random.default_rng(1)
    at = 0.0
    for _ in range(60):
        assert tracker.update(sight(at, [(50 + 14 * at, 300, 40, 40), (950 - 14 * at, 340, 40, 40)])) == [1, 2]
        at += float(rng.choice([0.5, 1.0, 2.5]))


def crowd(number: int, count: int, seed: int) -> Sighting:
    """Noise: boxes of every size and class that come and go."""
    rng = np.random.default_rng([seed, number])
    n = int(rng.integers(0, count + 1))
    rows = np.concatenate((rng.uniform(0, [1200, 600], (n, 2)), rng.uniform(1, 300, (n, 2))), axis=1)
    stamp = number + float(rng.uniform(0, 0.9))
    if number % 997 == 996:
        stamp -= 500
    return sight(stamp, rows.tolist(), rng.integers(3, 6, n).tolist(), rng.uniform(0, 1, n).tolist())


def test_ten_thousand_frames_of_noise_stay_bounded_and_the_same() -> None:
    one, two = Tracker(), Tracker()
    most = 0
    for number in range(10_000):
        sighting = crowd(number, 4, 2)
        numbers = one.update(sighting)
        if number < 1500:
            assert two.update(sighting) == numbers
        most = max(most, one.known)
    assert 10 < most < 60


def test_stamps_that_stand_still_stay_bounded_too() -> None:
    tracker = Tracker()
    spots = [(float(x), float(y), 8.0, 8.0) for x in range(0, 1280, 32) for y in range(0, 720, 32)]
    assert len(spots) > MAX_TRACKS
    numbers = [tracker.update(sight(7, [spot])) for spot in spots]
    assert numbers == [[number] for number in range(1, len(spots) + 1)]
    assert tracker.known == MAX_TRACKS
    assert tracker.update(sight(7, spots[-1:])) == numbers[-1]


def test_more_instances_than_tracks_are_kept_all_get_numbers() -> None:
    rows = [(float(x), float(y), 20.0, 20.0) for x in range(0, 1280, 32) for y in range(0, 720, 32)]
    assert len(rows) > MAX_TRACKS
    tracker = Tracker()
    first = tracker.update(sight(0, rows))
    assert tracker.update(sight(1, rows)) == first == list(range(1, len(rows) + 1))
    tracker.update(sight(2, rows[:3]))
    assert tracker.known <= MAX_TRACKS


def test_of_too_many_lost_tracks_those_lost_longest_are_forgotten() -> None:
    places = [(float(x), float(y), 20.0, 20.0) for x in range(0, 1280, 32) for y in range(0, 720, 32)]
    older, newer = places[:300], places[-300:]
    tracker = Tracker()
    follow(still(3, older), tracker)
    numbers = follow(still(3, newer), tracker, 3)[-1]
    tracker.update(sight(6, newer[:1]))
    assert tracker.known == MAX_TRACKS
    assert tracker.update(sight(7, newer)) == numbers


cells = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 4)), min_size=1, max_size=10, unique=True)


@settings(max_examples=25, deadline=None)
@given(cells, st.lists(st.booleans(), min_size=120, max_size=120), st.integers(0, 2**16))
def test_objects_far_apart_are_told_apart_as_by_their_places(
    places: list[tuple[int, int]], shown: list[bool], seed: int
) -> None:
    """Every object stays in a cell of its own: the oracle is the cell. Half of the time it is not seen."""
    rng = np.random.default_rng(seed)
    tracker = Tracker()
    number_of: dict[tuple[int, int], int] = {}
    hits: dict[tuple[int, int], int] = {}
    flags = iter(shown)
    for number in range(12):
        seen = [place for place in places if next(flags, True) or number < CONFIRMED_HITS]
        rows = [(160 * x + 40 + rng.uniform(-4, 4), 144 * y + 40 + rng.uniform(-4, 4), 70.0, 60.0) for x, y in seen]
        classes = [3 + (x + y) % 3 for x, y in seen]
        numbers = tracker.update(sight(number, rows, classes))
        for place, track in zip(seen, numbers, strict=True):
            assert number_of.setdefault(place, track) == track
            hits[place] = hits.get(place, 0) + 1
    assert len(set(number_of.values())) == len(places)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 25))
def test_what_holds_for_any_frames(seed: int, count: int) -> None:
    tracker, again = Tracker(), Tracker()
    classes: dict[int, int] = {}
    highest = 0
    for number in range(15):
        sighting = crowd(number, count, seed)
        numbers = tracker.update(sighting)
        assert again.update(sighting) == numbers
        assert len(set(numbers)) == len(numbers) == sighting.classes.size
        new = sorted(track for track in numbers if track not in classes)
        assert new == list(range(highest + 1, highest + 1 + len(new)))
        highest += len(new)
        for track, class_id in zip(numbers, sighting.classes.tolist(), strict=True):
            assert classes.setdefault(track, class_id) == class_id


def frame_of(number: int, camera: str = "front") -> Frame:
    image = CameraImage.from_rgb(picture(number))
    return Frame(image, camera, stamp_ns=number * 100_000_000)


def vehicles(result: PanopticResult) -> list[int | None]:
    return [instance.track for instance in result.instances if instance.class_id == CAR]


def test_the_pipeline_gives_every_instance_a_track_and_changes_nothing_else() -> None:
    with (
        Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING) as plain,
        Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING, tracking=TrackingOptions()) as tracking,
    ):
        for number in range(10):
            with_tracks, without = tracking(frame_of(number)), plain(frame_of(number))
            assert vehicles(with_tracks) == [1] and vehicles(without) == [None]
            np.testing.assert_array_equal(with_tracks.panoptic, without.panoptic)
            np.testing.assert_array_equal(with_tracks.mask, without.mask)
            (one,), (other,) = with_tracks.instances, without.instances
            assert (one.id, other.id) == ("3001/1", "3001") and (one.box, one.score) == (other.box, other.score)
            assert split_id(one.id) == (3001, 1) and split_id(other.id) == (3001, None)


def test_every_camera_has_its_own_tracks() -> None:
    with Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING, tracking=TrackingOptions()) as pipeline:
        for number in range(6):
            assert vehicles(pipeline(frame_of(number, "front"))) == [1]
            assert vehicles(pipeline(frame_of(number + 60, "rear"))) == [1]


def test_tracking_can_be_turned_off_and_on_and_begins_anew() -> None:
    with Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING) as pipeline:
        assert vehicles(pipeline(frame_of(0))) == [None]
        pipeline.tracking = TrackingOptions(1.0)
        assert vehicles(pipeline(frame_of(1))) == [1]
        pipeline.tracking = TrackingOptions(1.0)
        assert vehicles(pipeline(frame_of(2))) == [1], "the same options go on"
        pipeline.tracking = None
        assert vehicles(pipeline(frame_of(3))) == [None]


def test_objects_are_followed_by_their_cores_where_they_have_some() -> None:
    with Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING) as pipeline:
        result = pipeline(frame_of(0))
    (one,) = result.instances
    for core, box in ((Extent(1.5, 2.0, 3.25, 4.0), [1.5, 2.0, 4.75, 6.0]), (None, None)):
        changed = dataclasses.replace(result, instances=(dataclasses.replace(one, core=core),))
        whole = [one.box.x, one.box.y, one.box.x + one.box.width, one.box.y + one.box.height]
        assert Sighting.of(changed).boxes.tolist() == [box or whole]


def test_no_setting_gives_a_number_twice() -> None:
    with (
        Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING, tracking=TrackingOptions()) as pipeline,
        Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING) as better,
    ):
        assert vehicles(pipeline(frame_of(0))) == [1]
        pipeline.tracking = TrackingOptions(3.0)
        assert vehicles(pipeline(frame_of(1))) == [2]
        assert vehicles(pipeline(frame_of(1, "rear"))) == [1], "cameras count for themselves"
        pipeline.tracking = None
        pipeline.tracking = None
        better.continue_tracks(pipeline)
        for one, number in ((pipeline, 3), (better, 4)):
            one.tracking = TrackingOptions()
            assert vehicles(one(frame_of(2))) == [number]
        pipeline.forget_tracks()
        assert vehicles(pipeline(frame_of(3))) == [1], "another recording"


@pytest.mark.parametrize("between", [(), (None,)])
def test_a_batch_in_flight_and_what_follows_another_setting_share_no_number(between: Sequence[None]) -> None:
    with Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING, tracking=TrackingOptions()) as pipeline:
        assert vehicles(pipeline(frame_of(0))) == [1]
        ahead = pipeline.submit([frame_of(60)])  # so much later that what it shows is new
        for setting in (*between, TrackingOptions(3.0)):
            pipeline.tracking = setting
        after = pipeline.submit([frame_of(61)])
        assert [vehicles(pending.wait()[0]) for pending in (ahead, after)] == [[2], [3]]


def test_a_pipeline_that_takes_anothers_place_goes_on_with_its_tracks() -> None:
    with (
        Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING, tracking=TrackingOptions()) as former,
        Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING) as better,
    ):
        former.tracking = None
        former.tracking = TrackingOptions(3.0)
        assert [vehicles(former(frame_of(number))) for number in (0, 9, 1)] == [[1], [2], [3]]
        better.continue_tracks(former)
        assert better.tracking == TrackingOptions(3.0)
        assert vehicles(better(frame_of(2))) == [3]


def test_plain_images_are_tracked_by_the_time_they_come() -> None:
    with Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING, tracking=TrackingOptions(60.0)) as pipeline:
        assert [vehicles(pipeline(picture(number))) for number in range(4)] == [[1]] * 4


def test_the_list_of_instances_has_the_tracks(tmp_path: Path) -> None:
    write_images(tmp_path / "in", [f"{number:06d}.png" for number in range(5)])
    with Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING, tracking=TrackingOptions()) as pipeline:
        for _ in range(2):  # another recording begins with new tracks
            sink = open_sink(tmp_path / "out", DRIVING, 30.0, overwrite=True)
            run(open_source(str(tmp_path / "in")), sink, pipeline, "tiny")
            lines = [json.loads(line) for line in (tmp_path / "out/instances.jsonl").read_text().splitlines()]
            assert [[one["id"] for one in line["instances"]] for line in lines] == [["3001/1"]] * 5


@pytest.mark.parametrize("tracked", [True, False])
def test_the_overlay_keeps_the_colour_of_a_track(tracked: bool) -> None:
    """Another vehicle that is numbered first in the frame changes the colours of untracked ones only."""
    alone, joined = picture(0), picture(0)
    joined[20:60, 200:300] = 0
    options = TrackingOptions() if tracked else None
    with Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING, tracking=options) as pipeline:
        results = [pipeline(Frame(CameraImage.from_rgb(alone), stamp_ns=number * FRAME_NS)) for number in range(3)]
    (vehicle,) = results[0].instances
    renumbered = dataclasses.replace(vehicle, panoptic_id=vehicle.panoptic_id + 1)
    panoptic = np.where(results[2].panoptic == vehicle.panoptic_id, np.uint16(renumbered.panoptic_id), 0)
    other = dataclasses.replace(results[2], instances=(renumbered,), panoptic=panoptic.astype(np.uint16))
    colours = []
    for result in (results[0], other):
        drawn = draw_overlay(np.zeros((HEIGHT, WIDTH, 3), np.uint8), result, DRIVING)
        inside = (vehicle.box.y + vehicle.box.height // 2, vehicle.box.x + vehicle.box.width // 2)
        colours.append(drawn[inside].tolist())
    assert (colours[0] == colours[1]) == tracked


NUMBERS = [f"{number:06d}.png" for number in range(8)]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Pictures of one vehicle, and their truth, which knows it again."""
    write_images(tmp_path / "in", NUMBERS)
    (tmp_path / "truth/panoptic").mkdir(parents=True)
    lines = []
    for number, name in enumerate(NUMBERS):
        truth = np.ones((HEIGHT, WIDTH), np.uint16)
        truth[80:120, 16 + 8 * number : 64 + 8 * number] = 3001 + number % 2
        assert cv2.imwrite(str(tmp_path / "truth/panoptic" / name), truth)
        instances = [{"id": f"{3001 + number % 2}/900", "score": 1.0}]
        lines.append({"frame": name[:-4], "stamp_ns": number * FRAME_NS, "instances": instances})
    (tmp_path / "truth/instances.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def truth_in(path: Path) -> TruthSource:
    return open_truth(str(path), DRIVING)


def test_an_evaluation_that_runs_the_pipeline_judges_its_tracks(recording: Path) -> None:
    source = open_source(str(recording / "in"))
    for options, idf1 in ((TrackingOptions(), 1.0), (None, None)):
        with Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING, tracking=options) as pipeline:
            for _ in range(2):
                found = evaluate_source(source, truth_in(recording / "truth"), pipeline, "tiny").evaluation.metrics
                assert found["tracking"]["idf1"] == idf1
                assert found["tracking"]["objects"] == (None if idf1 is None else 1)


@pytest.mark.parametrize("out", ["out", "out.mcap"])
def test_predictions_made_before_are_judged_by_the_tracks_they_hold(recording: Path, out: str) -> None:
    with Pipeline(FunctionEngine(network, (WIDTH, HEIGHT)), DRIVING, tracking=TrackingOptions()) as pipeline:
        sink = open_sink(recording / out, DRIVING, 30.0)
        run(open_source(str(recording / "in")), sink, pipeline, "tiny")
    made = open_predictions(str(recording / out), DRIVING)
    assert made is not None
    if out == "out":
        found = evaluate_predictions(made, truth_in(recording / "truth"), DRIVING).evaluation.metrics["tracking"]
        assert (found["idf1"], found["mota"], found["id_switches"], found["frames"]) == (1.0, 1.0, 0, 8)
    assert [dict(answer.prediction.tracks or {}) for answer in made] == [{3001: 1}] * 8


def test_truth_and_predictions_of_older_versions_have_no_identities(recording: Path) -> None:
    for folder in ("truth", "old"):
        old = recording / folder
        old.mkdir(exist_ok=True)
        (old / "panoptic").exists() or (old / "panoptic").symlink_to(recording / "truth/panoptic")
        lines = [json.loads(line) for line in (recording / "truth/instances.jsonl").read_text().splitlines()]
        for line in lines:
            line["instances"] = [{"id": int(str(one["id"])[:4]), "score": 0.9} for one in line["instances"]]
        (old / "instances.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    truth = truth_in(recording / "truth")
    found = truth.find("000000", 0)
    assert found is not None and found.tracks is None
    made = open_predictions(str(recording / "old"), DRIVING)
    assert made is not None
    metrics = evaluate_predictions(made, truth, DRIVING).evaluation.metrics
    assert metrics["frames"] == 8 and metrics["panoptic"]["all"]["pq"] == 1.0
    assert metrics["tracking"]["idf1"] is None and metrics["temporal"]["id_switches"] is None
    (recording / "truth/instances.jsonl").unlink()
    found = truth_in(recording / "truth").find("000000", 0)
    assert found is not None and found.tracks is None


@pytest.mark.parametrize("out", ["drive", "drive.mcap", "drive.bag2"])
def test_what_the_simulator_writes_knows_its_objects_again(tmp_path: Path, out: str) -> None:
    simulator = Simulator(14, 320, 192)
    frames = [simulator.frame(number) for number in range(3)]
    sink = open_render_sink(tmp_path / out)
    for number, frame in enumerate(frames):
        sink.write(number, frame)
    sink.close()
    truth = truth_in(tmp_path / out)
    for number, frame in enumerate(frames):
        found = truth.find(f"{number:06d}", frame.stamp_ns)
        assert found is not None and found.tracks == frame.tracks and len(frame.tracks) > 2
        np.testing.assert_array_equal(found.map, frame.panoptic)
    truth.close()
    for thing in frames[0].instances():
        rows, columns = np.nonzero(frames[0].panoptic == thing.panoptic_id)
        box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert box == (thing.box.x, thing.box.y, thing.box.width, thing.box.height) and thing.area == rows.size
    assert {thing.panoptic_id: thing.track for thing in frames[0].instances()} == frames[0].tracks


def test_the_tracker_follows_the_simulator() -> None:
    """Every object seen as it is: what is lost then is the tracker's own."""
    simulator = Simulator(3, 640, 360, weather="clear")
    tracker, trajectories = Tracker(), Trajectories()
    for number in range(0, 90, 2):
        frame = simulator.frame(number)
        things = frame.instances()
        rows = [(box.x, box.y, box.width, box.height) for box in (thing.box for thing in things)]
        classes = [thing.class_id for thing in things]
        numbers = tracker.update(sight(number, rows, classes, size=(640, 360)))
        met = Encounter(tuple((s, s) for s in (Segment(t.class_id, t.panoptic_id, t.area) for t in things)))
        trajectories.add(met, frame.tracks, {t.panoptic_id: n for t, n in zip(things, numbers, strict=True)})
    counts = trajectories.counts().total()
    assert counts.objects > 5 and counts.tp > 200
    assert counts.idf1 > 0.9 and counts.id_switches < 0.02 * counts.tp
