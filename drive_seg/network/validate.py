"""The figures of a model's sidecar, measured through the whole pipeline at native resolution.

``python -m drive_seg.network.validate --folder DATA/camvid32/val --drives 60 --write`` prints one JSON object and puts
it into the sidecar. Torch is not needed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg import Pipeline, open_pipeline
from drive_seg.errors import SourceError
from drive_seg.labels import DRIVING, UNLABELLED, LabelSet
from drive_seg.network.samples import read_rgb
from drive_seg.network.sidecar import load_own, write_metrics
from drive_seg.network.tool import run
from drive_seg.network_size import size_of
from drive_seg.offline.label_map import LabelMap
from drive_seg.offline.metrics import Confusion, MatchCounts, Runs, overlaps
from drive_seg.sim import Simulator

HELD_OUT_SEED = 1_000_000
"""First seed of the simulator's validation drives, far from any that training renders."""
HELD_OUT_FRAME = 30


def labelled_folder(folder: Path, skip: int = 0) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Images (RGB) and labels of ``folder/images`` and ``folder/labels``, in name order, without the first ``skip``.

    Raises:
        SourceError: the folder holds no image, or an image has no label of its size and of our classes.
    """
    paths = sorted((folder / "images").glob("[!.]*"))[skip:]
    if not paths:
        after = f" after the first {skip}" if skip else ""
        raise SourceError(f"{folder}/images holds no image{after}; expected images/ and labels/ with equal file stems")
    for path in paths:
        image = read_rgb(path)
        label = cv2.imread(str(folder / "labels" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        if image is None or label is None:
            raise SourceError(f"{path} or its label {folder}/labels/{path.stem}.png cannot be read")
        if label.dtype != np.uint8 or label.shape != image.shape[:2]:
            found = f"{label.dtype} {label.shape}"
            raise SourceError(f"label {path.stem}.png of {folder} must be 8-bit grey {image.shape[:2]}, got {found}")
        strange = label[(label >= len(DRIVING)) & (label != UNLABELLED)]
        if strange.size:
            ids = f"0..{len(DRIVING) - 1} and {UNLABELLED}"
            raise SourceError(f"label {path.stem}.png of {folder} has id {strange[0]}; expected {ids}")
        yield image, np.asarray(label, np.uint8)


def folder_camera(folder: Path) -> tuple[int, int]:
    """(width, height) of the first image; the network's input takes their shape.

    Raises:
        SourceError: as ``labelled_folder``.
    """
    image, _ = next(labelled_folder(folder))
    return image.shape[1], image.shape[0]


def validate_folder(pipeline: Pipeline, folder: Path, skip: int = 0) -> dict[str, Any]:
    """IoU on a labelled folder whose people include riders: pedestrian and cyclist count as one class."""
    return validate_labelled(pipeline, labelled_folder(folder, skip))


def validate_labelled(
    pipeline: Pipeline, frames: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
) -> dict[str, Any]:
    """The same of images (RGB) with their labels."""
    confusion = Confusion(len(pipeline.labels))
    count = 0
    for image, label in frames:
        confusion.add_masks(label, pipeline(image).mask)
        count += 1
    return {"frames": count, **_engine(pipeline), "iou": _joint_ious(confusion, pipeline.labels)}


def _engine(pipeline: Pipeline) -> dict[str, str]:
    width, height = pipeline.network_size
    return {
        "backend": f"{pipeline.engine.info.backend} {pipeline.engine.info.precision}",
        "network": f"{width}x{height}",
    }


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


def validate_simulator(pipeline: Pipeline, drives: Iterable[int], width: int, height: int) -> dict[str, Any]:
    """IoU and PQ on one frame of every drive of the simulator given by its seed."""
    return validate_shots(pipeline, drive_shots(drives, width, height))


def drive_shots(
    drives: Iterable[int], width: int, height: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint16]]]:
    """Image (RGB) and panoptic truth of one frame of every drive."""
    for seed in drives:
        shot = Simulator(seed, width, height).frame(HELD_OUT_FRAME)
        yield shot.image, shot.panoptic


def validate_shots(pipeline: Pipeline, shots: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint16]]]) -> dict[str, Any]:
    """IoU and PQ on images (RGB) with their panoptic truth, in the pipeline's own labels."""
    labels = pipeline.labels
    confusion = Confusion(len(labels))
    counts = MatchCounts(len(labels))
    same = LabelMap.identity(labels)
    frames = 0
    for image, panoptic in shots:
        runs = Runs.of(panoptic, pipeline(image).panoptic)
        found = overlaps(runs, labels.is_thing, same.truth_table, same.predicted_table)
        confusion.add(found)
        counts.add(found)
        frames += 1
    ious = {label.name: confusion.iou((label.id,)) for label in labels}
    quality = {label.name: counts.qualities(label.id)[0] for label in labels}
    return {
        "frames": frames,
        **_engine(pipeline),
        "iou": {"mean": float(np.nanmean(list(ious.values()))), **ious},
        "pq": {"mean": float(np.nanmean(list(quality.values()))), **quality},
    }


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Measure a model on held-out frames.")
    parser.add_argument("--model", default="default", help="name of a shipped model or path of a sidecar")
    parser.add_argument("--backend", default="auto", help="auto, tensorrt, openvino or onnxruntime")
    parser.add_argument("--folder", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many images of it, in name order")
    parser.add_argument("--drives", type=int, default=0, help="simulator drives, one frame of each")
    parser.add_argument(
        "--size", type=size_of, default="1280x720", help="WxH of the simulator's frames (default: %(default)s)"
    )
    parser.add_argument("--write", action="store_true", help="put the figures into the model's sidecar")
    arguments = parser.parse_args()
    if arguments.folder is None and not arguments.drives:
        parser.error("nothing to measure on: give --folder, --drives, or both")
    sidecar = load_own(arguments.model).path
    command = "python -m drive_seg.network.validate"
    report: dict[str, object] = {}
    if arguments.folder is not None:
        name = "/".join(arguments.folder.resolve().parts[-2:])
        command += f" --folder {name}" + (f" --skip {arguments.skip}" if arguments.skip else "")
        with open_pipeline(arguments.model, arguments.backend, camera=folder_camera(arguments.folder)) as pipeline:
            report[name] = validate_folder(pipeline, arguments.folder, arguments.skip)
    if arguments.drives:
        width, height = arguments.size
        command += f" --drives {arguments.drives} --size {width}x{height}"
        seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + arguments.drives)
        with open_pipeline(arguments.model, arguments.backend, camera=(width, height)) as pipeline:
            report["simulator"] = validate_simulator(pipeline, seeds, width, height)
    report = {"command": command, **report}
    if arguments.write:
        write_metrics(sidecar, report)
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
