"""What validation writes down; its scores are those of the offline metrics. Torch is not needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from tiny_model import write_tiny_model

from drive_seg import open_pipeline
from drive_seg.engines import FunctionEngine
from drive_seg.errors import ModelError, SourceError
from drive_seg.frame import RawOutputs
from drive_seg.labels import DRIVING, Label, LabelSet
from drive_seg.network.sidecar import write_metrics, write_sidecar
from drive_seg.network.teach import Teacher
from drive_seg.network.validate import _joint_ious, folder_camera, main, validate_folder
from drive_seg.network_size import fitted_size
from drive_seg.offline.metrics import Confusion
from drive_seg.pipeline import Pipeline


def test_iou_counts_unlabelled_predictions_as_missed_and_skips_unlabelled_truth() -> None:
    truth = np.array([[1, 1, 1, 1, 2, 2, 255, 0]], np.uint8)
    answer = np.array([[1, 1, 2, 255, 2, 0, 1, 0]], np.uint8)
    confusion = Confusion(3)
    confusion.add_masks(truth, answer)
    assert confusion.iou((1,)) == pytest.approx(2 / 4)
    assert confusion.iou((2,)) == pytest.approx(1 / 3)
    assert confusion.iou((1, 2)) == pytest.approx(4 / 6)
    assert np.isnan(Confusion(3).iou((1,)))


def test_people_are_one_class_where_nobody_says_who_rides() -> None:
    confusion = Confusion(len(DRIVING))
    confusion.add_masks(np.array([[4, 4, 4, 1]], np.uint8), np.array([[4, 5, 0, 1]], np.uint8))
    ious = _joint_ious(confusion, DRIVING)
    assert ious["pedestrian_or_cyclist"] == pytest.approx(2 / 3) and ious["road"] == 1.0


def test_a_folder_is_measured_through_the_whole_pipeline(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), np.full((48, 80, 3), 90, np.uint8))
    cv2.imwrite(
        str(tmp_path / "labels/a.png"),
        np.where(np.arange(80) < 40, 0, 255).astype(np.uint8).repeat(48).reshape(80, 48).T,
    )
    with open_pipeline() as pipeline:
        report = validate_folder(pipeline, tmp_path)
    assert report["frames"] == 1 and 0.0 <= report["iou"]["background"] <= 1.0


def test_what_something_learns_from_can_be_left_out(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for name, label in (("a", 0), ("b", 1), ("c", 1)):
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), np.full((60, 80, 3), 90, np.uint8))
        cv2.imwrite(str(tmp_path / f"labels/{name}.png"), np.full((60, 80), label, np.uint8))
    seen = []

    def always_road(images: np.ndarray) -> RawOutputs:
        seen.append(images.shape[1:3])
        maps = np.zeros((3, *images.shape[:3]), np.uint8)
        cells = np.zeros((1, 3, images.shape[1] // 4, images.shape[2] // 4), np.float32)
        return RawOutputs(maps[0] + 1, maps[1], cells, cells[:, :2])

    size = fitted_size(folder_camera(tmp_path), (64, 32))
    with Pipeline(FunctionEngine(always_road, size), DRIVING) as pipeline:
        everything = validate_folder(pipeline, tmp_path)
        later = validate_folder(pipeline, tmp_path, skip=1)
    assert everything["frames"] == 3 and everything["iou"]["road"] == pytest.approx(2 / 3)
    assert later["frames"] == 2 and later["iou"]["road"] == 1.0
    assert set(seen) == {(size[1], size[0])} and later["network"] == f"{size[0]}x{size[1]}"
    with pytest.raises(SourceError, match="after the first 3"):
        validate_folder(pipeline, tmp_path, skip=3)


@pytest.mark.parametrize(
    ("label", "says"),
    [
        (np.full((60, 80), 11, np.uint8), r"a\.png of .* has id 11; expected 0\.\.5 and 255"),
        (np.zeros((60, 80, 3), np.uint8), r"8-bit grey \(60, 80\), got uint8 \(60, 80, 3\)"),
        (np.zeros((30, 40), np.uint8), r"got uint8 \(30, 40\)"),
        (np.full((60, 80), 257, np.uint16), r"got uint16"),
    ],
)
def test_labels_of_another_kind_are_refused(tmp_path: Path, label: np.ndarray, says: str) -> None:
    for kind, image in (("images", np.full((60, 80, 3), 90, np.uint8)), ("labels", label)):
        (tmp_path / kind).mkdir()
        cv2.imwrite(str(tmp_path / kind / "a.png"), image)
    with pytest.raises(SourceError, match=says):
        folder_camera(tmp_path)


def test_metrics_replace_only_themselves(tmp_path: Path) -> None:
    sidecar = tmp_path / "m.yaml"
    write_sidecar(sidecar, {"name": "m", "metrics": {"old": 1}, "license": "x"})
    write_metrics(sidecar, {"iou": {"road": 0.123456}, "frames": 3})
    document = yaml.safe_load(sidecar.read_text())
    assert document == {"name": "m", "metrics": {"iou": {"road": 0.1235}, "frames": 3}, "license": "x"}
    assert list(document) == ["name", "metrics", "license"]


@pytest.mark.parametrize("what", [["--drives", "1", "--size", "64x64"], ["--folder", "."]])
def test_a_model_of_other_classes_is_not_scored_by_their_numbers(
    what: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    other = LabelSet((Label(0, "sky", False, (0, 0, 0)), Label(1, "car", True, (0, 0, 255))))
    sidecar = write_tiny_model(tmp_path, labels=other)
    before = sidecar.read_text()
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((64, 64, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "labels" / "a.png"), np.full((64, 64), 2, np.uint8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["validate", "--model", str(sidecar), *what, "--write"])
    with pytest.raises(ModelError, match=r"has the classes sky, car; only models of background, road"):
        main()
    assert sidecar.read_text() == before
    with pytest.raises(ModelError, match="sky, car"):
        Teacher(sidecar)


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("validate", ["--folder", "nowhere"], "nowhere"),
        ("teach", ["--model", "nowhere.yaml", "--set", "kitti", "--data", "."], "nowhere.yaml"),
    ],
)
def test_a_tool_that_cannot_do_it_says_so_in_one_line(
    module: str, arguments: list[str], message: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", f"drive_seg.network.{module}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("drive_seg: error: ") and message in line
