"""Lane boundaries as the records of a sensor_msgs/PointCloud2, without ROS: the node, bags and the simulator share it.

Why this message: its one header can be the camera's own, so that exact-time synchronisers work; it holds any number of
boundaries, each point with whatever fields describe it; every ROS installation has it, with readers in C++ and Python;
and viewers draw it. ``visualization_msgs/MarkerArray`` and ``foxglove_msgs/ImageAnnotations`` have no header for the
whole and are meant for eyes only, ``geometry_msgs/PolygonInstanceStamped`` holds one closed polygon without a score
(and is not in Humble), ``vision_msgs`` has no lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import MalformedImage
from drive_seg.frame import Lane

RECORD = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("u", "<f4"),
        ("v", "<f4"),
        ("confidence", "<f4"),
        ("support", "<u4"),
        ("lane", "<i2"),
        ("dashed", "<i1"),
        ("reserved", "<u1"),
    ]
)
"""One point. ``u``, ``v``: column and row in camera pixels. ``x``, ``y``, ``z``: where its ray crosses the plane one
metre in front of the camera, metres in the optical frame; NaN without a calibration. ``lane``: order from the camera,
-1 the first to the left, +1 the first to the right; the points of one boundary follow each other, from near to far.
``confidence``, ``support`` and ``dashed`` (1, 0, or -1: not known) are the boundary's, the same for all its points."""

FIELDS = tuple((name, RECORD.fields[name][1], RECORD[name].str[1:]) for name in RECORD.names or () if RECORD.fields)
"""(name, offset, kind) of each field, kind as in ``POINT_FIELD_TYPES``."""
POINT_FIELD_TYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}
"""sensor_msgs/PointField's number of each kind."""

Rays = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""From pixels (N, 2) to x, y (N, 2) one metre in front of the camera."""

_DASHED = {None: -1, False: 0, True: 1}


def to_records(lanes: Sequence[Lane], rays: Rays | None = None) -> NDArray[np.void]:
    """The points of all boundaries, (N,) of ``RECORD``."""
    records = np.zeros(sum(len(lane.points) for lane in lanes), RECORD)
    start = 0
    for lane in lanes:
        part = records[start : start + len(lane.points)]
        part["u"], part["v"] = lane.points.T
        part["confidence"], part["support"] = lane.confidence, lane.support
        part["lane"], part["dashed"] = lane.order, _DASHED[lane.dashed]
        start += len(part)
    for axis in "xyz":
        records[axis] = np.nan if rays is None else 1.0
    if rays is not None and lanes:
        records["x"], records["y"] = rays(np.concatenate([lane.points for lane in lanes])).T
    return records


def from_records(records: NDArray[np.void]) -> tuple[Lane, ...]:
    """The inverse of ``to_records``; rays are not kept.

    Raises:
        MalformedImage: the points of a boundary are no line, see ``near_to_far``.
    """
    if not records.size:
        return ()
    edges = np.flatnonzero(np.diff(records["lane"])) + 1
    lanes = []
    for part in np.split(records, edges):
        first = part[0]
        order, dashed = int(first["lane"]), None if first["dashed"] < 0 else bool(first["dashed"])
        try:
            points = near_to_far(np.stack([part["u"], part["v"]], axis=1))
            lanes.append(Lane(order, points, float(first["confidence"]), int(first["support"]), dashed))
        except ValueError as error:
            raise MalformedImage(f"boundary {order}: {error}") from error
    return tuple(lanes)


def near_to_far(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The points (N, 2) of a boundary in our order; another writer's may go from far to near.

    Raises:
        ValueError: they go to and fro, or are not finite.
    """
    if not np.isfinite(points).all():
        raise ValueError("points must be finite")
    steps = np.diff(points[:, 1])
    if (steps > 0).any():
        points, steps = points[::-1], -steps
    if (steps > 0).any():
        raise ValueError("rows must fall from point to point, from near to far")
    return points


def lanes_of(message: Any) -> tuple[Lane, ...]:
    """The boundaries in a PointCloud2, from a topic or out of a bag.

    Raises:
        MalformedImage: it has other fields, or points that are no lines.
    """
    fields = [(field.name, field.offset, field.datatype) for field in message.fields]
    data = np.asarray(message.data).view(np.uint8)
    return from_records(parse_records(fields, message.point_step, message.width * message.height, data))


def parse_records(
    fields: Sequence[tuple[str, int, int]], step: int, count: int, data: NDArray[np.uint8]
) -> NDArray[np.void]:
    """The records in a message, which may have more fields, at other offsets.

    Args:
        fields: (name, offset, PointField's number of its kind) of each field.
        step: bytes of a point.
        count: number of points.
        data: uint8 (M,).

    Raises:
        MalformedImage: a field is missing or of another kind, or the sizes contradict each other.
    """
    numbers = {number: kind for kind, number in POINT_FIELD_TYPES.items()}
    there = {name: (offset, numbers.get(number, "?")) for name, offset, number in fields}
    if data.size < max(step, 1) * count:  # or a step of 0 would have room for any count
        raise MalformedImage(f"{count} lane points of {step} bytes need {step * count} bytes, got {data.size}")
    records = np.zeros(count, RECORD)
    raw = np.ascontiguousarray(data[: step * count]).reshape(count, step)
    for name, _, kind in FIELDS[:-1]:
        offset, found = there.get(name, (0, "none"))
        size = np.dtype(kind).itemsize
        if found != kind or offset + size > step:
            raise MalformedImage(f"lane points must have the field {name} of kind {kind}, got {found}")
        records[name] = np.ascontiguousarray(raw[:, offset : offset + size]).view(f"<{kind}")[:, 0]
    return records
