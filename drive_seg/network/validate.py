"""The figures of a model's sidecar, measured through the whole pipeline at native resolution.

``python -m drive_seg.network.validate --folder DATA/camvid32/val --drives 60 --write`` prints one JSON object and puts
it into the sidecar. Torch is not needed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg import Pipeline, open_pipeline
from drive_seg.errors import SourceError
from drive_seg.labels import PANOPTIC_DIVISOR, PANOPTIC_UNLABELLED, UNLABELLED, LabelSet, mask_of
from drive_seg.network.sidecar import write_metrics
from drive_seg.resources import find_model
from drive_seg.sim import Simulator

HELD_OUT_SEED = 1_000_000
"""First seed of the simulator's validation drives, far from any that training renders."""
HELD_OUT_FRAME = 30


@dataclass
class Confusion:
    """Pixels by (truth, prediction). Unlabelled predictions have a column of their own: they count as missed."""

    classes: int
    pixels: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.pixels = np.zeros((self.classes, self.classes + 1), np.int64)

    def add(self, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
        """Count one image; ``truth`` 255 is left out."""
        seen = truth != UNLABELLED
        column = np.minimum(prediction[seen], self.classes).astype(np.int64)
        pairs = truth[seen].astype(np.int64) * (self.classes + 1) + column
        self.pixels += np.bincount(pairs, minlength=self.pixels.size).reshape(self.pixels.shape)

    def iou(self, members: tuple[int, ...]) -> float:
        """Intersection over union of the union of some classes; NaN where there is none of them."""
        chosen = list(members)
        both = self.pixels[np.ix_(chosen, chosen)].sum()
        either = self.pixels[chosen].sum() + self.pixels[:, chosen].sum() - both
        return float(both / either) if either else float("nan")


@dataclass
class PanopticCounts:
    """Matches of one class (Kirillov et al., CVPR 2019): segments match where their IoU is above one half."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    iou_sum: float = 0.0

    @property
    def quality(self) -> float:
        """PQ, 0..1; NaN where there was nothing to find and nothing found."""
        weight = self.true_positive + 0.5 * (self.false_positive + self.false_negative)
        return self.iou_sum / weight if weight else float("nan")


def count_segments(truth: NDArray[np.uint16], prediction: NDArray[np.uint16], into: dict[int, PanopticCounts]) -> None:
    """Add one image's matches to ``into`` (by class id); a segment mostly on unlabelled truth is not counted."""
    pairs, areas = np.unique(truth.astype(np.uint32) << 16 | prediction, return_counts=True)
    truth_ids, predicted_ids = (pairs >> 16).astype(int), (pairs & 0xFFFF).astype(int)
    truth_area, predicted_area, on_void = ({} for _ in range(3))  # type: dict[int, int], dict[int, int], dict[int, int]
    for t, p, area in zip(truth_ids, predicted_ids, areas.tolist(), strict=True):
        truth_area[t] = truth_area.get(t, 0) + area
        predicted_area[p] = predicted_area.get(p, 0) + area
        if t == PANOPTIC_UNLABELLED:
            on_void[p] = area
    matched: set[int] = set()
    found: set[int] = set()
    for t, p, area in zip(truth_ids, predicted_ids, areas.tolist(), strict=True):
        if PANOPTIC_UNLABELLED in (t, p) or _class_of(t) != _class_of(p):
            continue
        overlap = area / (truth_area[t] + predicted_area[p] - area - on_void.get(p, 0))
        if overlap > 0.5:
            counts = into[_class_of(t)]
            counts.true_positive += 1
            counts.iou_sum += overlap
            matched.add(t)
            found.add(p)
    for t in truth_area.keys() - matched - {PANOPTIC_UNLABELLED}:
        into[_class_of(t)].false_negative += 1
    for p in predicted_area.keys() - found - {PANOPTIC_UNLABELLED}:
        if on_void.get(p, 0) <= 0.5 * predicted_area[p]:
            into[_class_of(p)].false_positive += 1


def _class_of(panoptic_id: int) -> int:
    return panoptic_id // PANOPTIC_DIVISOR if panoptic_id >= PANOPTIC_DIVISOR else panoptic_id


def labelled_folder(folder: Path) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Images (RGB) and labels of ``folder/images`` and ``folder/labels``, in name order.

    Raises:
        SourceError: the folder holds no image, or an image has no label.
    """
    paths = sorted((folder / "images").glob("*"))
    if not paths:
        raise SourceError(f"{folder}/images holds no image; expected images/ and labels/ with equal file stems")
    for path in paths:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        label = cv2.imread(str(folder / "labels" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        if image is None or label is None:
            raise SourceError(f"{path} or its label {folder}/labels/{path.stem}.png cannot be read")
        yield np.ascontiguousarray(image[..., ::-1]), np.asarray(label, np.uint8)


def validate_folder(model: str, backend: str, folder: Path) -> dict[str, object]:
    """IoU on a labelled folder whose people include riders: pedestrian and cyclist count as one class."""
    with open_pipeline(model, backend) as pipeline:
        confusion = Confusion(len(pipeline.labels))
        frames = 0
        for image, label in labelled_folder(folder):
            confusion.add(label, pipeline(image).mask)
            frames += 1
        return {"frames": frames, "backend": _backend(pipeline), "iou": _joint_ious(confusion, pipeline.labels)}


def _backend(pipeline: Pipeline) -> str:
    return f"{pipeline.engine.info.backend} {pipeline.engine.info.precision}"


def _joint_ious(confusion: Confusion, labels: LabelSet) -> dict[str, float]:
    ids = {label.name: label.id for label in labels}
    groups: dict[str, tuple[int, ...]] = {
        name: (number,) for name, number in ids.items() if name not in ("pedestrian", "cyclist")
    }
    groups["road_or_marking"] = (ids["road"], ids["lane_marking"])
    groups["pedestrian_or_cyclist"] = (ids["pedestrian"], ids["cyclist"])
    ious = {name: confusion.iou(members) for name, members in groups.items()}
    scored = ("background", "road", "lane_marking", "vehicle", "pedestrian_or_cyclist")
    return {"mean": float(np.nanmean([ious[name] for name in scored])), **ious}


def validate_simulator(model: str, backend: str, drives: Iterable[int], width: int, height: int) -> dict[str, object]:
    """IoU and PQ on one frame of every drive of the simulator given by its seed."""
    with open_pipeline(model, backend) as pipeline:
        labels = pipeline.labels
        confusion = Confusion(len(labels))
        counts = {label.id: PanopticCounts() for label in labels}
        frames = 0
        for seed in drives:
            shot = Simulator(seed, width, height).frame(HELD_OUT_FRAME)
            result = pipeline(shot.image)
            confusion.add(mask_of(shot.panoptic), result.mask)
            count_segments(shot.panoptic, result.panoptic, counts)
            frames += 1
        ious = {label.name: confusion.iou((label.id,)) for label in labels}
        quality = {label.name: counts[label.id].quality for label in labels}
        return {
            "frames": frames,
            "backend": _backend(pipeline),
            "iou": {"mean": float(np.nanmean(list(ious.values()))), **ious},
            "pq": {"mean": float(np.nanmean(list(quality.values()))), **quality},
        }


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Measure a model on held-out frames.")
    parser.add_argument("--model", default="default", help="name of a shipped model or path of a sidecar")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--folder", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--drives", type=int, default=0, help="simulator drives, one frame of each")
    parser.add_argument("--size", default="1280x720", help="WxH of the simulator's frames")
    parser.add_argument("--write", action="store_true", help="put the figures into the model's sidecar")
    arguments = parser.parse_args()
    if arguments.folder is None and not arguments.drives:
        parser.error("nothing to measure on: give --folder, --drives, or both")
    command = "python -m drive_seg.network.validate"
    report: dict[str, object] = {}
    if arguments.folder is not None:
        name = "/".join(arguments.folder.resolve().parts[-2:])
        command += f" --folder {name}"
        report[name] = validate_folder(arguments.model, arguments.backend, arguments.folder)
    if arguments.drives:
        width, height = (int(side) for side in arguments.size.split("x"))
        command += f" --drives {arguments.drives} --size {arguments.size}"
        seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + arguments.drives)
        report["simulator"] = validate_simulator(arguments.model, arguments.backend, seeds, width, height)
    report = {"command": command, **report}
    if arguments.write:
        write_metrics(find_model(arguments.model), report)
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
