"""One pass over the pixels: how many each pair of a true and a predicted segment shares.

Panoptic quality, the confusion matrix and average precision are all sums over this short table.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from drive_seg.labels import UNLABELLED
from drive_seg.places import places

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

    def crowds(self, values: Collection[int]) -> NDArray[np.bool_]:
        """bool (S,): which segments are crowds; stuff never is.

        Args:
            values: of the crowds in the map; frames seldom have any.
        """
        if not values:
            return np.zeros(self.codes.shape, np.bool_)
        return (self.ids > 0) & np.isin(self.ids, np.fromiter(values, np.int64))


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

    def matches(self, crowds: Collection[int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
        """True segments that are crowds; pairs that match: of one class, no crowd, an IoU above one half; and pixels of
        every predicted segment that excuse it: on unlabelled truth, or on crowds of its class."""
        crowd, on_crowd = self.truths.crowds(crowds), self.same_class.copy()
        on_crowd[on_crowd] = crowd[self.truth[on_crowd]]
        match = self.same_class & ~on_crowd & (2 * self.areas > self.unions)
        return crowd, match, self.on_void + self.prediction_sum(on_crowd)


@dataclass(frozen=True)
class Runs:
    """Two maps as runs of pixels, row after row, along which neither changes: a hundredth of the pixels.

    Attributes:
        shape: (H, W) of the maps.
        truth, prediction: (R,) values of the maps, in their types.
        lengths: int64 (R,) pixels.
    """

    shape: tuple[int, int]
    truth: NDArray[np.uint16] | NDArray[np.uint8]
    prediction: NDArray[np.uint16] | NDArray[np.uint8]
    lengths: NDArray[np.int64]

    @classmethod
    def of(
        cls, truth: NDArray[np.uint16] | NDArray[np.uint8], prediction: NDArray[np.uint16] | NDArray[np.uint8]
    ) -> Runs:
        """The runs of two maps (H, W), ids of segments or of classes.

        Raises:
            ValueError: the shapes differ, or there is no pixel.
        """
        if truth.shape != prediction.shape or truth.ndim != 2 or not truth.size:
            raise ValueError(f"truth and prediction must be (H, W) of one shape, got {truth.shape}, {prediction.shape}")
        true, predicted = truth.reshape(-1), prediction.reshape(-1)
        first = np.empty(true.size, np.bool_)
        first[0] = True
        np.not_equal(true[1:], true[:-1], out=first[1:])
        first[1:] |= predicted[1:] != predicted[:-1]
        starts = places(first)
        return cls(truth.shape, true[starts], predicted[starts], np.diff(starts, append=true.size))

    def paint(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 (H, W): a value per run, (R,), as a map."""
        return np.repeat(values, self.lengths).reshape(self.shape)


def overlaps(runs: Runs, things: NDArray[np.bool_], truth: ClassTable, prediction: ClassTable) -> Overlaps:
    """Count the pixels that every pair of segments shares.

    Args:
        things: bool (256,): which scored classes are things, whose segments stay apart.
        truth, prediction: from the ids of each map to scored classes.
    """
    pairs, areas = _count_pairs(runs)
    true = _segments(pairs >> 16, truth, things)
    predicted = _segments(pairs & 0xFFFF, prediction, things)
    true_codes, true_rows = np.unique(true, return_inverse=True)
    predicted_codes, predicted_rows = np.unique(predicted, return_inverse=True)
    # Several ids may have become one segment: stuff, and classes scored jointly.
    key = true_rows.reshape(-1) * predicted_codes.size + predicted_rows.reshape(-1)
    joined = _sum(key, areas, true_codes.size * predicted_codes.size)
    shared = np.flatnonzero(joined)
    rows, columns = np.divmod(shared, predicted_codes.size)
    table = joined.reshape(true_codes.size, predicted_codes.size)
    return Overlaps(
        _side(true_codes, table.sum(axis=1)),
        _side(predicted_codes, table.sum(axis=0)),
        rows - _has_void(true_codes),
        columns - _has_void(predicted_codes),
        joined[shared],
    )


def _count_pairs(runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct ``truth << 16 | prediction`` and their pixels."""
    keys = runs.truth.astype(np.uint64)
    keys <<= np.uint64(16)
    keys |= runs.prediction
    keys <<= np.uint64(32)
    keys |= runs.lengths.astype(np.uint64)
    keys.sort()
    pairs = (keys >> np.uint64(32)).astype(np.int64)
    first = np.concatenate(([0], np.flatnonzero(pairs[1:] != pairs[:-1]) + 1))
    return pairs[first], np.add.reduceat((keys & np.uint64(0xFFFFFFFF)).astype(np.int64), first)


def _segments(ids: NDArray[np.int64], classes: ClassTable, things: NDArray[np.bool_]) -> NDArray[np.int64]:
    scored = classes[ids].astype(np.int64)
    codes = scored << _CLASS_SHIFT
    codes += np.where(things[scored], ids, 0)
    codes[scored == UNLABELLED] = VOID
    return codes


def _has_void(codes: NDArray[np.int64]) -> int:
    """How many rows void takes; it sorts first."""
    return int(codes[0] == VOID)


def _side(codes: NDArray[np.int64], areas: NDArray[np.int64]) -> Side:
    return Side(codes[_has_void(codes) :], areas[_has_void(codes) :])


def _sum(rows: NDArray[np.int64], values: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    total = np.zeros(size, np.int64)
    np.add.at(total, rows, values)
    return total
