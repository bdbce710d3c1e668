"""Outlines without stairs: where maps become larger, the corners of cells of stuff are cut, by Scale2x.

Scale2x (Andrea Mazzoleni, https://www.scale2x.it/algorithm) makes four quarters of every cell. A quarter takes the
class of the two neighbours that it touches, where these are of one class and neither is that of the neighbour opposite
to the other. Thin lines and single cells stay whole. Only stuff next to stuff is cut: what the areas and boxes of
instances count stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drive_seg.letterbox import Geometry
from drive_seg.places import places

LEAST_SCALE = 1.25
"""Native pixels along a cell from which corners are cut: below, most pixels lie in the middle of theirs."""


@dataclass(frozen=True)
class Corners:
    """Quarters of cells with a class of their own.

    Attributes:
        rows, columns: intp (N,) of the quarters, in half cells of the map.
        classes: uint8 (N,).
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    classes: NDArray[np.uint8]

    def places(self, geometry: Geometry, stride: int) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
        """Flat native pixels that lie in the quarters, and their classes.

        Args:
            stride: network pixels along a cell.
        """
        across, down = geometry.axes(stride)
        first_row, first_column = down.half_starts[self.rows], across.half_starts[self.columns]
        tall, wide = down.half_starts[self.rows + 1] - first_row, across.half_starts[self.columns + 1] - first_column
        found, classes = [], []
        for i in range(int(tall.max(initial=0))):
            for j in range(int(wide.max(initial=0))):
                there = (tall > i) & (wide > j)
                found.append((first_row[there] + i) * np.intp(geometry.native[0]) + first_column[there] + j)
                classes.append(self.classes[there])
        if not found:
            return np.zeros(0, np.intp), np.zeros(0, np.uint8)
        return np.concatenate(found), np.concatenate(classes)


def cut_corners(classes: NDArray[np.uint8], window: tuple[slice, slice], stuff: NDArray[np.bool_]) -> Corners:
    """The corners that are cut.

    Args:
        classes: uint8 (H, W) map of classes, C-contiguous.
        window: the rows and columns that hold content; cells on its edge are not cut.
        stuff: bool (256,) which classes are stuff.
    """
    width = classes.shape[1]
    flat = classes.reshape(-1)
    # The map as one long row is several times faster; what reaches over the edges is sorted out with them.
    first, last = width, flat.size - width
    up, down, left, right = (flat[first + step : last + step] for step in (-width, width, -1, 1))
    up_left, up_right, down_left, down_right = up == left, up == right, down == left, down == right
    # Where a quarter's neighbours are equal and those of a quarter beside it too, opposite neighbours are equal.
    rising, falling = up_right | down_left, up_left | down_right
    cuts = (up_left > rising, up_right > falling, down_left > falling, down_right > rising)
    at = places((cuts[0] | cuts[1]) | (cuts[2] | cuts[3]))
    own = flat[at + first]
    row = (at + first) // width
    column = at + first - row * width
    inside = (row > window[0].start) & (row < window[0].stop - 1)
    inside &= (column > window[1].start) & (column < window[1].stop - 1) & stuff[own]
    at, own, row, column = at[inside], own[inside], row[inside], column[inside]
    rows, columns, values = [], [], []
    for quarter, cut in enumerate(cuts):
        lower, righter = divmod(quarter, 2)
        beyond = (down if lower else up)[at]
        chosen = np.flatnonzero(cut[at] & stuff[beyond] & (beyond != own))
        rows.append(2 * row[chosen] + lower)
        columns.append(2 * column[chosen] + righter)
        values.append(beyond[chosen])
    return Corners(np.concatenate(rows), np.concatenate(columns), np.concatenate(values))


def are_cut(geometry: Geometry, stride: int) -> bool:
    """Whether the cells of a map are so large in the camera's image that their corners are cut."""
    return geometry.native[0] >= LEAST_SCALE * geometry.content_width / stride
