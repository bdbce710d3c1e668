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


_UNKNOWN = np.array([UNKNOWN_INSTANCE if is_thing(code) else 0 for code in range(256)], np.uint16)


def unknown_instances(codes: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """uint16 (H, W): ``UNKNOWN_INSTANCE`` on every pixel of a thing, also of one of several classes, 0 elsewhere."""
    return _UNKNOWN[codes]


def guess_instances(codes: NDArray[np.uint8]) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """``Sample.instances`` and ``Sample.classes`` for class codes without objects."""
    instances = unknown_instances(codes)
    classes = [0]
    for mask in whole_vehicles(codes == 3):
        classes.append(3)
        instances[mask] = len(classes) - 1
    for mask in upright_people((codes == 4) | (codes == PEDESTRIAN_OR_CYCLIST)):
        classes.append(4)
        instances[mask] = len(classes) - 1
    for mask in single_cyclists(codes == 5):
        classes.append(5)
        instances[mask] = len(classes) - 1
    return instances, np.array(classes, np.uint8)


def whole_vehicles(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """Components that fill their box as one vehicle does: 0.7 to 2.2 times as wide as high, 70 % filled."""
    return _components(mask, (0.7, 2.2), 0.7)


def upright_people(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """Components shaped like one walking person: 0.2 to 0.5 times as wide as high, 45 % filled."""
    return _components(mask, (0.2, 0.5), 0.45)


def single_cyclists(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """Components shaped like one rider with bicycle: 0.25 to 0.9 times as wide as high, 40 % filled."""
    return _components(mask, (0.25, 0.9), 0.4)


def _components(mask: NDArray[np.bool_], aspect: tuple[float, float], filled: float) -> Iterator[NDArray[np.bool_]]:
    count, number, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    for index in range(1, count):
        _, _, width, height, area = (int(v) for v in stats[index])
        shaped = aspect[0] <= width / height <= aspect[1] and area >= filled * width * height
        if area >= MIN_AREA and shaped:
            yield number == index
