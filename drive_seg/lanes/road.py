"""What the boundaries of a road share, in cells of a map.

On a flat road with a horizon at row ``h`` a boundary is at column ``v + k (y - h) + c / (y - h)`` of row y: all have
the vanishing column ``v`` and the curvature ``c``, only ``k``, the distance to the side of the camera in camera
heights, is a boundary's own. The model of Kluge (IEEE Intelligent Vehicles 1994) and Guiducci (CVIU 1999).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drive_seg.lanes.strokes import FloatArray, Strokes

_GUESSES = np.arange(-36.0, 7.0, 3.0)
"""Horizons that are tried, in rows of a map of 640 columns, from the first row of the road."""
_SHIFTS = np.arange(-8.0, 9.0)
"""And around the best of them, once the boundaries are known."""
_USUAL = -4.0
"""Where the horizon usually is: a little above the last bit of road that a network finds."""
_MOST_STROKES = 10
_PAIRS = tuple(np.triu_indices(count, 1) for count in range(_MOST_STROKES + 1))
_CURVE_WEIGHT = 3e-5
_HORIZON_WEIGHT = 5.0


@dataclass(frozen=True)
class Road:
    """Horizon row ``h``, vanishing column ``v`` and curvature ``c`` (columns times rows)."""

    horizon: float
    vanish: float
    curve: float

    def sides(self, row: FloatArray, x: FloatArray) -> FloatArray:
        """``k`` of places below the horizon."""
        below = row - self.horizon
        sides: FloatArray = (x - self.vanish - self.curve / below) / below
        return sides

    def is_near(self, other: Road, unit: float) -> bool:
        """Whether so little is between them that the same runs belong to the same boundaries."""
        moved = abs(self.horizon - other.horizon), abs(self.vanish - other.vanish), abs(self.curve - other.curve)
        return moved[0] <= unit and moved[1] <= 3 * unit and moved[2] <= 40 * unit**2


def basis(below: FloatArray) -> FloatArray:
    """float64 (3, N): what ``v``, ``k`` and ``c`` are multiplied with at so many rows below the horizon."""
    terms = np.ones((3, below.size))
    terms[1] = below
    np.divide(1, below, out=terms[2])
    return terms


def fit_road(strokes: Strokes, top: int, unit: float) -> Road | None:
    """The road on which most strokes agree; None without a stroke that has a slope.

    A stroke ``u`` rows below the horizon with slope s says ``v + 2 c / u = x - s u``: any two of them, on any horizon,
    make a road. The best of these is the one with the most rows of strokes near it.

    Args:
        top: first row of the road.
        unit: columns of the map per column of a map of 640.
    """
    sloped = strokes.straight.nonzero()[0]
    if not sloped.size:
        return None
    sloped = sloped[(-strokes.rows[sloped]).argsort(kind="stable")[:_MOST_STROKES]]
    y, x, slope, rows = (of[sloped] for of in (strokes.mean_row, strokes.mean_x, strokes.slope, strokes.rows))
    weight = np.minimum(rows, 60 * unit)
    horizons = top + _GUESSES * unit
    below = np.maximum(y - horizons[:, None], 2.0)
    meets, bend = x - slope * below, 2 / below
    tolerance = (1.5 + 0.03 * below) * unit + 6 * below / rows**1.5
    one, other = _PAIRS[sloped.size]
    apart = bend[:, one] - bend[:, other]
    apart[np.abs(apart) <= 1e-4] = np.inf
    curved = (meets[:, one] - meets[:, other]) / apart
    curved[np.abs(curved) >= 3300 * unit**2] = 0.0
    roads = np.zeros((horizons.size, one.size + sloped.size, 2))  # their v and c: of each pair, and of straight ones
    vanish, curve = roads[:, :, 0], roads[:, :, 1]
    curve[:, : one.size] = curved
    vanish[:, : one.size], vanish[:, one.size :] = meets[:, one] - bend[:, one] * curved, meets
    near = 1 / tolerance
    terms = np.empty((horizons.size, 2, sloped.size))
    terms[:, 0], terms[:, 1] = near, bend * near
    off = (meets * near)[:, None] - roads @ terms
    np.multiply(off, off, out=off)
    np.subtract(1, off, out=off)
    score = np.maximum(off, 0, out=off) @ weight
    # Of equals: a horizon where it usually is, a straight road, a camera that looks along it.
    doubt = 0.02 * ((horizons - top - _USUAL * unit) / (12 * unit))[:, None] ** 2
    doubt = doubt + np.abs(curve) / (25_000 * unit**2) + np.abs(vanish / unit - 320) / 6400
    score -= float(weight.sum()) * doubt
    best, which = divmod(int(score.argmax()), score.shape[1])
    return Road(float(horizons[best]), float(vanish[best, which]), float(curve[best, which]))


def settle(
    row: FloatArray, x: FloatArray, sides: FloatArray, guess: Road, top: int, unit: float
) -> tuple[Road, FloatArray]:
    """The road again, from the places of all runs: least squares of all boundaries at once on each of some horizons.

    Args:
        row, x: (R,) places of the runs.
        sides: (L,) ``k`` of the boundaries on ``guess``.

    Returns:
        The road that leaves the least, and ``sides`` on it.
    """
    below = row - guess.horizon
    off = x - guess.vanish - guess.curve / below - sides[:, None] * below
    nearest, every = np.abs(off).argmin(axis=0), np.arange(row.size)
    off = off[nearest, every]
    noise = unit + 0.02 * below
    near = np.abs(off) < np.maximum(2.0 * unit, 0.3 * np.minimum(below, 60 * unit))
    weight = np.where(near, 1 / (noise * noise + off * off), 0.0)
    mine = np.zeros((row.size, sides.size))
    mine[every, nearest] = weight
    # Per horizon (first axis): the sums over each boundary (last axis) with its own k eliminated from the normal
    # equations, which leaves two unknowns, v and c.
    horizons = guess.horizon + _SHIFTS * unit
    u = np.maximum(row - horizons[:, None], 2.0 * unit)
    sums = np.empty((horizons.size, 3, sides.size))
    sums[:, 0], sums[:, 1], sums[:, 2] = u @ mine, np.add.reduce(mine, axis=0), (u * x) @ mine
    inverse, uu = weight / u, (u * u) @ mine + 1e-9
    (vv, vc, vx), (_, cc, cx), (_, _, xx) = ((sums / uu[:, None]) @ sums.swapaxes(1, 2)).transpose(1, 2, 0)
    vv = float(np.add.reduce(weight)) - vv
    vc = np.add.reduce(inverse, axis=1) - vc
    cc = np.add.reduce(inverse / u, axis=1) - cc + _CURVE_WEIGHT / unit**4
    vx, cx = float(weight @ x) - vx, inverse @ x - cx
    determinant = vv * cc - vc * vc
    determinant[determinant <= 1e-12] = np.inf
    vanish, curve = (cc * vx - vc * cx) / determinant, (vv * cx - vc * vx) / determinant
    left = _HORIZON_WEIGHT * ((horizons - top - _USUAL * unit) / (12 * unit)) ** 2 - xx - vanish * vx - curve * cx
    best = int(left.argmin())
    found = (sums[best, 2] - vanish[best] * sums[best, 0] - curve[best] * sums[best, 1]) / uu[best]
    return Road(float(horizons[best]), float(vanish[best]), float(curve[best])), found
