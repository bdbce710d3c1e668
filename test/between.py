"""The class of one camera pixel, loop by loop: what ``drive_seg.outlines`` does to whole maps."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from drive_seg.letterbox import Geometry

STUFF = np.arange(256) < 3


def lead(confidence: int) -> int:
    p = min(max(confidence / 255, 0.001), 0.999)
    return min(max(round(16 * math.log(p / (1 - p))), 1), 96)


def share(begin: int, content: int, native: int, stride: int, cell: int, pixel: int) -> int:
    """Sixteenths of a cell from its middle to that of a pixel."""
    middle = (begin + Fraction((2 * pixel + 1) * content, 2 * native)) / stride
    return min(max(round(16 * (middle - cell - Fraction(1, 2))), -8), 8)


def class_between(
    classes: NDArray[np.uint8], confidence: NDArray[np.uint8], geometry: Geometry, stride: int, y: int, x: int
) -> int:
    """In whole numbers: a pixel is so many sixteenths of a cell below and to the right of its cell's middle."""
    (width, height), rows, columns = geometry.native, *(axis.cells // stride for axis in geometry.axes()[::-1])
    row, column = int(rows[y]), int(columns[x])
    own = int(classes[row, column])
    inside = rows[0] < row < rows[-1] and columns[0] < column < columns[-1]
    if not (inside and STUFF[own] and width * stride > geometry.content_width):
        return own
    sides = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    others = [(lead(confidence[side]), int(classes[side])) for side in sides if classes[side] != own]
    if not others or not STUFF[max(others)[1]]:
        return own
    other = max(others)[1]
    down = share(geometry.y0, geometry.content_height, height, stride, row, y)
    across = share(geometry.x0, geometry.content_width, width, stride, column, x)
    total = 0
    for dy, tall in ((0, 16 - abs(down)), (1 if down > 0 else -1, abs(down))):
        for dx, wide in ((0, 16 - abs(across)), (1 if across > 0 else -1, abs(across))):
            there = row + dy, column + dx
            sign = 1 if classes[there] == other else -1 if classes[there] == own else 0
            total += tall * wide * sign * lead(confidence[there])
    return other if total > 0 else own
