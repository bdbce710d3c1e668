"""Ground truth of public data sets and simulators, in their own files and encodings.

Cityscapes: https://github.com/mcordts/cityscapesScripts (labels.py). KITTI: the semantic benchmark's development kit.
COCO: https://cocodataset.org/#format-data, Panoptic Segmentation. CamVid: label_colors.txt, and SegNet's 11 classes.
TuSimple: MaybeShewill-CV/lanenet-lane-detection, data/training_data_example.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import SourceError
from drive_seg.frame import Lane
from drive_seg.labels import UNLABELLED
from drive_seg.offline.label_image import read_label_image
from drive_seg.offline.scoring import Truth
from drive_seg.offline.sources import refuse_pointer
from drive_seg.offline.truth import TruthSource
from drive_seg.offline.truth_bdd100k import open_bdd100k
from drive_seg.offline.truth_carla import open_carla
from drive_seg.offline.truth_colors import Palette
from drive_seg.offline.truth_files import FolderTruth, mask_truth, panoptic_truth, png_files

CITYSCAPES_NAMES = (
    "unlabeled,ego vehicle,rectification border,out of roi,static,dynamic,ground,road,sidewalk,parking,rail track,"
    "building,wall,fence,guard rail,bridge,tunnel,pole,polegroup,traffic light,traffic sign,vegetation,terrain,sky,"
    "person,rider,car,truck,bus,caravan,trailer,train,motorcycle,bicycle"
)
CITYSCAPES = {name: number for number, name in enumerate(CITYSCAPES_NAMES.split(","))}
"""Label ids (not train ids), which KITTI's semantic benchmark shares."""
_THINGS = range(24, 34)

CAMVID = {
    "Animal": (64, 128, 64),
    "Archway": (192, 0, 128),
    "Bicyclist": (0, 128, 192),
    "Bridge": (0, 128, 64),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "CartLuggagePram": (64, 0, 192),
    "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128),
    "Fence": (64, 64, 128),
    "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64),
    "Misc_Text": (128, 128, 64),
    "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64),
    "ParkingBlock": (64, 192, 128),
    "Pedestrian": (64, 64, 0),
    "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192),
    "Sidewalk": (0, 0, 192),
    "SignSymbol": (192, 128, 128),
    "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192),
    "TrafficCone": (0, 0, 64),
    "TrafficLight": (0, 64, 64),
    "Train": (192, 64, 128),
    "Tree": (128, 128, 0),
    "Truck_Bus": (192, 128, 192),
    "Tunnel": (64, 0, 64),
    "VegetationMisc": (192, 192, 0),
    "Void": (0, 0, 0),
    "Wall": (64, 192, 0),
}
CAMVID_11_NAMES = "Sky,Building,Pole,Road,Pavement,Tree,SignSymbol,Fence,Car,Pedestrian,Bicyclist,Unlabelled"
CAMVID_11 = {name: number for number, name in enumerate(CAMVID_11_NAMES.split(","))}


def open_cityscapes(path: Path) -> TruthSource:
    """``*_gtFine_instanceIds.png`` (or ``gtCoarse``), else ``*_labelIds.png``, in any folders below."""
    if next(path.rglob("*_instanceIds.png"), None):
        files = png_files(path, ("_gtFine_instanceIds", "_gtCoarse_instanceIds", "_instanceIds"))
        return FolderTruth(str(path), files, _cityscapes, CITYSCAPES, "cityscapes", True, "_leftImg8bit")
    files = png_files(path, ("_gtFine_labelIds", "_gtCoarse_labelIds", "_labelIds"))
    return FolderTruth(str(path), files, mask_truth, CITYSCAPES, "cityscapes", False, "_leftImg8bit")


def _cityscapes(path: Path, pixels: NDArray[Any]) -> Truth:
    truth = panoptic_truth(path, pixels)
    # An object's class without a number: a group that was not taken apart.
    return Truth(truth.map, tuple(number for number in _THINGS if bool((truth.map == number).any())))


def open_kitti(path: Path) -> TruthSource:
    """``instance/`` (16-bit, class * 256 + number) or ``semantic/`` (8-bit label ids), or a folder of the latter."""
    if (path / "instance").is_dir():
        return FolderTruth(
            str(path), png_files(path / "instance"), _kitti_instances, CITYSCAPES, "cityscapes", instances=True
        )
    inner = next((path / name for name in ("semantic", "labels_orig") if (path / name).is_dir()), path)
    return FolderTruth(str(path), png_files(inner), mask_truth, CITYSCAPES, "cityscapes", instances=False)


_KITTI_CLASSES = (np.arange(1 << 16) >> 8).astype(np.uint8)


def _kitti_instances(path: Path, pixels: NDArray[Any]) -> Truth:
    ids = panoptic_truth(path, pixels).map
    groups = (number << 8 for number in _THINGS)
    return Truth(ids, tuple(number for number in groups if bool((ids == number).any())), _KITTI_CLASSES)


def open_camvid(path: Path) -> TruthSource:
    """Colour PNGs (``*_L.png``, 32 classes), or grey ones of class ids: SegNet's 11, or 32 in alphabetical order; in
    ``labels_orig/``, else ``labels/``, else the folder itself."""
    inner = next((path / name for name in ("labels_orig", "labels") if (path / name).is_dir()), path)
    files = png_files(inner, ("_L", ""))
    first = read_label_image(next(iter(files.values())))
    classes = {name: number for number, name in enumerate(CAMVID)}
    if first.ndim == 3:
        return FolderTruth(str(path), files, Palette(CAMVID).decode, classes, "camvid", instances=False)
    # One picture need not show any of the classes that only the 32 have.
    if any(ids[ids != UNLABELLED].max(initial=0) >= len(CAMVID_11) for ids in map(read_label_image, files.values())):
        return FolderTruth(str(path), files, mask_truth, classes, "camvid", instances=False)
    return FolderTruth(str(path), files, mask_truth, CAMVID_11, "camvid11", instances=False)


TUSIMPLE = {"line": 0}


def open_tusimple(path: Path) -> TruthSource:
    """``lane_instances/*.png`` as lanenet-lane-detection makes them of TuSimple's labels: one grey value per boundary.

    They are drawn through gaps and behind vehicles, so they are no truth for pixels: all of these are void.
    """
    files = png_files(path / "lane_instances")
    return FolderTruth(str(path), files, _tusimple, TUSIMPLE, "tusimple", instances=False, draws_lanes=True)


def _tusimple(path: Path, pixels: NDArray[Any]) -> Truth:
    grey = mask_truth(path, pixels).map
    middle = grey.shape[1] / 2
    found = []
    for value in np.flatnonzero(np.bincount(grey.reshape(-1), minlength=1))[1:].tolist():
        row, column = np.nonzero(grey == value)
        count = np.bincount(row)
        rows = np.flatnonzero(count)[::-1]
        if rows.size > 1:
            points = np.stack([np.bincount(row, column)[rows] / count[rows], rows], axis=1)
            found.append(points.astype(np.float32))
    found.sort(key=lambda points: float(points[0, 0]))
    left = sum(points[0, 0] < middle for points in found)
    orders = [*range(-left, 0), *range(1, len(found) - left + 1)]
    lanes = tuple(Lane(order, points) for order, points in zip(orders, found, strict=True))
    return Truth(np.full(grey.shape, UNLABELLED, np.uint8), lanes=lanes)


def open_coco(path: Path) -> TruthSource:
    """A panoptic ``.json`` with its folder of PNGs, which has the same name; or the folder that holds both.

    Raises:
        SourceError: no such file, several, or not of COCO's panoptic form.
    """
    file = path
    if path.is_dir():
        found = sorted(path.glob("*.json"))
        if len(found) != 1:
            raise SourceError(f"folder {path} must hold one COCO panoptic .json, it has {len(found)}; name the file")
        file = found[0]
    refuse_pointer(file)
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        classes = {row["name"]: int(row["id"]) for row in document["categories"]}
        images = {row["id"]: row["file_name"] for row in document["images"]}
        segments: dict[str, list[CocoSegment]] = {}
        stems: dict[str, str] = {}
        for row in document["annotations"]:
            name, stem = Path(row["file_name"]).name, Path(images[row["image_id"]]).stem
            if name in segments or stem in stems:
                what = f"annotations called {name}" if name in segments else f"annotations of images called {stem}"
                raise SourceError(f"{file} has several {what}, in whatever folders; give each a name of its own")
            segments[name], stems[stem] = _segments(row["segments_info"]), name
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise SourceError(f"{file} is no COCO panoptic file ({type(error).__name__}: {error})") from error
    numbers = [*classes.values(), *(segment.category for row in segments.values() for segment in row)]
    if not all(0 <= number < UNLABELLED for number in numbers):
        low, high = min(numbers), max(numbers)
        raise SourceError(f"{file} has category ids {low}..{high}; expected them within 0..{UNLABELLED - 1}")
    folder = next((f for f in (file.with_suffix(""), file.parent / "panoptic") if f.is_dir()), file.parent)

    def decode(where: Path, pixels: NDArray[Any]) -> Truth:
        return coco_truth(where, pixels, segments[where.name])

    files = {stem: folder / name for stem, name in stems.items()}
    return FolderTruth(str(path), files, decode, classes, "coco", instances=True)


@dataclass(frozen=True)
class CocoSegment:
    """An entry of COCO's ``segments_info``: its id in the PNG, its category, and whether it is a crowd."""

    id: int
    category: int
    crowd: bool


def _segments(rows: list[dict[str, Any]]) -> list[CocoSegment]:
    segments = [CocoSegment(int(row["id"]), int(row["category_id"]), bool(row.get("iscrowd"))) for row in rows]
    for segment in segments:
        if not 0 <= segment.id < 1 << 24:
            raise ValueError(f"segment id {segment.id}, expected 0..{(1 << 24) - 1}")
    return segments


def coco_truth(path: Path, pixels: NDArray[Any], segments: Sequence[CocoSegment]) -> Truth:
    """A COCO panoptic PNG, (H, W, 3) BGR: a segment's id is R + 256 G + 65536 B; what is not listed is void."""
    if pixels.ndim != 3 or pixels.shape[2] < 3 or pixels.dtype != np.uint8:
        raise SourceError(f"{path} must be an 8-bit colour PNG of segment ids, got {pixels.dtype} {pixels.shape}")
    key = pixels[..., 0].astype(np.uint32) << 16 | pixels[..., 1].astype(np.uint32) << 8 | pixels[..., 2]
    ids, rows = np.unique(key, return_inverse=True)
    if ids.size >= 1 << 16:
        raise SourceError(f"{path} has {ids.size} segments, expected at most {(1 << 16) - 1}; is it a photograph?")
    # Numbered from 1: a crowd is an object, and 0 is the number of stuff.
    classes = np.full(ids.size + 1, UNLABELLED, np.uint8)
    crowds = []
    for segment in segments:
        row = int(np.searchsorted(ids, segment.id))
        if row < ids.size and ids[row] == segment.id:
            classes[row + 1] = segment.category
            if segment.crowd:
                crowds.append(row + 1)
    return Truth((rows + 1).astype(np.uint16).reshape(key.shape), tuple(crowds), classes)


OPENERS: dict[str, Callable[[Path], TruthSource]] = {
    "cityscapes": open_cityscapes,
    "coco": open_coco,
    "camvid": open_camvid,
    "kitti": open_kitti,
    "bdd100k": open_bdd100k,
    "carla": open_carla,
    "tusimple": open_tusimple,
}
