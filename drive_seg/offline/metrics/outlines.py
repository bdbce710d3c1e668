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
        known = _far_from(truth == UNLABELLED, self.tolerance)
        sides = _Side.of(truth, known, self.lane), _Side.of(prediction, known, self.lane)
        rows = _rows_with(sides)
        sides = sides[0].crop(rows), sides[1].crop(rows)
        for first in range(0, self.classes + 1, _BITS):
            block = range(first, min(first + _BITS, self.classes + 1))
            near_truth, near_prediction = (dilate(side.planes(block, self.classes), self.tolerance) for side in sides)
            self._count(sides[1], near_truth, block, 0)
            self._count(sides[0], near_prediction, block, 2)

    def _count(self, side: _Side, near: NDArray[np.uint8], block: range, column: int) -> None:
        at, classes = side.within(block)
        bits = near.reshape(-1)[at] >> (classes - block[0]).astype(near.dtype)
        right = classes[(bits & near.dtype.type(1)) != 0]
        self.pixels[: self.classes, column] += np.bincount(right, minlength=self.classes)
        self.pixels[: self.classes, column + 1] += np.bincount(classes, minlength=self.classes)
        if side.marking is not None and block[-1] == self.classes:
            close = (near & near.dtype.type(1 << (self.classes - block[0]))) != 0
            close &= side.marking
            self.pixels[-1, column] += np.count_nonzero(close)
            self.pixels[-1, column + 1] += np.count_nonzero(side.marking)

    def __iadd__(self, other: OutlineCounts) -> OutlineCounts:
        self.pixels += other.pixels
        return self


@dataclass(frozen=True)
class _Side:
    """The outlines of one map: their places in it, flat and ascending, and classes; and its markings, bool (H, W)."""

    shape: tuple[int, int]
    at: NDArray[np.int64]
    classes: NDArray[np.int64]
    marking: NDArray[np.bool_] | None

    @classmethod
    def of(cls, classes: NDArray[np.uint8], known: NDArray[np.bool_] | None, lane: int | None) -> _Side:
        at = np.flatnonzero(cv2.morphologyEx(classes, cv2.MORPH_GRADIENT, _CROSS) != 0)
        own = classes.reshape(-1)[at]
        counted = own != UNLABELLED
        marking = None if lane is None else classes == lane
        if known is not None:
            counted &= known.reshape(-1)[at]
            if marking is not None:
                marking &= known
        height, width = classes.shape
        return cls((height, width), at[counted], own[counted].astype(np.int64), marking)

    def crop(self, rows: slice) -> _Side:
        """Only these rows, which hold all outlines and markings."""
        height, width = rows.stop - rows.start, self.shape[1]
        marking = None if self.marking is None else self.marking[rows]
        return _Side((height, width), self.at - rows.start * width, self.classes, marking)

    def within(self, block: range) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places and classes of the outlines of some classes."""
        chosen = (self.classes >= block.start) & (self.classes < block.stop)
        return (self.at, self.classes) if chosen.all() else (self.at[chosen], self.classes[chosen])

    def planes(self, block: range, lane_bit: int) -> NDArray[np.uint8]:
        """(H, W): bit k is the outline of class ``block[k]``; the class ``lane_bit`` stands for the markings."""
        kind = np.dtype(next(f"u{size}" for size in (1, 2, 4, 8) if len(block) <= 8 * size))
        planes: NDArray[np.uint8] = np.zeros(self.shape, kind)
        if self.marking is not None and block[-1] == lane_bit:
            np.multiply(self.marking, kind.type(1 << (lane_bit - block[0])), out=planes)
        at, classes = self.within(block)
        planes.reshape(-1)[at] |= np.left_shift(kind.type(1), (classes - block[0]).astype(kind))
        return planes


def _rows_with(sides: tuple[_Side, _Side]) -> slice:
    """The rows from the first to the last outline or marking of either side."""
    width = sides[0].shape[1]
    first, last = [], []
    for side in sides:
        if side.at.size:
            first.append(int(side.at[0]) // width)
            last.append(int(side.at[-1]) // width)
        if side.marking is not None:
            rows = np.flatnonzero(side.marking.any(axis=1))
            if rows.size:
                first.append(int(rows[0]))
                last.append(int(rows[-1]))
    return slice(min(first), max(last) + 1) if first else slice(0, 1)


def _far_from(unsure: NDArray[np.bool_], distance: int) -> NDArray[np.bool_] | None:
    """bool (H, W): pixels further than ``distance`` from the unsure ones; None where all are."""
    rows, columns = (np.flatnonzero(unsure.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    top, left = max(0, int(rows[0]) - distance), max(0, int(columns[0]) - distance)
    box = np.s_[top : int(rows[-1]) + 1 + distance, left : int(columns[-1]) + 1 + distance]
    far = np.ones(unsure.shape, np.bool_)
    far[box] = dilate(unsure[box].view(np.uint8), distance) == 0
    return far
