"""From strokes to boundaries: peaks among the sides of all runs, a curve through each, and how far it goes.

A boundary is a peak however long the gaps of its dashes are. What lies across the road has no slope that fits, and no
side of its own. Everything is computed in the cells of the network's map; only the points found become camera pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.frame import Extent, Lane
from drive_seg.labels import LabelSet
from drive_seg.lanes.road import Road, basis, fit_road, settle
from drive_seg.lanes.strokes import FloatArray, Strokes, find_strokes

POINTS = 24
"""Points of a boundary, the closer together the nearer they are to the horizon."""
_ALONG = np.linspace(0, 1, POINTS)
LEAST_CONFIDENCE = 0.2
"""Boundaries below it are left out."""

_WIDTH = 640
"""Lengths below are in cells of a map with so many columns."""
_FARTHEST = 10.0
"""Boundaries further to the side than this, in camera heights, are not looked for."""
_BIN = 0.05
_APART = 9
"""Peaks are at least so many bins apart."""
_AROUND = np.ones((1, 2 * _APART + 1), np.uint8)
_TRIANGLE = np.concatenate([np.arange(1.0, 7.0), np.arange(5.0, 0.0, -1.0)]) / 6.0
_LEAST_VOTES = 5.0
_TURNS = 2
"""The road is settled at most so often."""
_LEAST_ROWS = 8
_NARROWEST, _FEWER = 1.2, 1 / 3
"""Lines closer than this, in camera heights (1.7 m under a camera at 1.4 m), have no lane between them: the one with
less than this share of the other's rows is something else painted on the road, an arrow or letters."""
_BEYOND = 3.0
"""A boundary goes on to so many times the distance of its last paint, as long as there is road."""
_STEEPEST = 4.0
"""And where no paint shows its curve, only as long as that bends it by less than so many columns per row."""


class LaneFinder:
    """Finds the lane boundaries in maps with these labels; without classes of road and lane markings there are none."""

    def __init__(self, labels: LabelSet) -> None:
        ids = {label.name: label.id for label in labels}
        known = "road" in ids and "lane_marking" in ids
        self._classes = (ids["road"], ids["lane_marking"]) if known else None
        self._ground = np.isin(np.arange(256), self._classes or ())
        self._passable = labels.is_thing | self._ground
        self._passable[len(labels) :] = True  # UNLABELLED is mostly a thing that was given up

    @property
    def can_find(self) -> bool:
        """Whether these labels have what boundaries are found by: ``road`` and ``lane_marking``."""
        return self._classes is not None

    def __call__(
        self, mask: NDArray[np.uint8], native: tuple[int, int], image: Extent | None = None
    ) -> tuple[Lane, ...]:
        """The boundaries from left to right.

        Args:
            mask: uint8 (h, w) class ids of the whole camera image at the network's resolution.
            native: (width, height) of the camera image, in whose pixels the points are.
            image: where it lies in the map; None where it fills it.
        """
        if self._classes is None:
            return ()
        unit = mask.shape[1] / _WIDTH
        ground, paint = self._classes
        some = np.ascontiguousarray(mask[:, :: max(1, round(8 * unit))])
        cells = np.add.reduce((some == ground) | (some == paint), axis=1, dtype=np.uint16)
        on_road = (cells > 0.02 * some.shape[1]).nonzero()[0]
        if not on_road.size:
            return ()
        top = int(on_road[0])
        strokes = find_strokes((mask[top:] == paint).view(np.uint8), top)
        road = None if strokes is None else fit_road(strokes, top, unit)
        if strokes is None or road is None:
            return ()
        for _ in range(_TURNS):  # the first time on a road that two strokes make
            votes = _votes(strokes, road, unit)
            used = votes > 0
            row, x, length = strokes.row[used], strokes.x[used], strokes.width[used]
            sides = _peaks(road.sides(row, x), votes[used])
            if not sides.size:
                return ()
            before = road
            road, sides = settle(row, x, sides, before, top, unit)
            if road.is_near(before, unit):
                break
        seen = row > road.horizon + 2 * unit
        fitted = _fit(row[seen], x[seen], length[seen], np.sort(sides), road, mask.shape[0], unit)
        image = image or Extent(0, 0, mask.shape[1], mask.shape[0])
        return self._lanes(fitted, road.horizon, mask, native, image)

    def _lanes(
        self, fitted: _Fitted, horizon: float, mask: NDArray[np.uint8], native: tuple[int, int], image: Extent
    ) -> tuple[Lane, ...]:
        unit = mask.shape[1] / _WIDTH
        extents = self._extents(fitted, horizon, mask)
        strength = 1 - np.exp(-fitted.rows / (20 * unit))
        confidence = strength * np.exp(-((fitted.spread / (3 * unit)) ** 2))
        good = (fitted.rows >= _LEAST_ROWS * unit) & (confidence >= LEAST_CONFIDENCE)
        good &= extents.near - extents.far >= 2
        side, rows = fitted.curves[:, 1, None], fitted.rows
        good &= ~((np.abs(side - side.T) < _NARROWEST) & (rows[:, None] < _FEWER * rows)).any(axis=1)
        near, far = extents.near[good, None] - horizon, extents.far[good, None] - horizon
        below = near * (far / near) ** _ALONG
        vanish, side, curve = fitted.curves[good].T[:, :, None]
        scale = native[0] / image.width, native[1] / image.height
        points = np.empty((*below.shape, 2), np.float32)
        points[:, :, 0] = (vanish + side * below + curve / below + 0.5 - image.x) * scale[0] - 0.5
        points[:, :, 1] = (below + horizon + 0.5 - image.y) * scale[1] - 0.5
        support = np.rint(fitted.support[good] * (scale[0] * scale[1]))
        left = int(np.count_nonzero(side < 0))
        orders = [*range(-left, 0), *range(1, len(points) - left + 1)]
        columns = zip(orders, points, confidence[good].tolist(), support.tolist(), extents.dashed(good), strict=True)
        return tuple(Lane(order, line, sure, int(pixels), dashed) for order, line, sure, pixels, dashed in columns)

    def _extents(self, fitted: _Fitted, horizon: float, mask: NDArray[np.uint8]) -> _Extents:
        """From where the road ends towards the camera (a bonnet, the image's edge) to beyond the last paint, as long
        as there is road, or something that hides it."""
        height, width = mask.shape
        unit = width / _WIDTH
        start = max(0, int(np.ceil(horizon + 3 * unit)))
        y = np.arange(start, height)
        below = y - horizon
        column = np.rint(fitted.curves @ basis(below))
        inside = (column >= 0) & (column < width)
        classes = mask[y, np.minimum(np.maximum(column, 0), width - 1).astype(np.intp)]
        painted = fitted.painted[:, start:]
        last_paint = painted.argmax(axis=1) + start - horizon
        steep = np.sqrt(np.abs(fitted.curves[:, 2]) / _STEEPEST)
        end = np.minimum(last_paint, np.maximum(last_paint / _BEYOND, steep))
        reached = inside & (self._passable[classes] | painted) & (below >= end[:, None])
        far, near = reached.argmax(axis=1), y.size - 1 - reached[:, ::-1].argmax(axis=1)
        near = np.where(reached.any(axis=1), near, far)
        open_road = self._ground[classes] & (below >= 25 * unit) & (y <= (near + start)[:, None])
        count = np.add.reduce(open_road, axis=1, dtype=np.intp)
        share = np.add.reduce(open_road & painted, axis=1, dtype=np.intp) / np.maximum(count, 1)
        share[count < 20 * unit] = np.nan
        return _Extents(far + start, near + start, share)


@dataclass(frozen=True)
class _Extents:
    """(L,) first and last row of each boundary, and which share of the road it runs on near the camera is painted."""

    far: NDArray[np.intp]
    near: NDArray[np.intp]
    share: FloatArray

    def dashed(self, chosen: NDArray[np.bool_]) -> list[bool | None]:
        """Whether each of the chosen has gaps; None where that is not clear."""
        return [True if share <= 0.7 else False if share >= 0.85 else None for share in self.share[chosen].tolist()]


def _votes(strokes: Strokes, road: Road, unit: float) -> FloatArray:
    """float64 (R,) what each run counts: less near the horizon, nothing where its stroke lies across the road."""
    below = np.maximum(strokes.mean_row - road.horizon, 3.0)
    side = (strokes.mean_x - road.vanish - road.curve / below) / below
    off = np.abs(strokes.slope - side + road.curve / below**2)
    along = off < 0.35 + 0.15 * np.abs(side) + 6 / strokes.rows**1.5
    along &= ~strokes.capped & ~_bars(strokes, side)
    fits = np.where(strokes.straight, along, strokes.rows < 8 * unit)
    row = strokes.row - road.horizon
    votes: FloatArray = np.where(fits[strokes.stroke] & (row > 3 * unit), np.minimum(1.0, row / (20 * unit)), 0.0)
    return votes


def _bars(strokes: Strokes, side: FloatArray) -> NDArray[np.bool_]:
    """bool (S,): the bars of a crossing. They point along the road as lines do, but begin and end together in a row
    of three or more, closer to one another than lanes are wide."""
    bars = np.zeros(side.size, np.bool_)
    some = strokes.straight.nonzero()[0]
    middle, half, side = strokes.mean_row[some], strokes.rows[some] / 2, side[some]
    first, last = middle - half, middle + half
    shared = np.minimum(last[:, None], last) - np.maximum(first[:, None], first)
    beside = shared > 0.7 * (np.maximum(last[:, None], last) - np.minimum(first[:, None], first))
    apart = np.abs(side[:, None] - side)
    beside &= (apart > 0.3) & (apart < 1.2)
    inner = np.add.reduce(beside, axis=1, dtype=np.intp) >= 2
    bars[some] = inner | (beside & inner).any(axis=1)
    return bars


def _peaks(sides: FloatArray, votes: FloatArray) -> FloatArray:
    """The sides that many runs agree on, ascending."""
    bins = np.rint((sides + _FARTHEST) / _BIN)
    count = round(2 * _FARTHEST / _BIN) + 1
    near = (bins >= 0) & (bins < count)
    heights = np.bincount(bins[near].astype(np.intp), votes[near], count)
    smooth = np.convolve(heights, _TRIANGLE, "same").astype(np.float32)
    highest = cv2.dilate(smooth[None], _AROUND)[0]
    peaks = ((smooth == highest) & (smooth >= _LEAST_VOTES)).nonzero()[0]
    first = np.ones(peaks.size, np.bool_)
    np.greater(peaks[1:] - peaks[:-1], _APART, out=first[1:])
    peaks = peaks[first]
    found: FloatArray = peaks * _BIN - _FARTHEST
    return found


@dataclass(frozen=True)
class _Fitted:
    """The curves and what supports them.

    Attributes:
        curves: float64 (L, 3) vanishing column, side and curvature of each.
        painted: bool (L, h) rows with paint on it.
        rows: float64 (L,) how many.
        spread: float64 (L,) root mean square of the columns between its runs and it.
        support: float64 (L,) marking cells on it.
    """

    curves: FloatArray
    painted: NDArray[np.bool_]
    rows: FloatArray
    spread: FloatArray
    support: FloatArray


def _fit(
    row: FloatArray, x: FloatArray, length: FloatArray, sides: FloatArray, road: Road, height: int, unit: float
) -> _Fitted:
    """A curve through the runs nearest to each side, held near the shared road; far runs and outliers count less."""
    below = row - road.horizon
    bases = basis(below)
    products = np.concatenate([(bases[:, None] * bases).reshape(9, -1), bases * x]).T
    curves = np.empty((sides.size, 3))
    curves[:, 0], curves[:, 1], curves[:, 2] = road.vanish, sides, road.curve
    hold = np.array([1 / (4 * unit) ** 2, 1e-6, 1 / (40 * unit**2 + 0.15 * abs(road.curve)) ** 2])
    held, pull = np.diag(hold), hold * (road.vanish, 0.0, road.curve)
    noise = (unit + 0.02 * below) ** 2
    every = np.arange(row.size)
    for reach, share in ((18 * unit, 0.3), (8 * unit, 0.2)):
        nearest, off = _assign(bases, x, curves)
        limit = np.maximum(2 * unit, np.minimum(share * below, reach))
        mine = np.zeros((sides.size, row.size))
        mine[nearest, every] = np.where(np.abs(off) < limit, 1 / (noise + off * off), 0.0)
        sums = mine @ products
        normal = sums[:, :9].reshape(-1, 3, 3) + held
        curves = np.linalg.solve(normal, (sums[:, 9:] + pull)[..., None])[..., 0]
    nearest, off = _assign(bases, x, curves)
    own = np.abs(off) < np.maximum(1.6 * unit, 0.1 * np.minimum(below, 60 * unit))
    nearest, off = nearest[own], off[own]
    painted = np.zeros((sides.size, height), np.bool_)
    painted[nearest, row[own].astype(np.intp)] = True
    runs = np.maximum(np.bincount(nearest, minlength=sides.size), 1)
    spread = np.sqrt(np.bincount(nearest, off * off, sides.size) / runs)
    support = np.asarray(np.bincount(nearest, length[own], sides.size), np.float64)
    rows = np.add.reduce(painted, axis=1, dtype=np.float64)
    return _Fitted(curves, painted, rows, spread, support)


def _assign(bases: FloatArray, x: FloatArray, curves: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """(R,) the nearest curve of each run, and (R,) columns from it."""
    off = x - curves @ bases
    nearest = np.abs(off).argmin(axis=0)
    return nearest, off[nearest, np.arange(x.size)]
