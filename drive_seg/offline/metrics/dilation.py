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
    spans, grown = planes.copy(), planes.copy()
    for half in range(radius + 1):
        if 0 < half < width:
            spans[:, half:] |= planes[:, :-half]
            spans[:, :-half] |= planes[:, half:]
        if half == radius:
            grown |= spans
        for row in range(1, radius + 1):
            if math.isqrt(radius * radius - row * row) == half and row < height:
                grown[row:] |= spans[:-row]
                grown[:-row] |= spans[row:]
    return grown
