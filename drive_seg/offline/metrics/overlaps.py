"""One pass over the pixels: how many each pair of a true and a predicted segment shares.

Panoptic quality, the confusion matrix and average precision are all sums over this short table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from drive_seg.labels import UNLABELLED

VOID = -1
"""The segment of pixels without a label."""
_CLASS_SHIFT = 32
"""A segment is ``class << 32 | id in its map`` for a thing and ``class << 32`` for stuff: one per class and frame."""

ClassTable = NDArray[np.uint8]
"""uint8 (N,): value of a map -> scored class, 255 where it is none of them; N is above every value."""


@dataclass(frozen=True)
class Side:
    """The segments of one map but for void.

    Attributes:
        codes: int64 (S,) segments, ascending.
        areas: int64 (S,) pixels of each, those on the other map's void too.
    """

    codes: NDArray[np.int64]
    areas: NDArray[np.int64]

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """int64 (S,) scored class of each segment."""
        return self.codes >> _CLASS_SHIFT

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """int64 (S,) value of each segment in its map; 0 for stuff."""
        return self.codes & ((1 << _CLASS_SHIFT) - 1)


@dataclass(frozen=True)
class Overlaps:
    """Pairs of segments that share pixels.

    Attributes:
        truth, prediction: int64 (K,), row of the segment in ``truths`` and ``predictions``, ``VOID`` without label.
        areas: int64 (K,), shared pixels, above 0.
    """

    truths: Side
    predictions: Side
    truth: NDArray[np.int64]
    prediction: NDArray[np.int64]
    areas: NDArray[np.int64]

    @cached_property
    def on_void(self) -> NDArray[np.int64]:
        """int64 (S,): pixels of every predicted segment where the truth has no label."""
        return self.prediction_sum((self.truth == VOID) & (self.prediction != VOID))

    def prediction_sum(self, pairs: NDArray[np.bool_]) -> NDArray[np.int64]:
        """int64 (S,): shared pixels of the chosen pairs, by predicted segment."""
        return _sum(self.prediction[pairs], self.areas[pairs], self.predictions.codes.size)

    @cached_property
    def unions(self) -> NDArray[np.int64]:
        """int64 (K,): pixels of either segment, those on unlabelled truth left out; of no meaning for void."""
        either = self.truths.areas[self.truth] if self.truths.codes.size else np.zeros_like(self.areas)
        if self.predictions.codes.size:
            either = either + (self.predictions.areas - self.on_void)[self.prediction]
        return either - self.areas

    @cached_property
    def same_class(self) -> NDArray[np.bool_]:
        """bool (K,): both are segments, of one class."""
        known = (self.truth != VOID) & (self.prediction != VOID)
        same = np.zeros(known.shape, np.bool_)
        same[known] = self.truths.classes[self.truth[known]] == self.predictions.classes[self.prediction[known]]
        return same


def overlaps(
    truth: NDArray[np.uint16] | NDArray[np.uint8],
    prediction: NDArray[np.uint16] | NDArray[np.uint8],
    things: NDArray[np.bool_],
    truth_classes: ClassTable,
    prediction_classes: ClassTable,
) -> Overlaps:
    """Count the pixels that every pair of segments shares.

    Args:
        truth, prediction: (H, W) ids of segments or of classes, of one shape.
        things: bool (256,): which scored classes are things, whose segments stay apart.
        truth_classes, prediction_classes: from the ids of each map to scored classes.

    Raises:
        ValueError: the shapes differ.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth and prediction must have one shape, got {truth.shape} and {prediction.shape}")
    pairs, areas = _count_pairs(truth, prediction)
    true = _segments(pairs >> 16, truth_classes, things)
    predicted = _segments(pairs & 0xFFFF, prediction_classes, things)
    true_codes, true_rows = np.unique(true, return_inverse=True)
    predicted_codes, predicted_rows = np.unique(predicted, return_inverse=True)
    # Several ids may have become one segment: stuff, and classes scored jointly.
    key = true_rows.reshape(-1) * predicted_codes.size + predicted_rows.reshape(-1)
    joined = _sum(key, areas, true_codes.size * predicted_codes.size)
    shared = np.flatnonzero(joined)
    rows, columns = np.divmod(shared, max(1, predicted_codes.size))
    table = joined.reshape(true_codes.size, predicted_codes.size)
    return Overlaps(
        _side(true_codes, table.sum(axis=1)),
        _side(predicted_codes, table.sum(axis=0)),
        rows - _has_void(true_codes),
        columns - _has_void(predicted_codes),
        joined[shared],
    )


def _count_pairs(
    truth: NDArray[np.uint16] | NDArray[np.uint8], prediction: NDArray[np.uint16] | NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct ``truth << 16 | prediction`` and their counts. Maps are made of runs: only those are sorted."""
    key = truth.astype(np.uint32).reshape(-1)
    key <<= 16
    key |= prediction.reshape(-1)
    if not key.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    starts = np.concatenate(([0], np.flatnonzero(key[1:] != key[:-1]) + 1))
    runs = key[starts].astype(np.uint64)
    runs <<= np.uint64(32)
    runs |= np.diff(starts, append=key.size).astype(np.uint64)
    runs.sort()
    pairs = (runs >> np.uint64(32)).astype(np.int64)
    first = np.concatenate(([0], np.flatnonzero(pairs[1:] != pairs[:-1]) + 1))
    return pairs[first], np.add.reduceat((runs & np.uint64(0xFFFFFFFF)).astype(np.int64), first)


def _segments(ids: NDArray[np.int64], classes: ClassTable, things: NDArray[np.bool_]) -> NDArray[np.int64]:
    scored = classes[ids].astype(np.int64)
    codes = scored << _CLASS_SHIFT
    codes += np.where(things[scored], ids, 0)
    codes[scored == UNLABELLED] = VOID
    return codes


def _has_void(codes: NDArray[np.int64]) -> int:
    """How many rows void takes; it sorts first."""
    return int(codes.size > 0 and codes[0] == VOID)


def _side(codes: NDArray[np.int64], areas: NDArray[np.int64]) -> Side:
    return Side(codes[_has_void(codes) :], areas[_has_void(codes) :])


def _sum(rows: NDArray[np.int64], values: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    total = np.zeros(size, np.int64)
    np.add.at(total, rows, values)
    return total
