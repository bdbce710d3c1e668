"""Ground truth of CARLA's semantic and instance cameras, from files and from messages.

The raw images hold the class in red and, for instances, the object in green and blue
(https://carla.readthedocs.io/en/latest/ref_sensors/). The ROS bridge paints semantic images in colours instead.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import SourceError
from drive_seg.labels import UNLABELLED
from drive_seg.offline.label_image import read_label_image
from drive_seg.offline.scoring import Truth
from drive_seg.offline.truth import TruthSource
from drive_seg.offline.truth_colors import Palette
from drive_seg.offline.truth_files import FolderTruth, mask_truth, png_files

COLORS = {
    "unlabeled": (0, 0, 0),
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "pedestrian": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
    "static": (110, 190, 160),
    "dynamic": (170, 120, 50),
    "other": (55, 90, 80),
    "water": (45, 60, 150),
    "road line": (157, 234, 50),
    "ground": (81, 0, 81),
    "bridge": (150, 100, 100),
    "rail track": (230, 150, 140),
    "guard rail": (180, 165, 180),
}
CARLA = {name: number for number, name in enumerate(COLORS)}
"""Tags since CARLA 0.9.14."""


def carla_truth(name: str, rgb: NDArray[np.uint8], instances: bool) -> Truth:
    """The truth in an image, uint8 (H, W, 3) RGB; ``name`` is for messages.

    Raises:
        SourceError: neither tags nor colours of CARLA.
    """
    tags = np.ascontiguousarray(rgb[..., 0])
    if not instances:
        return Truth(tags if int(tags.max()) < len(CARLA) else _palette().look_up(name, rgb))
    if int(tags.max()) >= len(CARLA):
        raise SourceError(f"{name} has tag {int(tags.max())} in its red channel; CARLA has 0..{len(CARLA) - 1}")
    key = tags.astype(np.uint32) << 16 | rgb[..., 1].astype(np.uint32) << 8 | rgb[..., 2]
    objects, rows = np.unique(key, return_inverse=True)
    if objects.size > UNLABELLED << 8:
        raise SourceError(f"{name} has {objects.size} objects, too many for an instance image")
    return Truth(rows.astype(np.uint16).reshape(tags.shape), classes=(objects >> 16).astype(np.uint8))


@lru_cache(maxsize=1)
def _palette() -> Palette:
    return Palette(COLORS)


def open_carla(path: Path) -> TruthSource:
    """PNGs of an instance camera (``instances/``, or the folder itself) or a semantic one; or grey ones of tags."""
    inner = next(
        (path / name for name in ("instances", "instance", "semantic", "labels_orig") if (path / name).is_dir()), path
    )
    files = png_files(inner)
    sample = read_label_image(next(iter(files.values())))
    if sample.ndim == 2:
        return FolderTruth(str(path), files, mask_truth, CARLA, "carla", instances=False)
    # Tags without objects leave green and blue empty; colours exceed the tags.
    instances = bool(sample[..., :2].any()) and int(sample[..., 2].max()) < len(CARLA)

    def decode(where: Path, pixels: NDArray[Any]) -> Truth:
        if pixels.ndim != 3 or pixels.dtype != np.uint8:
            raise SourceError(f"{where} must be an 8-bit colour PNG, got {pixels.dtype} {pixels.shape}")
        return carla_truth(str(where), np.ascontiguousarray(pixels[..., 2::-1]), instances)

    return FolderTruth(str(path), files, decode, CARLA, "carla", instances)
