"""Pixels by true and predicted class: IoU per class and its mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drive_seg.labels import UNLABELLED
from drive_seg.offline.metrics.overlaps import VOID, Overlaps


@dataclass
class Confusion:
    """int64 (C, C + 1) pixels, a row per true class; unlabelled predictions have the last column: they are missed."""

    classes: int
    pixels: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.pixels = np.zeros((self.classes, self.classes + 1), np.int64)

    def add(self, found: Overlaps) -> None:
        """Count one frame; pixels whose truth is unlabelled are left out."""
        known = found.truth != VOID
        rows = found.truths.classes[found.truth[known]]
        columns = np.full(rows.shape, self.classes)
        labelled = found.prediction[known] != VOID
        columns[labelled] = found.predictions.classes[found.prediction[known][labelled]]
        np.add.at(self.pixels, (rows, columns), found.areas[known])

    def add_masks(self, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
        """Count one frame given as class ids, uint8 (H, W); truth 255 is left out."""
        seen = truth != UNLABELLED
        column = np.minimum(prediction[seen], self.classes).astype(np.int64)
        pairs = truth[seen].astype(np.int64) * (self.classes + 1) + column
        self.pixels += np.bincount(pairs, minlength=self.pixels.size).reshape(self.pixels.shape)

    def __iadd__(self, other: Confusion) -> Confusion:
        self.pixels += other.pixels
        return self

    @property
    def intersections(self) -> NDArray[np.int64]:
        """int64 (C,): pixels of each class that are right."""
        return self.pixels.diagonal().copy()

    @property
    def unions(self) -> NDArray[np.int64]:
        """int64 (C,): pixels of each class in truth or prediction."""
        found: NDArray[np.int64] = self.pixels.sum(axis=1) + self.pixels[:, : self.classes].sum(axis=0)
        return found - self.intersections

    def iou(self, members: Sequence[int]) -> float:
        """Intersection over union of the union of some classes, 0..1; NaN where there is none of them."""
        chosen = list(members)
        both = int(self.pixels[np.ix_(chosen, chosen)].sum())
        either = int(self.pixels[chosen].sum() + self.pixels[:, chosen].sum()) - both
        return both / either if either else float("nan")
