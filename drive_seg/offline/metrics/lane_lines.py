"""Lane boundaries found, missed and made up, counted as TuSimple's benchmark does.

Source: the lane detection challenge of the TuSimple benchmark, its description and ``evaluate/lane.py``. A boundary is
looked at in fixed rows, every 10th of 720. A point of the truth is right where the prediction is nearer than the
tolerance, 20 pixels across the boundary: ``20 / cos(angle)`` along the row, with the angle of the straight line through
the true points. A true boundary is found where at least 85 % of its points are right. What differs from the script: a
prediction finds at most one boundary (the pairs with the most right points first). A row counts where the truth has a
point, as the description says; in the script also rows in which neither has one, as right. All true boundaries count;
the script leaves out the worst of more than four. Every frame counts; in the script one with more than two predictions
beyond the true ones, or that took over 200 ms, finds nothing. Counts are added up over frames; the script averages the
ratios of frames. Boundaries of one row have no angle and are not counted; the script takes them for upright.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from drive_seg.frame import Lane

LINE_TOLERANCE = 20
"""Pixels of the camera image across a boundary."""
ROWS = 72
"""Rows of an image in which boundaries are compared: every 10th at TuSimple's 1280x720."""
_RIGHT_OF_100 = 85
_FEWEST = 2
"""A true boundary with points in fewer rows has no angle and is not counted."""

FloatArray: TypeAlias = "NDArray[np.floating[Any]]"


@dataclass(frozen=True)
class LineScore:
    """Boundaries of one frame or of many: counts add up.

    Attributes:
        frames: how many were compared.
        found: true boundaries that a prediction matched.
        predicted, true: how many there were.
        right, points: true points within the tolerance of the prediction closest to their boundary, and all of them.
    """

    frames: int = 0
    found: int = 0
    predicted: int = 0
    true: int = 0
    right: int = 0
    points: int = 0

    def __add__(self, other: LineScore) -> LineScore:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return LineScore(*(mine + theirs for mine, theirs in pairs))

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 0..1; NaN where nothing was there and nothing predicted."""
        both = self.predicted + self.true
        return 2 * self.found / both if both else math.nan

    def to_dict(self) -> dict[str, Any] | None:
        """``lane.lines`` of ``metrics.json``; None where no frame was compared."""
        if not self.frames:
            return None
        return {
            "f1": None if math.isnan(self.f1) else self.f1,
            "precision": self.found / self.predicted if self.predicted else None,
            "recall": self.found / self.true if self.true else None,
            "accuracy": self.right / self.points if self.points else None,
            "tolerance_px": LINE_TOLERANCE,
            **vars(self),
        }


def compare_lines(truth: Sequence[Lane], prediction: Sequence[Lane], height: int) -> LineScore:
    """Score one frame.

    Args:
        height: rows of the camera image.
    """
    rows = np.arange(ROWS) * (height / ROWS)
    true = [at for lane in truth if np.count_nonzero(~np.isnan(at := columns_at(lane.points, rows))) >= _FEWEST]
    predicted = [columns_at(lane.points, rows) for lane in prediction]
    points = [int(np.count_nonzero(~np.isnan(line))) for line in true]
    right = np.zeros((len(true), len(predicted)), np.int64)
    for number, line in enumerate(true):
        allowed = LINE_TOLERANCE * _stretch(line, rows)
        for other, guess in enumerate(predicted):
            right[number, other] = np.count_nonzero(np.abs(line - guess) < allowed)
    best = int(right.max(axis=1, initial=0).sum())
    found = 0
    for flat in np.argsort(-right, axis=None, kind="stable"):
        number, other = divmod(int(flat), len(predicted))
        if right[number, other] * 100 >= _RIGHT_OF_100 * points[number]:
            found += 1
            right[number], right[:, other] = 0, 0
    return LineScore(1, found, len(predicted), len(true), best, sum(points))


def columns_at(points: NDArray[np.float32], rows: FloatArray) -> FloatArray:
    """float64 (R,) column of a boundary's points (N, 2) in each row, NaN where it does not reach."""
    far_to_near = points[::-1].astype(np.float64)
    return np.interp(rows, far_to_near[:, 1], far_to_near[:, 0], left=math.nan, right=math.nan)


def _stretch(line: FloatArray, rows: FloatArray) -> float:
    """1 / cos of the angle between a boundary and the columns of the image."""
    there = ~np.isnan(line)
    y, x = rows[there], line[there]
    y = y - y.mean()
    return math.hypot(1.0, float(y @ x) / float(y @ y))
