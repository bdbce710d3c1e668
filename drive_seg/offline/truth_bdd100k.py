"""Ground truth of BDD100K: semantic masks and panoptic bitmasks.

Yu et al., BDD100K (CVPR 2020, arXiv:1805.04687); formats and categories: https://doc.bdd100k.com/format.html.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import SourceError
from drive_seg.labels import UNLABELLED
from drive_seg.offline.label_image import read_label_image
from drive_seg.offline.scoring import Truth
from drive_seg.offline.truth import TruthSource
from drive_seg.offline.truth_files import FolderTruth, mask_truth, png_files

_SEMANTIC_NAMES = (
    "road,sidewalk,building,wall,fence,pole,traffic light,traffic sign,vegetation,terrain,sky,"
    "person,rider,car,truck,bus,train,motorcycle,bicycle"
)
SEMANTIC = {name: number for number, name in enumerate(_SEMANTIC_NAMES.split(","))}
"""Of the 8-bit masks; 255 is unknown."""
_PANOPTIC_NAMES = (
    "unlabeled,dynamic,ego vehicle,ground,static,parking,rail track,road,sidewalk,bridge,building,fence,garage,"
    "guard rail,tunnel,wall,banner,billboard,lane divider,parking sign,pole,polegroup,street light,traffic cone,"
    "traffic device,traffic light,traffic sign,traffic sign frame,terrain,vegetation,sky,"
    "person,rider,bicycle,bus,car,caravan,motorcycle,trailer,train,truck"
)
PANOPTIC = {name: number for number, name in enumerate(_PANOPTIC_NAMES.split(","))}
"""Of the bitmasks' R channel; from ``person`` on they are things."""
_CROWD_OR_IGNORED = 0b11


def open_bdd100k(path: Path) -> TruthSource:
    """A folder of panoptic bitmasks (RGBA PNG) or of semantic masks (grey PNG), by what the first of them is.

    Raises:
        SourceError: it holds no PNG, or one that cannot be read.
    """
    files = png_files(path)
    first = next(iter(files.values()))
    if read_label_image(first).ndim == 3:
        return FolderTruth(str(path), files, _bitmask, PANOPTIC, "bdd100k", instances=True)
    return FolderTruth(str(path), files, mask_truth, SEMANTIC, "bdd100k", instances=False)


def _bitmask(path: Path, pixels: NDArray[Any]) -> Truth:
    """(H, W, 4) as OpenCV reads it, BGRA: R category, G attributes (bit 1 crowd, bit 0 ignored), 256 B + A object."""
    if pixels.ndim != 3 or pixels.shape[2] != 4 or pixels.dtype != np.uint8:
        raise SourceError(f"{path} must be an 8-bit RGBA PNG (a BDD100K bitmask), got {pixels.dtype} {pixels.shape}")
    blue, green, red, alpha = (pixels[..., channel].astype(np.uint32) for channel in range(4))
    if int(red.max()) >= len(PANOPTIC):
        raise SourceError(f"{path} has category {int(red.max())}; BDD100K's bitmasks have 0..{len(PANOPTIC) - 1}")
    thing = red >= PANOPTIC["person"]
    group = (green & _CROWD_OR_IGNORED) > 0
    key = red << 24 | np.where(thing, blue << 8 | alpha, 0) | np.where(thing & group, 1 << 16, 0)
    values, rows = np.unique(key, return_inverse=True)
    if values.size >= 1 << 16:
        raise SourceError(f"{path} has {values.size} segments, expected at most {(1 << 16) - 1}")
    # Numbered from 1: a crowd is an object, and 0 is the number of stuff.
    crowds = np.flatnonzero(values >> 16 & 1) + 1
    classes = np.append(np.uint8(UNLABELLED), (values >> 24).astype(np.uint8))
    return Truth((rows + 1).astype(np.uint16).reshape(key.shape), tuple(crowds.tolist()), classes)
