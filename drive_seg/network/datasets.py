"""What the network learns from: labelled folders and the built-in simulator, brought to one form.

A data folder has ``images/`` and ``labels/`` (8-bit PNG of ids 0 background, 1 road, 2 lane_marking, 3
vehicle, 4 people with riders, 255 void); file stems agree. What a set does not know is said by ``codes``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import ConfigError
from drive_seg.network.codes import (
    NO_THING,
    NOT_PEDESTRIAN,
    NOT_ROAD,
    PEDESTRIAN_OR_CYCLIST,
    ROAD_OR_MARKING,
    VOID,
)
from drive_seg.network.components import guess_instances, unknown_instances
from drive_seg.network.folders import FolderConfig, FolderSet
from drive_seg.network.samples import UNKNOWN_INSTANCE, InMemory, RenderedSet, Sample, SampleSet, read_rgb


@dataclass(frozen=True)
class FolderRule:
    """How a labelled folder is read.

    folder: below the data root. codes: label id -> code where it is not itself. original: the source's own class id,
    read from ``labels_orig/``, -> code; wins, and tells riders from walkers where the source does.
    without: folders (below the data root) whose image names are left out, so that nothing held out is learnt.
    guess_instances: take single, compact components as instances (see ``components``).
    first: only so many of the images, in name order; 0 takes all.
    """

    folder: str
    codes: dict[int, int]
    original: dict[int, int] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    guess_instances: bool = True
    first: int = 0


_PEOPLE = {4: PEDESTRIAN_OR_CYCLIST}
_VAL = ("camvid32/val", "camvid11/val")
_JOINED = {**_PEOPLE, 1: ROAD_OR_MARKING}
_CITYSCAPES = {24: 4, 25: 5, 33: VOID}
"""Person, rider, bicycle. Bicycles are ridden (part of the cyclist) or parked (background); nobody says which."""
_CAMVID32 = {16: 4, 7: 4, 2: 5}
"""Pedestrian, child, bicyclist."""
CAMSEQ_LEARNT = 40
"""Frames of the labelled sequence that may be learnt from: its first 2.7 s. Validate on what comes after frame 50."""
RULES = {
    "camvid32": FolderRule("camvid32/train", _PEOPLE, _CAMVID32, _VAL),
    "camseq": FolderRule("camvid32/val", _PEOPLE, _CAMVID32, first=CAMSEQ_LEARNT),
    "camvid11": FolderRule("camvid11/train", _JOINED, {9: 4, 10: 5}, (*_VAL, "camvid32/train")),
    "kitti": FolderRule("kitti_semantic", _JOINED, _CITYSCAPES),
    "bdd100k": FolderRule("bdd100k_sample/train", _JOINED, _CITYSCAPES),
    "comma10k": FolderRule("comma10k_sample", {}, guess_instances=False),
    "carla": FolderRule("carla_sample/carlascapes", _PEOPLE),
    "road_only": FolderRule("road_only_roboflow/valid", {0: NOT_ROAD, 1: ROAD_OR_MARKING}, guess_instances=False),
}
"""Folders by the name a training configuration uses."""


def load_set(name: str, root: Path, folders: Mapping[str, FolderConfig] = MappingProxyType({})) -> SampleSet:
    """The training images called ``name``: a key of ``folders`` (your own) or of ``RULES``, ``pennfudan``, ``coco``,
    or ``sim`` (rendered frames).

    Raises:
        ConfigError: unknown name, or the folder is missing or empty.
    """
    if name in folders:
        return FolderSet(name, folders[name], root)
    if name == "sim":
        return RenderedSet(root)
    if name == "pennfudan":
        return InMemory(_load_pennfudan(root / "instances_real" / "pennfudan"))
    if name == "coco":
        return InMemory(_load_coco(root / "instances_real" / "coco128_seg"))
    if name not in RULES:
        raise ConfigError(f"no data set '{name}', there are {sorted([*folders, *RULES, 'coco', 'pennfudan', 'sim'])}")
    return InMemory(_load_folder(RULES[name], root))


def _load_folder(rule: FolderRule, root: Path) -> list[Sample]:
    held_out = {path.stem for other in rule.without for path in _listed(root / other / "images")}
    table = np.arange(256, dtype=np.uint8)
    for label, code in rule.codes.items():
        table[label] = code

    def read(image: Path) -> Sample:
        codes = table[_read_grey(root / rule.folder / "labels" / f"{image.stem}.png")]
        if rule.original:
            original = _read_grey(root / rule.folder / "labels_orig" / f"{image.stem}.png")
            for source_id, code in rule.original.items():
                codes[original == source_id] = code
        if rule.guess_instances:
            instances, classes = guess_instances(codes)
        else:
            instances, classes = unknown_instances(codes), np.zeros(1, np.uint8)
        return Sample(_read_rgb(image), codes, instances, classes)

    return _read_all(root / rule.folder / "images", read, held_out, rule.first)


def _load_pennfudan(folder: Path) -> list[Sample]:
    def read(image: Path) -> Sample:
        people = _read_grey(folder / "instance_masks" / f"{image.stem}.png")
        codes = np.where(people > 0, 4, NOT_PEDESTRIAN).astype(np.uint8)
        return Sample(_read_rgb(image), codes, people.astype(np.uint16), np.full(int(people.max()) + 1, 4, np.uint8))

    return _read_all(folder / "images", read, set())


_COCO = {0: 4, 2: 3, 5: 3, 6: 3, 7: 3}
_COCO_RIDDEN = (1, 3)
"""Person; car, bus, train, truck. Bicycles and motorcycles belong to a cyclist or stand alone: nobody says which."""


def _load_coco(folder: Path) -> list[Sample]:
    """Polygons in the text form of YOLO: class and corners in parts of the image, an object a line, near ones last."""

    def read(path: Path) -> Sample:
        image = _read_rgb(path)
        size = np.array([image.shape[1], image.shape[0]])
        codes = np.full(image.shape[:2], NO_THING, np.uint8)
        instances = np.zeros(image.shape[:2], np.uint16)
        classes = [0]
        lines = (folder / "labels_yolo_seg" / f"{path.stem}.txt").read_text(encoding="utf-8").splitlines()
        objects = [(int(line.split()[0]), np.array(line.split()[1:], float).reshape(-1, 2)) for line in lines if line]
        ridden = any(kind in _COCO_RIDDEN for kind, _ in objects)
        for kind, corners in objects:
            inside = _inside(corners * size, codes.shape)
            if kind in _COCO:
                person = _COCO[kind] == 4
                classes.append(_COCO[kind])
                codes[inside] = PEDESTRIAN_OR_CYCLIST if person and ridden else _COCO[kind]
                instances[inside] = UNKNOWN_INSTANCE if person and ridden else len(classes) - 1
            elif kind in _COCO_RIDDEN:
                codes[inside] = VOID
                instances[inside] = 0
        return Sample(image, codes, instances, np.array(classes, np.uint8))

    return _read_all(folder / "images", read, set())


def _inside(corners: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """bool of ``shape`` (H, W): the pixels whose middle is inside a polygon, (N, 2) pixels from the upper left corner.

    As COCO's own masks have them to 0.2 %. ``cv2.fillPoly`` takes in what the outline touches too, 2 % more.
    """
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    middles = np.arange(shape[0])[:, None] + 0.5
    row, side = np.nonzero((y0 <= middles) != (y1 <= middles))
    crossing = x0[side] + (row + 0.5 - y0[side]) * (x1 - x0)[side] / (y1 - y0)[side]
    turns = np.zeros((shape[0], shape[1] + 1), np.int32)
    np.add.at(turns, (row, np.clip(np.ceil(crossing - 0.5), 0, shape[1]).astype(int)), 1)
    return np.asarray(np.cumsum(turns[:, :-1], axis=1) % 2 == 1)


def _read_all(folder: Path, read: Callable[[Path], Sample], held_out: set[str], first: int = 0) -> list[Sample]:
    paths = _listed(folder)[: first or None]
    samples = [read(path) for path in paths if path.stem not in held_out]
    if not samples:
        raise ConfigError(f"{folder} holds no training image (after leaving out {len(held_out)} held-out names)")
    return samples


def _listed(folder: Path) -> list[Path]:
    """What is in a folder of images, in name order."""
    if not folder.is_dir():
        raise ConfigError(f"images {folder} do not exist; point data_root at the folder that holds them")
    return sorted(file for file in folder.iterdir() if not file.name.startswith("."))


def _read_rgb(path: Path) -> NDArray[np.uint8]:
    image = read_rgb(path)
    if image is None:
        raise ConfigError(f"{path} is not a readable image")
    return image


def _read_grey(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2 or image.dtype != np.uint8:
        raise ConfigError(f"{path} is not a readable 8-bit single-channel PNG")
    return np.asarray(image)
