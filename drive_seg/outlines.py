"""Outlines between cells: where a map becomes larger, borders of stuff run where interpolated logits would put them.

What is left of the logits is each cell's class and its probability p, and log(p / (1 - p)) is how far that class is
ahead of all others. Beside another class that is mostly its lead over this one, so the difference of two logits is
known on both sides of a border, and a camera pixel between the middles of cells interpolates it. On CamVid's frames
99.96 % of the pixels of stuff get the class that the interpolated logits themselves would give; without this, 99.76 %.

Only stuff next to stuff is moved: what the areas and boxes of instances count stays as it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drive_seg.letterbox import SHARES, Axis, Geometry
from drive_seg.places import places


def _leads() -> NDArray[np.int16]:
    p = np.clip(np.arange(256) / 255, 0.001, 0.999)
    leads = np.asarray(np.clip(np.rint(16 * np.log(p / (1 - p))), 1, 96), np.int16)
    leads.setflags(write=False)
    return leads


LEADS = _leads()
"""int16 (256,): 16 log(p / (1 - p)) of each confidence, 1..96; a class without a majority is ahead, too."""

_AT_ONCE = 1 << 17
"""Pixels that are looked at together: these stay in the caches; all of a noisy 4K image would take 200 MB."""


class Outlines:
    """Moves the borders of the maps of one geometry.

    Args:
        geometry: where the camera's image lies in the network's.
        stride: network pixels along a cell.
        stuff: bool (256,) which classes are stuff.
    """

    def __init__(self, geometry: Geometry, stride: int, stuff: NDArray[np.bool_]) -> None:
        self._stuff = stuff
        self._across, self._down = geometry.axes(stride)
        self._width = geometry.native[0]
        self._rows, self._columns = _weights(self._down), _weights(self._across)
        self._step = max(1, _AT_ONCE // (self._rows.shape[1] * self._columns.shape[1]))

    def __call__(
        self, classes: NDArray[np.uint8], confidence: NDArray[np.uint8]
    ) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
        """The camera's pixels whose class is not that of their cell.

        Args:
            classes: uint8 (H, W) map, C-contiguous. Cells on the edge of the content keep their pixels.
            confidence: uint8 (H, W), likewise: round(255 * probability of that class).

        Returns:
            Flat native pixels, and their classes.
        """
        border, flat, sure = self._border(classes), classes.reshape(-1), confidence.reshape(-1)
        parts = [
            self._moved(flat, sure, *(places[first : first + self._step] for places in border))
            for first in range(0, max(border[0].size, 1), self._step)
        ]
        pixels, found = zip(*parts, strict=True)
        return np.concatenate(pixels), np.concatenate(found)

    def _moved(
        self,
        classes: NDArray[np.uint8],
        confidence: NDArray[np.uint8],
        at: NDArray[np.intp],
        row: NDArray[np.intp],
        column: NDArray[np.intp],
    ) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
        """As above, of flat maps and some cells of the border."""
        width = self._across.weights.size
        around = at + np.array([0, -width, width, -1, 1, -width - 1, -width + 1, width - 1, width + 1])[:, None]
        theirs = classes.take(around)
        leads = LEADS.take(confidence.take(around))
        own, sides = theirs[0], theirs[1:5]
        other = ((leads[1:5] << 8 | sides) * (sides != own)).max(axis=0).astype(np.uint8)  # the lower byte: the class
        ahead = leads * ((theirs == other).view(np.int8) - (theirs == own).view(np.int8))
        here, up, down, left, right, up_left, up_right, down_left, down_right = ahead
        before, within, after = _chosen(self._rows, row)
        left = up_left * before + left * within + down_left * after
        here = up * before + here * within + down * after
        right = up_right * before + right * within + down_right * after
        before, within, after = (shares[:, None] for shares in _chosen(self._columns, column))
        place = places(left * before + here * within + right * after > 0)
        pixel, cell = np.divmod(place, max(at.size, 1))
        j, i = np.divmod(pixel, len(self._rows[0]))
        row, column, other = row[cell], column[cell], other[cell]
        moved = self._stuff[other] & (i < self._down.weights[row]) & (j < self._across.weights[column])
        y, x = (self._down.starts[row] + i)[moved], (self._across.starts[column] + j)[moved]
        return y * np.intp(self._width) + x, other[moved]

    def _border(self, classes: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Flat place, row and column of the cells of stuff beside a cell of another class."""
        width = classes.shape[1]
        flat = classes.reshape(-1)
        # The map as one long row is several times faster; what reaches over the edges is sorted out with them.
        beside, below = flat[1:] != flat[:-1], flat[width:] != flat[:-width]
        first, last = width, max(flat.size - width, width)
        at = places((beside[first - 1 : last - 1] | beside[first:last]) | (below[: last - first] | below[first:last]))
        at += first
        row = at // width
        column = at - row * width
        rows, columns = self._down.window, self._across.window
        inside = (row > rows.start) & (row < rows.stop - 1) & (column > columns.start) & (column < columns.stop - 1)
        inside &= self._stuff[flat[at]]
        return at[inside], row[inside], column[inside]


def are_moved(geometry: Geometry, stride: int) -> bool:
    """Whether cells are larger than the camera's pixels, so that there is something between their middles."""
    return geometry.native[0] * stride > geometry.content_width


def _weights(axis: Axis) -> NDArray[np.int16]:
    """int16 (3, most pixels of a cell, cells): what the cell before, the cell itself and that after it count for each
    of its pixels, in ``SHARES``; for pixels that it does not have, anything. One cell stands for all that are alike."""
    most = int(axis.weights.max())
    pixels = np.minimum(axis.starts[:-1] + np.arange(most, dtype=np.int32)[:, None], axis.shares.size - 1)
    shares = axis.shares[pixels].astype(np.int16)
    found = np.stack([np.maximum(-shares, 0), SHARES - np.abs(shares), np.maximum(shares, 0)])
    inner = found[:, :, axis.window][:, :, 1:-1]
    return inner[:, :, :1].copy() if inner.size and (inner == inner[:, :, :1]).all() else found


def _chosen(weights: NDArray[np.int16], cells: NDArray[np.intp]) -> NDArray[np.int16]:
    return weights if weights.shape[2] == 1 else weights.take(cells, axis=2)
