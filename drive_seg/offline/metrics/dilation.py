"""Growing sets of pixels by a disk, all classes at once: one bit of a pixel is one set."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Bits = TypeVar("Bits", np.uint8, np.uint16, np.uint32, np.uint64)


def dilate(planes: NDArray[Bits], radius: int) -> NDArray[Bits]:
    """Set every bit that is set within ``radius`` pixels (Euclidean, inclusive): (H, W) of any unsigned type.

    The rows of a disk are spans; spans of growing width are joined, and moved up and down as far as the disk has
    rows of that width. ``4 * radius`` joins of whole images do all bits.
    """
    height, width = planes.shape
    # With a margin between the rows the image is one long row: what moves across its edge lands in the margin.
    pitch = width + radius
    wide = np.zeros((height, pitch), planes.dtype)
    wide[:, :width] = planes
    flat = wide.reshape(-1)
    spans, grown = flat.copy(), flat.copy()
    for half in range(radius + 1):
        if half:
            spans[half:] |= flat[:-half]
            spans[:-half] |= flat[half:]
        if half == radius:
            grown |= spans
        for row in range(1, min(radius + 1, height)):
            if math.isqrt(radius * radius - row * row) == half:
                grown[row * pitch :] |= spans[: -row * pitch]
                grown[: -row * pitch] |= spans[row * pitch :]
    return np.ascontiguousarray(grown.reshape(height, pitch)[:, :width])
