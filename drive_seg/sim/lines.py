"""The truth of lane boundaries: the middles of painted lines, projected."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from drive_seg.frame import Lane

from .camera import NEAR, Camera, FloatArray
from .canvas import LANE_MARKING, ROAD, ByteArray
from .road import Line, Stretch

_ONE_BOUNDARY = 0.5  # metres between the middles of lines that are one boundary: a double line
_DISTANCES = np.geomspace(0.5, 110.0, 160)  # metres ahead; dashes are painted to 110 m
_LEAST_ROWS = 1 / 36  # of the image: a boundary of which fewer rows of paint are seen is left out
_IN_SIGHT = 2.0  # times the sight of the weather: beyond, haze leaves 14 % of a line's contrast


def lane_truth(
    lines: Sequence[Line], owners: ByteArray, camera: Camera, stretch: Stretch, sight: float
) -> tuple[Lane, ...]:
    """The boundaries of one frame from left to right.

    A boundary begins where the ground under it comes into the image (in front of a bonnet) and ends with the last of
    its paint that is seen. What hides it in between (a vehicle) or is not painted (a gap) does not cut it. Lines
    closer than half a metre are one boundary, in the middle of them. The part behind a crest is left out.

    Args:
        owners: uint8 (H, W), who each pixel belongs to, as ``Canvas`` has it when everything is painted.
        sight: of the weather, metres.
    """
    found = []
    for group in _groups(lines):
        side = float(np.mean([line.d for line in group]))
        s = stretch.origin + _DISTANCES[: int(np.searchsorted(_DISTANCES, _IN_SIGHT * sight))]
        traced = _trace(group, side, s, owners, camera, stretch)
        if traced is not None:
            lateral = camera.position[1] - (-side if stretch.mirrored else side)
            found.append((lateral, *traced, all(line.dash > 0 for line in group)))
    found.sort(key=lambda one: one[0])
    left = sum(lateral < 0 for lateral, *_ in found)
    orders = [*range(-left, 0), *range(1, len(found) - left + 1)]
    return tuple(
        Lane(order, points, 1.0, support, dashed)
        for order, (_, points, support, dashed) in zip(orders, found, strict=True)
    )


def _groups(lines: Sequence[Line]) -> list[list[Line]]:
    groups: list[list[Line]] = []
    for line in sorted(lines, key=lambda one: one.d):
        if groups and line.d - groups[-1][-1].d < _ONE_BOUNDARY:
            groups[-1].append(line)
        else:
            groups.append([line])
    return groups


def _trace(
    group: Sequence[Line], side: float, s: FloatArray, owners: ByteArray, camera: Camera, stretch: Stretch
) -> tuple[npt.NDArray[np.float32], int] | None:
    """Points (N, 2) x, y of a boundary from near to far, and how many pixels of its paint are seen."""
    middle, rising = _project(side, s, camera, stretch)
    inside, owner = _look_up(owners, middle)
    widths = np.zeros(len(s))
    for line in group:
        paint = _look_up(owners, _project(line.d, s, camera, stretch)[0])[1] == LANE_MARKING
        if line.dash:
            paint &= np.mod(s, line.dash + line.gap) < line.dash
        widths += np.where(paint & rising & inside, line.width * camera.focal / (s - stretch.origin), 0.0)
    painted = widths > 0
    if not painted.any():
        return None
    ground = inside & rising & (painted | (owner == ROAD) | (owner == LANE_MARKING))
    first, last = int(np.flatnonzero(ground)[0]), int(np.flatnonzero(painted)[-1])
    rows = np.abs(np.diff(middle[:, 1], append=middle[-1, 1]))
    if rows[painted].sum() < _LEAST_ROWS * camera.height or last == first:
        return None
    shown = np.flatnonzero(inside[: last + 1])
    shown = shown[shown >= first]
    return middle[shown].astype(np.float32), round(float(rows @ widths))


def _project(side: float, s: FloatArray, camera: Camera, stretch: Stretch) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Pixels (N, 2), and whether each is in front of the lens and before the first crest."""
    moved = camera.to_camera(stretch.place(s, side))
    ahead = moved[:, 2] >= NEAR
    pixels = camera.pixels(np.where(ahead[:, None], moved, (0.0, 0.0, NEAR)))
    higher = np.diff(pixels[:, 1], append=-np.inf) < 0
    return pixels, ahead & np.logical_and.accumulate(higher | ~ahead)


def _look_up(owners: ByteArray, pixels: FloatArray) -> tuple[npt.NDArray[np.bool_], ByteArray]:
    """Whether each pixel (N, 2) is in the image, and its owner (of the nearest pixel that is)."""
    height, width = owners.shape
    column, row = np.rint(pixels).astype(np.intp).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return inside, owners[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
