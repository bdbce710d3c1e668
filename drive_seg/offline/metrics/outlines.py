"""Class outlines and lane markings, right where they lie within a few pixels of the truth's.

An outline pixel of a class is one of its pixels with a neighbour (left, right, above, below) of another class; truth
without a label is none. Near pixels without truth nobody knows where an outline runs: outline and marking pixels within
the tolerance of them, in truth and prediction, are not counted. Those further away may be right because of one that is
not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.labels import UNLABELLED
from drive_seg.offline.metrics.dilation import dilate
from drive_seg.offline.metrics.overlaps import Runs
from drive_seg.places import places

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

    def add(
        self,
        truth: NDArray[np.uint8],
        prediction: NDArray[np.uint8],
        rows: slice = slice(None),
        unlabelled: bool = True,
    ) -> None:
        """Count one frame of scored class ids, uint8 (H, W), 255 without label.

        Args:
            rows: those to look at, where ``busy_rows`` knows that the others have nothing.
            unlabelled: some pixel of the truth may have no label.
        """
        truth, prediction = truth[rows], prediction[rows]
        known = _far_from(truth == UNLABELLED, self.tolerance) if unlabelled else None
        sides = _Side.of(truth, self.lane, unlabelled), _Side.of(prediction, self.lane)
        true, predicted = sides if known is None else (side.where(known) for side in sides)
        for first in range(0, self.classes + 1, _BITS):
            block = range(first, min(first + _BITS, self.classes + 1))
            planes = [side.planes(block, self.classes) for side in sides]
            near_truth, near_prediction = (dilate(plane, self.tolerance) for plane in planes)
            near_truth &= planes[1]
            near_prediction &= planes[0]
            self._count(predicted, near_truth, block, 0)
            self._count(true, near_prediction, block, 2)

    def _count(self, side: _Side, right: NDArray[np.uint8], block: range, column: int) -> None:
        """Add a side's pixels, and those of them whose bits are still set in ``right``."""
        marked = right.dtype.type(0)
        if side.marking is not None and block[-1] == self.classes:
            marked = right.dtype.type(1 << (self.classes - block[0]))
            # OpenCV would be quicker, but loses bits beyond the 31st, and takes an image of one pixel for a number.
            found = (right & marked) != 0
            found &= side.marking
            self.pixels[-1, column] += np.count_nonzero(found)
            self.pixels[-1, column + 1] += np.count_nonzero(side.marking)
        at, classes = side.within(block)
        hit = (right.reshape(-1)[at] & ~marked) != 0
        # Missed ones count as the classes behind the last: one pass for both.
        kinds = np.where(hit, classes, classes + np.uint16(self.classes))
        hits, misses = np.bincount(kinds, minlength=2 * self.classes).reshape(2, -1)
        self.pixels[: self.classes, column] += hits
        self.pixels[: self.classes, column + 1] += hits + misses

    def __iadd__(self, other: OutlineCounts) -> OutlineCounts:
        self.pixels += other.pixels
        return self


def busy_rows(runs: Runs, truth: NDArray[np.uint8], prediction: NDArray[np.uint8], lane: int | None) -> slice:
    """The rows with all outlines and markings of two maps, and where there are such one row around them.

    Args:
        truth, prediction: uint8 (R,) scored class of each run.
    """
    starts = np.cumsum(runs.lengths) - runs.lengths
    changed = (truth[1:] != truth[:-1]) | (prediction[1:] != prediction[:-1])
    edges = starts[1:][changed]
    if lane is not None:
        marked = (truth == lane) | (prediction == lane)
        edges = np.concatenate((edges, starts[marked], (starts + runs.lengths)[marked] - 1))
    if not edges.size:
        return slice(0, 1)
    height, width = runs.shape
    return slice(max(0, int(edges.min()) // width - 1), min(height, int(edges.max()) // width + 2))


@dataclass(frozen=True)
class _Side:
    """The outlines of one map: their places in it, flat and ascending, and classes; and its markings, bool (H, W)."""

    shape: tuple[int, int]
    at: NDArray[np.int64]
    classes: NDArray[np.uint8]
    marking: NDArray[np.bool_] | None

    @classmethod
    def of(cls, classes: NDArray[np.uint8], lane: int | None, voids: bool = False) -> _Side:
        """Of uint8 (H, W) class ids. ``voids``: some may be unlabelled, and beside those a class has no outline."""
        if not voids:
            edges = cv2.morphologyEx(classes, cv2.MORPH_GRADIENT, _CROSS)
        else:  # as unlabelled is the highest id, only the highest neighbour must be looked for without it
            _, labelled = cv2.threshold(classes, UNLABELLED - 1, 0, cv2.THRESH_TOZERO_INV)
            edges = cv2.subtract(cv2.dilate(labelled, _CROSS), cv2.erode(classes, _CROSS))
        at = places(np.asarray(edges, np.uint8))
        own = classes.reshape(-1)[at]
        chosen = np.flatnonzero(own != UNLABELLED)  # and then by index: a third of the time of a mask
        height, width = classes.shape
        return cls((height, width), at[chosen], own[chosen], None if lane is None else classes == lane)

    def where(self, known: NDArray[np.bool_]) -> _Side:
        """What of it lies on ``known``, bool (H, W)."""
        chosen = np.flatnonzero(known.reshape(-1)[self.at])
        marking = None if self.marking is None else self.marking & known
        return _Side(self.shape, self.at[chosen], self.classes[chosen], marking)

    def within(self, block: range) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Places and classes of the outlines of some classes."""
        if block.start == 0 and block.stop > int(self.classes.max(initial=0)):
            return self.at, self.classes
        chosen = (self.classes >= block.start) & (self.classes < block.stop)
        return self.at[chosen], self.classes[chosen]

    def planes(self, block: range, lane_bit: int) -> NDArray[np.uint8]:
        """(H, W): bit k is the outline of class ``block[k]``; the class ``lane_bit`` stands for the markings."""
        kind = np.dtype(next(f"u{size}" for size in (1, 2, 4, 8) if len(block) <= 8 * size))
        at, classes = self.within(block)
        bits = np.left_shift(kind.type(1), (classes - block.start).astype(kind))
        if self.marking is None or block[-1] != lane_bit:
            planes: NDArray[np.uint8] = np.zeros(self.shape, kind)
            planes.reshape(-1)[at] = bits
            return planes
        planes = np.multiply(self.marking, kind.type(1 << (lane_bit - block.start)))
        planes.reshape(-1)[at] |= bits
        return planes


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
