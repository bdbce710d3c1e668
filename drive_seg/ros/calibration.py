"""A camera's calibration in the pixels of its images and maps.

``K`` and ``P`` of a CameraInfo are those of the full sensor: ``roi`` says which window of it an image shows, and
``binning`` how many of its pixels became one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header

from drive_seg.frame import Extent

Size = tuple[int, int]
"""Width and height in pixels."""


def image_size(info: CameraInfo) -> Size:
    """The size of the images that a calibration is of."""
    _, _, width, height = _window(info)
    return width // max(1, info.binning_x), height // max(1, info.binning_y)


def camera_matrix(info: CameraInfo, size: Size) -> NDArray[np.float64]:
    """K (3, 3) in the pixels of a map of ``size`` of the whole image."""
    return _seen(info.k, info, _all_of(size), 3)


def camera_info_for(info: CameraInfo, header: Header, size: Size, extent: Extent | None = None) -> CameraInfo:
    """The calibration for a map of ``size``, under the frame's header.

    A map in the image's pixels has the camera's own. One in network pixels is the whole image at another scale: K and P
    scale with it as in image_proc's resize, and hold the window and the binning, too.

    Args:
        extent: where the image lies in the map; None where it fills it.
    """
    out = copy.copy(info)
    out.header = header
    if not info.width or not info.height or size in (image_size(info), (info.width, info.height)):
        return out
    out.width, out.height = size
    out.binning_x = out.binning_y = 0
    out.roi = RegionOfInterest(do_rectify=info.roi.do_rectify)
    extent = extent or _all_of(size)
    out.k = _seen(info.k, info, extent, 3).reshape(-1)
    out.p = _seen(info.p, info, extent, 4).reshape(-1)
    return out


def _window(info: CameraInfo) -> tuple[int, int, int, int]:
    """Column, row, width and height of what the images show of the sensor; a ``roi`` of zeros is all of it."""
    roi = info.roi
    if not roi.width or not roi.height:
        return 0, 0, info.width, info.height
    return roi.x_offset, roi.y_offset, roi.width, roi.height


def _all_of(size: Size) -> Extent:
    return Extent(0, 0, *size)


def _seen(values: Sequence[float], info: CameraInfo, extent: Extent, columns: int) -> NDArray[np.float64]:
    """K or P with the window's first pixel as its origin, scaled from the window to ``extent`` and moved there."""
    x, y, width, height = _window(info)
    matrix = np.array(values, np.float64).reshape(3, columns)
    matrix[:2] -= np.outer((x, y), matrix[2])
    matrix[:2] *= np.array([[extent.width / width], [extent.height / height]])
    matrix[:2] += np.outer((extent.x, extent.y), matrix[2])
    return matrix
