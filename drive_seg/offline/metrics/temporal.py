"""Stability: labels that change from frame to frame where nothing did.

A pixel is still where its brightness differs by at most ``STILL`` levels from the previous frame's, and its true class
is the same in both. Where the images are not at hand the truth alone decides. A camera that moves leaves still what
looks the same afterwards (sky, the road ahead): just where a flickering label shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.labels import UNLABELLED

STILL = 6
"""Levels of 0..255: above the noise of a camera, below the step of most edges."""


@dataclass
class TemporalCounts:
    """``changed`` of ``static`` pixels over ``pairs`` of consecutive frames."""

    changed: int = 0
    static: int = 0
    pairs: int = 0

    def __iadd__(self, other: TemporalCounts) -> TemporalCounts:
        self.changed += other.changed
        self.static += other.static
        self.pairs += other.pairs
        return self


@dataclass(frozen=True)
class Moment:
    """A frame as the next one sees it.

    Attributes:
        truth, prediction: uint8 (H, W) classes.
        grey: uint8 (H, W) the image, None where it is not at hand.
        unlabelled: some pixel may have no true class.
    """

    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    grey: NDArray[np.uint8] | None
    unlabelled: bool = True


def compare(before: Moment, now: Moment) -> TemporalCounts:
    """Count one pair of frames; nothing where their sizes differ."""
    if before.truth.shape != now.truth.shape:
        return TemporalCounts()
    static = before.truth == now.truth
    scratch = np.empty_like(static)  # one for all, which stays in the cache
    if now.unlabelled:
        static &= np.not_equal(now.truth, UNLABELLED, out=scratch)
    if before.grey is not None and now.grey is not None:
        moved = cv2.absdiff(before.grey, now.grey, scratch.view(np.uint8))
        static &= np.less_equal(moved, STILL, out=scratch)
    changed = np.not_equal(before.prediction, now.prediction, out=scratch)
    changed &= static
    return TemporalCounts(int(np.count_nonzero(changed)), int(np.count_nonzero(static)), 1)
