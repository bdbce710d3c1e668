"""The core of a segment: the box that its pixels would fill if they were a rectangle.

The box of a segment reaches to its last stray pixel, and jumps with it from frame to frame. The core has the mean and
the variance of the pixels, which a few of them hardly move; of a filled rectangle it is the box. Both come from whole
sums, so that every engine finds the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.frame import Extent

SUMS = ("twice_x", "square_x", "twice_y", "square_y")
"""What is summed over the native pixels of a segment: 2 x and x^2 of their columns, 2 y and y^2 of their rows."""


def sums_before(starts: NDArray[np.int32]) -> NDArray[np.float64]:
    """float64 (2, N): the sums of 2 x and of x^2 over all whole x from 0 to below each start."""
    end = starts.astype(np.float64)
    return np.stack((end * (end - 1), end * (end - 1) * (2 * end - 1) / 6))


def cores_of(area: NDArray[Any], sums: NDArray[Any]) -> list[Extent]:
    """The core of each segment, in native pixels.

    Args:
        area: float64 (N,) pixels of each, above 0.
        sums: float64 (4, N) their ``SUMS``.
    """
    twice, square = sums[::2], sums[1::2]
    middle = twice / (2 * area)
    variance = np.maximum(square / area - middle * middle, 0)
    size = np.sqrt(12 * variance + 1)  # n pixels in a row have the variance (n^2 - 1) / 12
    first = middle + 0.5 - size / 2
    return [Extent(*row) for row in np.concatenate((first, size)).T.tolist()]
