"""Class outlines and lane markings, right where they lie within a few pixels of the truth's.

An outline pixel of a class is one of its pixels with a neighbour (left, right, above, below) of another class. Near
pixels without truth nobody knows where an outline runs: outline and marking pixels within the tolerance of them, in
truth and prediction, are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.labels import UNLABELLED
from drive_seg.offline.metrics.dilation import dilate

_BITS = 64
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclass
class OutlineCounts:
    """int64 (C + 1, 4): ``hit`` of ``predicted`` and ``found`` of ``true`` pixels, a row for the outline of every
    class and the last for the lane markings, which count with all their pixels.

    Args:
        lane: the class of the lane markings, or None.
        tolerance: pixels, Euclidean, inclusive.
    """

    classes: int
    lane: int | None
    tolerance: int
    pixels: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.pixels = np.zeros((self.classes + 1, 4), np.int64)

    def add(self, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
        """Count one frame of scored class ids, uint8 (H, W), 255 without label."""
        unsure = truth == UNLABELLED
        known = ~dilate(unsure.view(np.uint8), self.tolerance).view(np.bool_) if unsure.any() else None
        true_edge, predicted_edge = _edges(truth, known), _edges(prediction, known)
        for first in range(0, self.classes + 1, _BITS):
            block = np.arange(first, min(first + _BITS, self.classes + 1))
            near_truth = dilate(self._planes(truth, true_edge, known, block), self.tolerance)
            near_prediction = dilate(self._planes(prediction, predicted_edge, known, block), self.tolerance)
            self._count(prediction, predicted_edge, known, near_truth, block, 0)
            self._count(truth, true_edge, known, near_prediction, block, 2)

    def _planes(
        self,
        classes: NDArray[np.uint8],
        edge: NDArray[np.bool_],
        known: NDArray[np.bool_] | None,
        block: NDArray[np.int64],
    ) -> NDArray[np.uint8]:
        kind = np.dtype(next(f"u{size}" for size in (1, 2, 4, 8) if block.size <= 8 * size))
        bits = np.zeros(256, kind)
        own = block[block < self.classes]
        bits[own] = np.left_shift(np.ones(own.size, kind), (own - block[0]).astype(kind))
        planes: NDArray[np.uint8] = bits[classes] if kind.itemsize > 1 else np.asarray(cv2.LUT(classes, bits))
        planes *= edge
        if self.lane is not None and block[-1] == self.classes:
            marking = classes == self.lane if known is None else (classes == self.lane) & known
            planes |= np.left_shift(marking.astype(kind), kind.type(self.classes - block[0]))
        return planes

    def _count(
        self,
        classes: NDArray[np.uint8],
        edge: NDArray[np.bool_],
        known: NDArray[np.bool_] | None,
        near: NDArray[np.uint8],
        block: NDArray[np.int64],
        column: int,
    ) -> None:
        at = np.flatnonzero(edge)
        found = classes.reshape(-1)[at]
        inside = (found >= block[0]) & (found <= block[-1])
        at, found = at[inside], found[inside].astype(np.int64)
        right = (near.reshape(-1)[at] >> (found - block[0]).astype(near.dtype)) & near.dtype.type(1)
        self.pixels[: self.classes, column] += np.bincount(found[right != 0], minlength=self.classes)
        self.pixels[: self.classes, column + 1] += np.bincount(found, minlength=self.classes)
        if self.lane is not None and block[-1] == self.classes:
            marking = classes == self.lane if known is None else (classes == self.lane) & known
            close = near >> near.dtype.type(self.classes - block[0])
            self.pixels[-1, column] += np.count_nonzero(close[marking] & near.dtype.type(1))
            self.pixels[-1, column + 1] += np.count_nonzero(marking)

    def __iadd__(self, other: OutlineCounts) -> OutlineCounts:
        self.pixels += other.pixels
        return self


def _edges(classes: NDArray[np.uint8], known: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    edge: NDArray[np.bool_] = cv2.morphologyEx(classes, cv2.MORPH_GRADIENT, _CROSS) != 0
    edge &= classes != UNLABELLED
    return edge if known is None else edge & known
