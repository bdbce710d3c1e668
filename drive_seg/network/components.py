"""Instances guessed from class masks, only where the guess is safe.

Most street data has class masks without instances, and parked cars melt into one blob. A connected component
is taken for one object only when its shape says so; everything else stays "unknown" and is left out of the
loss.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.network.codes import PEDESTRIAN_OR_CYCLIST, is_thing
from drive_seg.network.samples import UNKNOWN_INSTANCE

MIN_AREA = 200
"""Pixels of the source image; smaller components say little about shape."""
_SHAPES = (
    ((3,), (0.7, 2.2), 0.7),
    ((4, PEDESTRIAN_OR_CYCLIST), (0.2, 0.5), 0.45),
    ((5,), (0.25, 0.9), 0.4),
)
"""Of one vehicle, one walking person, one rider with bicycle: its class first of the codes that are taken for it, how
many times as wide as high it is, and the least share of its box that it fills."""

_UNKNOWN = np.array([UNKNOWN_INSTANCE if is_thing(code) else 0 for code in range(256)], np.uint16)


def unknown_instances(codes: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """uint16 (H, W): ``UNKNOWN_INSTANCE`` on every pixel of a thing, also of one of several classes, 0 elsewhere."""
    return _UNKNOWN[codes]


def guess_instances(codes: NDArray[np.uint8]) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """``Sample.instances`` and ``Sample.classes`` for class codes without objects."""
    instances = unknown_instances(codes)
    classes = [0]
    for among, aspect, filled in _SHAPES:
        for mask in _components(np.isin(codes, among), aspect, filled):
            classes.append(among[0])
            instances[mask] = len(classes) - 1
    return instances, np.array(classes, np.uint8)


def _components(mask: NDArray[np.bool_], aspect: tuple[float, float], filled: float) -> Iterator[NDArray[np.bool_]]:
    """The connected parts of ``mask`` that have this shape."""
    count, number, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    for index in range(1, count):
        _, _, width, height, area = (int(v) for v in stats[index])
        shaped = aspect[0] <= width / height <= aspect[1] and area >= filled * width * height
        if area >= MIN_AREA and shaped:
            yield number == index
