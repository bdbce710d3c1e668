"""Ground truth of public data sets and simulators, in their own files and encodings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drive_seg.labels import PANOPTIC_DIVISOR
from drive_seg.offline.scoring import Truth
from drive_seg.offline.truth import TruthSource
from drive_seg.offline.truth_files import FolderTruth, mask_truth, panoptic_truth, png_files

CITYSCAPES_NAMES = (
    "unlabeled,ego vehicle,rectification border,out of roi,static,dynamic,ground,road,sidewalk,parking,rail track,"
    "building,wall,fence,guard rail,bridge,tunnel,pole,polegroup,traffic light,traffic sign,vegetation,terrain,sky,"
    "person,rider,car,truck,bus,caravan,trailer,train,motorcycle,bicycle"
)
CITYSCAPES = {name: number for number, name in enumerate(CITYSCAPES_NAMES.split(","))}
"""Label ids (not train ids) of gtFine, which KITTI's semantic benchmark shares."""
_CITYSCAPES_THINGS = range(24, 34)

CARLA_NAMES = (
    "unlabeled,road,sidewalk,building,wall,fence,pole,traffic light,traffic sign,vegetation,terrain,sky,pedestrian,"
    "rider,car,truck,bus,train,motorcycle,bicycle,static,dynamic,other,water,road line,ground,bridge,rail track,"
    "guard rail"
)
CARLA_CLASSES = {name: number for number, name in enumerate(CARLA_NAMES.split(","))}
"""Tags of CARLA 0.9.14 and later, the red channel of its semantic and instance cameras."""
_CARLA_THINGS = range(12, 20)


def open_cityscapes(path: Path) -> TruthSource:
    """``*_gtFine_instanceIds.png`` (or ``gtCoarse``), else ``*_labelIds.png``, in any folders below."""
    endings = ("_gtFine_instanceIds", "_gtCoarse_instanceIds", "_instanceIds")
    if next(path.rglob("*_instanceIds.png"), None):
        files = png_files(path, endings)
        return FolderTruth(str(path), files, _cityscapes, CITYSCAPES, "cityscapes", True, "_leftImg8bit")
    files = png_files(path, ("_gtFine_labelIds", "_gtCoarse_labelIds", "_labelIds"))
    return FolderTruth(str(path), files, mask_truth, CITYSCAPES, "cityscapes", False, "_leftImg8bit")


def _cityscapes(path: Path, pixels: NDArray[np.generic]) -> Truth:
    truth = panoptic_truth(path, pixels)
    # An object's class without a number: a group that was not taken apart.
    present = np.flatnonzero(np.bincount(truth.map.reshape(-1), minlength=PANOPTIC_DIVISOR)[:PANOPTIC_DIVISOR])
    return Truth(truth.map, tuple(number for number in present.tolist() if number in _CITYSCAPES_THINGS))


def carla_truth(rgb: NDArray[np.uint8], instances: bool) -> Truth:
    """An image of CARLA's semantic or instance camera, uint8 (H, W, 3) RGB: red is the class, green and blue name
    the object."""
    classes = np.ascontiguousarray(rgb[..., 0])
    if not instances:
        return Truth(classes)
    key = classes.astype(np.uint32) << 16 | rgb[..., 1].astype(np.uint32) << 8 | rgb[..., 2]
    objects, number = np.unique(key, return_inverse=True)
    kind = (objects >> 16).astype(np.int64)
    ids = kind.copy()
    for thing in _CARLA_THINGS:
        mine = np.flatnonzero(kind == thing)
        ids[mine] = thing * PANOPTIC_DIVISOR + 1 + np.arange(mine.size)
    return Truth(ids.astype(np.uint16)[number.reshape(classes.shape)])


OPENERS: dict[str, Callable[[Path], TruthSource]] = {"cityscapes": open_cityscapes}
