"""Lane boundaries as a sensor_msgs/PointCloud2; ``drive_seg.lanes.table`` says why, and what the fields are."""

from __future__ import annotations

import array
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, PointCloud2, PointField
from std_msgs.msg import Header

from drive_seg.frame import Lane, PanopticResult
from drive_seg.lanes.table import FIELDS, POINT_FIELD_TYPES, RECORD, Rays, to_records
from drive_seg.ros.calibration import camera_matrix, image_size

_PINHOLE = ("", "plumb_bob", "rational_polynomial")
_COEFFICIENTS = (0, 4, 5, 8, 12, 14)
"""How many of them OpenCV takes; ROS' own models have 5 and 8, thin prisms and a tilted sensor more."""


def lane_cloud(result: PanopticResult, info: CameraInfo | None, header: Header) -> PointCloud2:
    """The boundaries of a result; with the camera's calibration, also as rays that viewers can draw on the image."""
    width, height = result.native_size
    return cloud(result.lanes or (), header, None if info is None else rays(info, (width, height)))


def cloud(lanes: Sequence[Lane], header: Header, through: Rays | None = None) -> PointCloud2:
    """One row of points."""
    records = to_records(lanes, through)
    fields = [PointField(name=name, offset=at, datatype=POINT_FIELD_TYPES[kind], count=1) for name, at, kind in FIELDS]
    message = PointCloud2(header=header, height=1, width=records.size, fields=fields)
    message.point_step, message.row_step = RECORD.itemsize, records.nbytes
    message.data = array.array("B", records.tobytes())
    message.is_dense = through is not None
    return message


def rays(info: CameraInfo, size: tuple[int, int]) -> Rays | None:
    """Pixels to the plane one metre in front of the camera; None where the calibration does not fit ``size`` =
    (width, height), is empty or has lenses that are neither pinhole nor fisheye (equidistant)."""
    if not info.width or not info.height or image_size(info) != size:
        return None
    matrix = camera_matrix(info, size)
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        return None
    lens = np.asarray(info.d, np.float64)
    model = info.distortion_model
    fisheye = model == "equidistant" and lens.size == 4
    if not fisheye and not (model in _PINHOLE and lens.size in _COEFFICIENTS):
        return None

    def through(points: NDArray[np.float32]) -> NDArray[np.float64]:
        seen = points[:, None].astype(np.float64)
        undistort = cv2.fisheye.undistortPoints if fisheye else cv2.undistortPoints
        return np.asarray(undistort(seen, matrix, lens), np.float64).reshape(-1, 2)

    return through
