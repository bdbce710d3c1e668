"""A truth that does not know its objects again says so: no tracking figures, however many of its frames are empty."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from recordings import Recording

from drive_seg.labels import DRIVING
from drive_seg.offline.instance_lists import instances_of
from drive_seg.offline.label_map import LabelMap
from drive_seg.offline.scoring import Prediction, Scorer
from drive_seg.offline.truth import TruthSource, open_truth

FRAMES = 8
EMPTY = (2, 5)


def truth_map(number: int) -> np.ndarray:
    """uint16 (H, W): a road with a car, which some frames do not show."""
    ids = np.ones((32, 48), np.uint16)
    if number not in EMPTY:
        ids[10:20, 4 + number : 20 + number] = 3001
    return ids


def write_folder(path: Path, name: str) -> Path:
    """A folder of truth that calls the car by ``name``."""
    (path / "panoptic").mkdir(parents=True)
    rows = []
    for number in range(FRAMES):
        assert cv2.imwrite(str(path / f"panoptic/{number:06d}.png"), truth_map(number))
        things = [] if number in EMPTY else [{"id": name, "score": 1.0}]
        rows.append({"frame": f"{number:06d}", "stamp_ns": stamp_of(number), "instances": things})
    (path / "instances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_bag(path: Path, name: str) -> Path:
    """The same in topics of a bag."""
    with Recording(path) as bag:
        for number in range(FRAMES):
            header = bag.header(stamp_of(number))
            bag.write("/truth/panoptic", bag.image(header, "16UC1", truth_map(number)), stamp_of(number))
            things = bag.vehicles(header, *([] if number in EMPTY else [name]))
            bag.write("/truth/instances", things, stamp_of(number))
    return path


def stamp_of(number: int) -> int:
    return 1_700_000_000_000_000_000 + number * 33_000_000


def tracking_of(source: TruthSource) -> dict[str, Any]:
    """The figures of a prediction that is right but for a wrong car in every frame; both have a track."""
    scorer = Scorer(LabelMap.identity(DRIVING))
    for number in range(FRAMES):
        truth = source.find(f"{number:06d}", stamp_of(number))
        assert truth is not None
        found = truth_map(number)
        found[:6, 40:] = 3002
        tracks = {3002: 2} if number in EMPTY else {3001: 1, 3002: 2}
        scorer.score(f"{number:06d}", stamp_of(number), truth, Prediction(found, tracks=tracks))
    source.close()
    scorer.totals.tracking += scorer.trajectories.counts()
    figures: dict[str, Any] = scorer.totals.figures()["tracking"]
    return figures


@pytest.mark.parametrize(
    ("kind", "name"),
    [("folder", "3001"), ("folder", "3001/7"), ("bag", "3001"), ("bag", "3001/7"), ("bag", ""), ("bag", "car")],
)
def test_only_a_truth_whose_objects_have_tracks_is_scored_by_them(tmp_path: Path, kind: str, name: str) -> None:
    if kind == "bag":
        pytest.importorskip("rosbags", reason="rosbags is not installed")
    path = (write_bag if kind == "bag" else write_folder)(tmp_path / "in", name)
    found = tracking_of(open_truth(str(path), DRIVING))
    if name == "3001/7":
        assert found["frames"] == FRAMES and found["objects"] == 1 and found["tracks"] == 2
        assert found["idtp"] == FRAMES - len(EMPTY) and found["idfp"] == FRAMES and 0 < found["idf1"] < 1
    else:
        assert found["idf1"] is None and found["id_switches"] is None and found["frames"] == 0


def test_a_list_of_truth_may_leave_out_frames_without_objects(tmp_path: Path) -> None:
    """What is predicted there is wrong all the same."""
    path = write_folder(tmp_path / "in", "3001/7")
    expected = tracking_of(open_truth(str(path), DRIVING))
    lines = (path / "instances.jsonl").read_text().splitlines()
    (path / "instances.jsonl").write_text("\n".join(line for n, line in enumerate(lines) if n not in EMPTY) + "\n")
    assert tracking_of(open_truth(str(path), DRIVING)) == expected


def test_a_folder_without_tracks_says_so_before_anything_is_scored(tmp_path: Path) -> None:
    assert not open_truth(str(write_folder(tmp_path / "without", "3001")), DRIVING).tracks
    assert open_truth(str(write_folder(tmp_path / "with", "3001/7")), DRIVING).tracks


@pytest.mark.parametrize(
    ("ids", "scores", "tracks"),
    [
        (["3001/7", "3002/4"], {3001: 0.5, 3002: 0.5}, {3001: 7, 3002: 4}),
        (["3001/7", "3002"], {3001: 0.5, 3002: 0.5}, None),
        (["3001/7", "a car"], {3001: 0.5}, None),
        (["3001/7", "3002/" + "9" * 19], {3001: 0.5}, None),
        ([], {}, {}),
    ],
)
def test_tracks_of_a_message_are_those_of_all_its_objects_or_none(
    ids: list[str], scores: dict[int, float], tracks: dict[int, int] | None
) -> None:
    hypothesis = SimpleNamespace(hypothesis=SimpleNamespace(score=0.5))
    detections = [SimpleNamespace(id=text, results=[hypothesis]) for text in ids]
    found = instances_of(SimpleNamespace(detections=detections), 9)
    assert (found.stamp_ns, found.scores, found.tracks) == (9, scores, tracks)
