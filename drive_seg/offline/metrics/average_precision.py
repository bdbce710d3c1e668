"""Average precision of instance masks, as COCO defines it: mean over IoU .50:.05:.95, 101 points of recall.

Two things differ, so that the figure neither depends on the order of frames nor on keeping every instance: scores are
rounded to 1/1000, and instances of one score count together. There is no limit to the instances of an image.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drive_seg.offline.metrics.overlaps import Overlaps

THRESHOLDS = 10
_STEPS = 1000
_NONE = np.zeros((0, THRESHOLDS, _STEPS + 1), np.int64)
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass
class PrecisionCounts:
    """Instances by score.

    Attributes:
        hits: int64 (C, THRESHOLDS, 1001), by class, IoU threshold and score * 1000; empty before the first frame.
        misses: the same, of those that found nothing.
        truths: int64 (C,) instances there are.
        seen: instances of truth and prediction.
    """

    classes: int
    hits: NDArray[np.int64] = field(init=False)
    misses: NDArray[np.int64] = field(init=False)
    truths: NDArray[np.int64] = field(init=False)
    seen: int = 0

    def __post_init__(self) -> None:
        self.hits, self.misses = _NONE, _NONE
        self.truths = np.zeros(self.classes, np.int64)

    def add(
        self,
        found: Overlaps,
        scores: Mapping[int, float],
        scored: NDArray[np.bool_],
        crowds: Collection[int] = (),
    ) -> None:
        """Count one frame.

        An instance that matches nothing at a threshold is left out there if at least as great a share of it lies on
        unlabelled truth or on crowds of its class.

        Args:
            scores: 0..1 by panoptic id of the prediction; 1 where there is none.
            scored: bool (C,): classes whose instances are told apart in truth and prediction.
            crowds: panoptic ids of the truth that stand for several objects.
        """
        self._open()
        truths, predictions = found.truths, found.predictions
        crowd, _, excused = found.matches(crowds)
        countable = scored[truths.classes] & ~crowd
        self.truths += np.bincount(truths.classes[countable], minlength=self.classes)
        answers = np.flatnonzero(scored[predictions.classes])
        self.seen += int(countable.sum()) + answers.size
        steps = _steps(predictions.ids, scores)
        levels = _levels(found, countable, steps)
        judged = np.maximum(levels, _reached(excused, predictions.areas))
        for row in answers:
            cell = (
                self.hits[predictions.classes[row], :, steps[row]],
                self.misses[predictions.classes[row], :, steps[row]],
            )
            cell[0][: levels[row]] += 1
            cell[1][judged[row] :] += 1

    def __iadd__(self, other: PrecisionCounts) -> PrecisionCounts:
        if other.seen:
            self._open()
            self.hits += other.hits
            self.misses += other.misses
            self.truths += other.truths
            self.seen += other.seen
        return self

    def _open(self) -> None:
        """Make the tables: they are large, and most often not needed."""
        if not self.hits.size:
            self.hits, self.misses = (np.zeros((self.classes, THRESHOLDS, _STEPS + 1), np.int64) for _ in range(2))

    def average(self, number: int) -> NDArray[np.float64]:
        """float64 (THRESHOLDS,): AP of a class at IoU .50, .55 .. .95; NaN where the truth has none of it."""
        truths = int(self.truths[number])
        if not truths:
            return np.full(THRESHOLDS, np.nan)
        hits = self.hits[number, :, ::-1].cumsum(axis=1)
        answers = hits + self.misses[number, :, ::-1].cumsum(axis=1)
        precision = hits / np.maximum(answers, 1)
        # The best precision at this recall or a higher one.
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        result = np.zeros(THRESHOLDS)
        for level in range(THRESHOLDS):
            at = np.searchsorted(hits[level] / truths, _RECALLS, side="left")
            reached = at < envelope.shape[1]
            result[level] = envelope[level][at[reached]].sum() / _RECALLS.size
        return result


def _steps(ids: NDArray[np.int64], scores: Mapping[int, float]) -> NDArray[np.int64]:
    values = (scores.get(number, 1.0) for number in ids.tolist())
    return np.array([min(max(round(value * _STEPS), 0), _STEPS) for value in values], np.int64)


def _levels(found: Overlaps, countable: NDArray[np.bool_], steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 (S,): how many of the thresholds each predicted segment reaches with its true one."""
    candidate = found.same_class & (2 * found.areas >= found.unions)
    candidate[candidate] = countable[found.truth[candidate]]
    levels = np.zeros(found.predictions.codes.size, np.int64)
    taken: set[int] = set()
    pairs = np.flatnonzero(candidate)
    # Only at an IoU of exactly one half can a segment have two partners: the higher score chooses first.
    pairs = pairs[np.argsort(-steps[found.prediction[pairs]], kind="stable")]
    reached = _reached(found.areas[pairs], found.unions[pairs])
    rows = zip(found.truth[pairs].tolist(), found.prediction[pairs].tolist(), reached.tolist(), strict=True)
    for truth, row, level in rows:
        if truth not in taken and not levels[row]:
            taken.add(truth)
            levels[row] = level
    return levels


def _reached(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64: how many of the thresholds .50, .55 .. .95 each ``part / whole`` reaches."""
    found: NDArray[np.int64] = np.clip(20 * part // whole - THRESHOLDS + 1, 0, THRESHOLDS)
    return found
