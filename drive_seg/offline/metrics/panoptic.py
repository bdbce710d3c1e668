"""Panoptic quality (Kirillov et al., Panoptic Segmentation, CVPR 2019), void and crowds as in panopticapi."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drive_seg.offline.metrics.overlaps import Overlaps

IOU_BITS = 52
"""IoUs are summed as whole multiples of 2**-52, the step of a double between 0.5 and 1: such sums do not depend on
their order, which sums of floats do."""


@dataclass
class MatchCounts:
    """Matches per class. A pair is a match where its IoU is above one half, which makes it the only one of both.

    Attributes:
        tp, fp, fn: int64 (C,) matched, wrongly predicted and missed segments.
        iou_units: by class, the sum of the IoUs of the matches in units of 2**-IOU_BITS.
    """

    classes: int
    tp: NDArray[np.int64] = field(init=False)
    fp: NDArray[np.int64] = field(init=False)
    fn: NDArray[np.int64] = field(init=False)
    iou_units: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.tp, self.fp, self.fn = (np.zeros(self.classes, np.int64) for _ in range(3))
        self.iou_units = [0] * self.classes

    def add(self, found: Overlaps, crowds: Collection[int] = ()) -> None:
        """Count one frame.

        Predicted segments with more than half of their pixels on unlabelled truth, or on crowds of their class,
        are not counted unless they match. Unlabelled pixels of the truth are left out of unions.

        Args:
            crowds: panoptic ids of the truth that stand for several objects: neither matched nor missed.
        """
        truths, predictions = found.truths, found.predictions
        crowd, match, excused = found.matches(crowds)
        classes = truths.classes[found.truth[match]]
        self.tp += np.bincount(classes, minlength=self.classes)
        for number, both, either in zip(
            classes.tolist(), found.areas[match].tolist(), found.unions[match].tolist(), strict=True
        ):
            self.iou_units[number] += ((both << IOU_BITS + 1) // either + 1) >> 1
        missed = ~crowd
        missed[found.truth[match]] = False
        self.fn += np.bincount(truths.classes[missed], minlength=self.classes)
        wrong = 2 * excused <= predictions.areas
        wrong[found.prediction[match]] = False
        self.fp += np.bincount(predictions.classes[wrong], minlength=self.classes)

    def __iadd__(self, other: MatchCounts) -> MatchCounts:
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn
        self.iou_units = [mine + theirs for mine, theirs in zip(self.iou_units, other.iou_units, strict=True)]
        return self

    def keep(self, scored: NDArray[np.bool_]) -> None:
        """Forget the other classes: their segments cannot be told apart. ``scored``: bool (C,)."""
        for counts in (self.tp, self.fp, self.fn):
            counts[~scored] = 0
        self.iou_units = [units if kept else 0 for units, kept in zip(self.iou_units, scored, strict=True)]

    def iou_sum(self, number: int) -> float:
        """Sum of the IoUs of a class's matches."""
        return math.ldexp(self.iou_units[number], -IOU_BITS)

    def qualities(self, number: int) -> tuple[float, float, float]:
        """(PQ, SQ, RQ) of a class, 0..1; NaN where there was nothing to find and nothing found."""
        tp = int(self.tp[number])
        weight = tp + (int(self.fp[number]) + int(self.fn[number])) / 2
        if not weight:
            return math.nan, math.nan, math.nan
        total = self.iou_sum(number)
        return total / weight, total / tp if tp else 0.0, tp / weight

    def mean(self, members: Collection[int]) -> tuple[float, float, float, int]:
        """Means of (PQ, SQ, RQ) over those of some classes that occur, and how many these are; NaN for none."""
        rows = [self.qualities(number) for number in members]
        rows = [row for row in rows if not math.isnan(row[0])]
        if not rows:
            return math.nan, math.nan, math.nan, 0
        pq, sq, rq = (math.fsum(column) / len(rows) for column in zip(*rows, strict=True))
        return pq, sq, rq, len(rows)
