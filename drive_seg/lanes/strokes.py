"""Painted strokes: the horizontal runs of marking pixels, and the connected pieces they form.

Whatever is too wide, too short or too blotchy to be part of a line along the road is left out here: stop lines, the
bars of crossings, expansion joints, reflections on a bonnet, specks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from drive_seg.places import places

FloatArray: TypeAlias = "NDArray[np.floating[Any]]"

_WIDEST, _WIDEST_PAIR = 0.28, 0.5
"""Widest line and widest double line in camera heights: 0.4 m and 0.7 m under a camera at 1.4 m. In the map they are
wider by some cells: by a row of blur, too, which across a line far to the side is several columns."""
_GAP = 0.2
"""Widest gap of a double line, which is taken as one."""
_CLOSED_ROWS = 3
"""Of a double line, rows in which its gap is closed are so many rows from one in which it is not."""
_CUTS = 10 * 1.6 ** np.arange(9)
"""Rows below the first row of the road, of a map of 640 columns, at which strokes are cut: lines that meet far away,
or touch a crossing, are told apart elsewhere."""
_SPECK = 1 / 2
"""A stroke at u rows below the horizon spans at least ``_SPECK * u**2 / width`` rows: about 0.6 m."""
_SHORT = 6
_SLOPED_ROWS = 4.0
"""Strokes of fewer rows say where a line is, not where it goes."""


@dataclass(frozen=True)
class Strokes:
    """The runs of one map, each in a stroke.

    Attributes:
        row, x, width: float64 (R,) of each run: its row, its middle column, its number of pixels.
        stroke: intp (R,) number of its stroke.
        rows: float64 (S,) rows that each stroke spans.
        mean_row, mean_x: float64 (S,) its middle.
        slope: float64 (S,) columns per row, by least squares.
        straight: bool (S,) whether its slope means something.
        capped: bool (S,) whether something too wide to be a line sits on an end of it, like the head of an arrow.
    """

    row: FloatArray
    x: FloatArray
    width: FloatArray
    stroke: NDArray[np.intp]
    rows: FloatArray
    mean_row: FloatArray
    mean_x: FloatArray
    slope: FloatArray
    straight: NDArray[np.bool_]
    capped: NDArray[np.bool_]


def find_strokes(paint: NDArray[np.uint8], top: int) -> Strokes | None:
    """The strokes of a map.

    Args:
        paint: uint8 (h, W), C-contiguous, not 0 where there is marking, by one value, from the first row of the
            road on; changed in place: its last column, which is not looked at, becomes 0.
        top: that row; the horizon lies near it.

    Returns:
        None where no run is narrow enough.
    """
    paint[:, -1] = 0  # so that no run reaches from one row into the next
    width = paint.shape[1]
    row, begin, end = _runs(paint)
    cut = np.zeros(len(paint), np.bool_)
    cuts = (_CUTS * (width / 640)).astype(np.intp)
    cut[cuts[cuts < cut.size]] = True
    below = row + 4
    blur = 3 + np.abs((begin + end) / 2 - (row + 0.5) * width) / below
    widest_pair = blur + _WIDEST_PAIR * below
    usable = (end - begin <= widest_pair) & ~cut[row]
    # Where a line leaves the image only a part of it is seen, whose middle is not the line's.
    usable &= (begin > row * width) & (end < (row + 1) * width - 1)
    wide = (end - begin > blur + _WIDEST * below)[usable]
    begin, end, row, widest_pair = begin[usable], end[usable], row[usable], widest_pair[usable]
    closes = (row[1:] == row[:-1]) & (begin[1:] - end[:-1] <= 1 + _GAP * row[1:])
    closes &= (end[1:] - begin[:-1] <= widest_pair[1:]) & ~(wide[1:] | wide[:-1])
    whole = np.ones(row.size + 1, np.bool_)
    np.logical_not(closes, out=whole[1:-1])
    first, last = whole[:-1].nonzero()[0], whole[1:].nonzero()[0]
    begin, end, row, wide = begin[first], end[last], row[first], wide[first]
    if wide.any():
        pair = first != last
        narrow = ~wide
        narrow[wide] = _among((begin + end)[wide] // 2, begin[pair], end[pair], width)
        begin, end, row = begin[narrow], end[narrow], row[narrow]
    if not row.size:
        return None
    stroke = _joined(begin, end, paint.shape)
    length = end - begin
    capped = _capped(begin, end, row, stroke, paint)
    x = begin - row * width + (length - 1) / 2
    return _measure(row + float(top), x, length.astype(np.float64), stroke, capped, top, width)


def _runs(paint: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Row of each run, and its first and one past its last pixel in the flat map; the last column is empty."""
    flat = paint.reshape(-1)
    edges = places(flat[1:] != flat[:-1]) + 1
    if flat[0]:
        edges = np.append(0, edges)
    begin, end = edges[::2], edges[1::2]
    return begin // paint.shape[1], begin, end


def _among(middle: NDArray[np.intp], begin: NDArray[np.intp], end: NDArray[np.intp], width: int) -> NDArray[np.bool_]:
    """Whether a double line, of those from ``begin`` to ``end`` in the flat map, lies in some of the rows around each
    place: paint that is too wide for a line is one there, whose gap is closed."""
    if not begin.size:
        return np.zeros(middle.size, np.bool_)
    beside = middle[:, None] + width * np.arange(-_CLOSED_ROWS, _CLOSED_ROWS + 1)
    before = begin.searchsorted(beside, "right") - 1
    rows = np.add.reduce((end[before] > beside) & (before >= 0), axis=1, dtype=np.intp)
    return np.asarray(rows > 1)  # one may be a bar of a crossing with a hole


def _joined(begin: NDArray[np.intp], end: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """intp (R,) number, from 1 on, of the stroke of each run: runs that touch, corners included, are of one.

    On the few runs there are it takes a third of the time of ``cv2.connectedComponents`` on their pixels. No run
    touches the side of the map, so none has a neighbour across it.
    """
    height, width = shape
    first, past = end.searchsorted(begin - width), begin.searchsorted(end - width, "right")  # those touched above
    every = np.arange(begin.size)
    root = _top(np.where(past > first, first, every), height)
    joins = (past - first > 1).nonzero()[0]
    if joins.size:  # one that touches several: all but the first of them, too, are of its stroke
        more = past[joins] - first[joins] - 1
        begun = more.cumsum() - more
        other = np.repeat(first[joins] + 1 - begun, more) + np.arange(int(more.sum()))
        one = np.repeat(joins, more)
        while (differ := root[one] != root[other]).any():
            one, other = one[differ], other[differ]
            np.minimum.at(root, np.maximum(root[one], root[other]), np.minimum(root[one], root[other]))
            root = _top(root, root.size)
    number: NDArray[np.intp] = (root == every).cumsum()[root]
    return number


def _top(above: NDArray[np.intp], longest: int) -> NDArray[np.intp]:
    """Where one comes to from each place by going to ``above`` again and again, at most ``longest`` times."""
    for _ in range(longest.bit_length()):
        above = above[above]
    return above


def _capped(
    begin: NDArray[np.intp],
    end: NDArray[np.intp],
    row: NDArray[np.intp],
    stroke: NDArray[np.intp],
    paint: NDArray[np.uint8],
) -> NDArray[np.bool_]:
    """bool (S,): whether the paint beyond the far end of each stroke belongs to no line, as the head of an arrow, or
    that before the near end of a short one, as the tip of that head. A piece of a few rows in between, which a cut
    left there, does not count."""
    runs = np.bincount(stroke)
    capped = np.zeros(runs.size, np.bool_)
    every = np.arange(stroke.size)
    first, last = np.zeros(runs.size, np.intp), np.zeros(runs.size, np.intp)
    first[stroke[::-1]] = every[::-1]  # of equal indices the last one stays
    last[stroke] = every
    height, width = paint.shape
    flat = paint.reshape(-1)
    middle = (begin + end) // 2 - row * width
    for ends, step, longest in ((first[1:], -2, runs.max()), (last[1:], 2, 2 * _SHORT)):
        there = np.minimum(np.maximum(row[ends] + step, 0), height - 1) * width + middle[ends]
        run = begin.searchsorted(there, "right") - 1  # the one that is there, if it reaches so far
        beyond = np.where((run >= 0) & (end[run] > there), stroke[run], 0)
        at_end = np.zeros(runs.size, np.bool_)
        at_end[1:] = (flat[there] != 0) & (beyond == 0)
        at_end[1:] |= at_end[beyond] & (runs[beyond] <= _SHORT)
        capped |= at_end & (runs <= longest)
    return capped


def _measure(
    row: FloatArray,
    x: FloatArray,
    length: FloatArray,
    stroke: NDArray[np.intp],
    capped: NDArray[np.bool_],
    top: int,
    width: int,
) -> Strokes:
    count = capped.size
    runs = np.maximum(np.bincount(stroke, minlength=count), 1)
    mean_row, mean_x = np.bincount(stroke, row, count) / runs, np.bincount(stroke, x, count) / runs
    dy, dx = row - mean_row[stroke], x - mean_x[stroke]
    yy, xy, xx = (np.bincount(stroke, product, count) / runs for product in (dy * dy, dx * dy, dx * dx))
    rows = np.sqrt(12 * yy + 1)
    slope = xy / np.maximum(yy, 1e-9)
    spread = np.sqrt(np.maximum(xx - slope * xy, 0))
    below = np.maximum(mean_row - top + 4, 0)
    whole = rows >= _SPECK * below * below / width
    kept = whole[stroke]
    straight = whole & (rows >= _SLOPED_ROWS) & (spread < 1.5 + 0.1 * rows) & (np.abs(slope) < 10)
    return Strokes(row[kept], x[kept], length[kept], stroke[kept], rows, mean_row, mean_x, slope, straight, capped)
