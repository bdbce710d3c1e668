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

MIN_AREA = 200
"""Pixels of the source image; smaller components say little about shape."""


def unknown_instances(codes: NDArray[np.uint8], things: tuple[int, ...]) -> NDArray[np.uint16]:
    """uint16 (H, W): 65535 on every pixel whose code is in ``things``, 0 elsewhere."""
    return np.where(np.isin(codes, things), 65535, 0).astype(np.uint16)


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
