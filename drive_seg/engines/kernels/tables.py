"""The tables the kernels look things up in: made here once per camera size, with the arithmetic of the CPU path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.engines.kernels.layout import CHANNELS, TAP, Layout, Sizes, lay_out
from drive_seg.frame import CameraImage
from drive_seg.labels import PANOPTIC_DIVISOR, LabelSet
from drive_seg.letterbox import SHARES, Geometry, shown
from drive_seg.outlines import LEADS, are_moved
from drive_seg.overlay import outline_thickness, shade

MAX_HALVINGS = 4
"""How often an image may be halved before what remains is scaled: images up to 32 times the network's size."""

_PACKED, _YUV422, _TWO_PLANES, _BAYER = range(4)
_PACKING: dict[str, tuple[int, int, int, int, int]] = {
    # packing, bytes per pixel, and the three places that ``at0..2`` in ``frame.cuh`` speaks of
    "rgb8": (_PACKED, 3, 0, 1, 2),
    "bgr8": (_PACKED, 3, 2, 1, 0),
    "rgba8": (_PACKED, 4, 0, 1, 2),
    "bgra8": (_PACKED, 4, 2, 1, 0),
    "mono8": (_PACKED, 1, 0, 0, 0),
    "mono16": (_PACKED, 2, 1, 1, 1),
    "yuv422": (_YUV422, 2, 1, 0, 2),
    "uyvy": (_YUV422, 2, 1, 0, 2),
    "yuv422_yuy2": (_YUV422, 2, 0, 1, 3),
    "yuyv": (_YUV422, 2, 0, 1, 3),
    "nv12": (_TWO_PLANES, 1, 0, 0, 1),
    "nv21": (_TWO_PLANES, 1, 0, 1, 0),
    "bayer_rggb8": (_BAYER, 1, 0, 0, 0),
    "bayer_bggr8": (_BAYER, 1, 1, 1, 0),
    "bayer_gbrg8": (_BAYER, 1, 1, 0, 0),
    "bayer_grbg8": (_BAYER, 1, 0, 1, 0),
}


@dataclass(frozen=True)
class Tables:
    """Bytes to copy to the device, what lies where in them, and the numbers that go with them into a ``FRAME``.

    Attributes:
        blob: uint8 (nbytes,).
        layout: offset of every table; its names are fields of ``FRAME``.
        numbers: further fields of ``FRAME``.
    """

    blob: NDArray[np.uint8]
    layout: Layout
    numbers: dict[str, int]


def image_numbers(image: CameraImage) -> dict[str, int]:
    """How the bytes of a camera image are packed, as fields of ``FRAME``."""
    packing, pixel_bytes, at0, at1, at2 = _PACKING[image.encoding]
    if image.encoding == "mono16" and image.big_endian:
        at0 = at1 = at2 = 0
    return {
        "packing": packing,
        "pixel_bytes": pixel_bytes,
        "at0": at0,
        "at1": at1,
        "at2": at2,
        "raw_w": image.width,
        "raw_h": image.height,
        "raw_step": image.step,
    }


def geometry_tables(geometry: Geometry, sizes: Sizes, output_resolution: str) -> Tables:
    """Everything that follows from one camera size, for preprocessing and fusion.

    Args:
        geometry: where the camera image lies in the network.
        sizes: the network's.
        output_resolution: ``native`` or ``network``, as ``FusionOptions`` has it.

    Raises:
        ValueError: the image has to be halved more than ``MAX_HALVINGS`` times.
    """
    (net_w, net_h), (map_w, map_h), (cell_w, cell_h) = sizes.network, sizes.maps, sizes.cells
    across, down = geometry.axes(net_w // map_w)
    scaling = _scaling(geometry)
    window_x, window_y = across.window, down.window
    width, height = geometry.native
    if output_resolution == "native":
        out_columns, out_rows = _place(across.cells, across.shares), _place(down.cells, down.shares)
        view_columns, view_rows = (np.arange(size, dtype=np.int32) for size in (width, height))
    else:
        out_columns, out_rows = (
            _place(np.arange(window.start, window.stop, dtype=np.int32), 0) for window in (window_x, window_y)
        )
        extent = geometry.in_cells(net_w // map_w)
        view_columns = shown(extent.x, extent.width, len(out_columns), width)
        view_rows = shown(extent.y, extent.height, len(out_rows), height)
    arrays: dict[str, NDArray[Any]] = {
        "taps_x": scaling.taps_x,
        "taps_y": scaling.taps_y,
        "x_starts": across.starts,
        "y_starts": down.starts,
        "column_cell": _cell_of(map_w, cell_w),
        "row_cell": _cell_of(map_h, cell_h),
        "cell_columns": _first_of(map_w, cell_w),
        "cell_rows": _first_of(map_h, cell_h),
        "middle_x": ((np.arange(cell_w) + 0.5) * (net_w / cell_w) - 0.5).astype(np.float32),
        "middle_y": ((np.arange(cell_h) + 0.5) * (net_h / cell_h) - 0.5).astype(np.float32),
        "out_columns": out_columns,
        "out_rows": out_rows,
        "view_columns": view_columns,
        "view_rows": view_rows,
    }
    numbers: dict[str, int] = {
        "net_w": net_w,
        "net_h": net_h,
        "x0": geometry.x0,
        "y0": geometry.y0,
        "content_w": geometry.content_width,
        "content_h": geometry.content_height,
        "halvings": scaling.halvings,
        "interpolated": int(scaling.interpolated),
        "mean_of": scaling.mean_of,
        "map_w": map_w,
        "map_h": map_h,
        "win_x": window_x.start,
        "win_y": window_y.start,
        "win_w": window_x.stop - window_x.start,
        "win_h": window_y.stop - window_y.start,
        "cell_w": cell_w,
        "cell_h": cell_h,
        "channels": sizes.channels,
        "out_w": len(out_columns),
        "out_h": len(out_rows),
        "moved": int(output_resolution == "native" and are_moved(geometry, net_w // map_w)),
        "outline": outline_thickness(geometry.native),
    }
    return _pack(arrays, numbers)


def label_tables(labels: LabelSet) -> Tables:
    """Everything that follows from the label set: which classes are things, and the overlay's colours."""
    class_channel = np.full(256, 255, np.uint8)
    channel_class = np.zeros(CHANNELS, np.uint8)
    shades = np.zeros((max(1, len(labels.things)), PANOPTIC_DIVISOR, 3), np.uint8)
    for channel, label in enumerate(labels.things):
        class_channel[label.id] = channel
        channel_class[channel] = label.id
        shades[channel] = [shade(label.color, number) for number in range(PANOPTIC_DIVISOR)]
    background = [label.id for label in labels if label.name == "background"]
    arrays: dict[str, NDArray[Any]] = {
        "class_channel": class_channel,
        "channel_class": channel_class,
        "colors": labels.palette,
        "shades": shades,
        "leads": LEADS.astype(np.uint8),
    }
    return _pack(arrays, {"labels": len(labels), "background": background[0] if background else -1})


def _pack(arrays: dict[str, NDArray[Any]], numbers: dict[str, int]) -> Tables:
    layout = lay_out({name: array.nbytes for name, array in arrays.items()})
    blob = np.zeros(layout.nbytes, np.uint8)
    for name, array in arrays.items():
        offset = layout.offsets[name]
        blob[offset : offset + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return Tables(blob, layout, numbers)


def _place(cell: NDArray[np.int32], shares: NDArray[np.int8] | int) -> NDArray[np.int32]:
    """A map column, and where in it the middle of a pixel lies, as ``write_maps`` takes it apart."""
    return np.asarray(2 * SHARES * cell + SHARES // 2 + shares, np.int32)


def _cell_of(pixels: int, cells: int) -> NDArray[np.int32]:
    return (np.arange(pixels, dtype=np.int64) * cells // pixels).astype(np.int32)


def _first_of(pixels: int, cells: int) -> NDArray[np.int32]:
    return np.searchsorted(_cell_of(pixels, cells), np.arange(cells + 1)).astype(np.int32)


@dataclass(frozen=True)
class _Scaling:
    """How ``Preprocessor`` scales: halvings, then interpolation or means by the taps of both axes."""

    halvings: int
    interpolated: bool
    taps_x: NDArray[np.void]
    taps_y: NDArray[np.void]
    mean_of: int = 1


def _scaling(geometry: Geometry) -> _Scaling:
    (wide, tall), (width, height) = geometry.native, (geometry.content_width, geometry.content_height)
    halvings = 0
    while (shrink := wide >= 2 * width and tall >= 2 * height) and not (wide % 2 or tall % 2):
        wide, tall, halvings = wide // 2, tall // 2, halvings + 1
    if halvings > MAX_HALVINGS:
        raise ValueError(f"the kernels halve an image {MAX_HALVINGS} times, got {geometry.native} for {width}x{height}")
    if (wide, tall) == (width, height):
        return _Scaling(halvings, False, _whole(width, 1), _whole(height, 1))
    if not shrink:
        return _Scaling(halvings, True, _linear(wide, width, True), _linear(tall, height, False))
    if wide % width or tall % height:
        return _Scaling(halvings, False, _area(wide, width), _area(tall, height))
    across, down = wide // width, tall // height
    return _Scaling(halvings, False, _whole(width, across), _whole(height, down), across * down)


def _whole(size: int, each: int) -> NDArray[np.void]:
    """``each`` source columns under every target column, summed."""
    taps = np.ones(size, TAP)
    taps["first"] = np.arange(size) * each
    taps["last"] = taps["first"] + each - 1
    return taps


def _linear(source: int, size: int, across: bool) -> NDArray[np.void]:
    """cv2's INTER_LINEAR of 8-bit images: half-pixel centres, weights in 1/2048.

    Beyond the first and last column it takes that column alone; beyond the first and last row it weighs that row
    with itself, which rounds differently.
    """
    place = ((np.arange(size) + 0.5) * (1.0 / (size / source)) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int32)
    share = (place - first).astype(np.float32)
    if across:
        share[(first < 0) | (first >= source - 1)] = 0
    taps = np.zeros(size, TAP)
    taps["first"] = np.clip(first, 0, source - 1)
    taps["last"] = np.clip(first + 1, 0, source - 1)
    taps["w_first"] = np.rint((np.float32(1) - share) * np.float32(2048))
    taps["w_last"] = np.rint(share * np.float32(2048))
    return taps


def _area(source: int, size: int) -> NDArray[np.void]:
    """cv2's INTER_AREA: the source columns under each target column, weighed by how much of them it covers."""
    scale = 1.0 / (size / source)
    begin = np.arange(size) * scale
    end = begin + scale
    covered = np.minimum(scale, source - begin)
    last_whole = np.minimum(np.floor(end).astype(np.int32), source - 1)
    first_whole = np.minimum(np.ceil(begin).astype(np.int32), last_whole)
    taps = np.zeros(size, TAP)
    between = (1.0 / covered).astype(np.float32)
    head = first_whole - begin > 1e-3
    tail = end - last_whole > 1e-3
    taps["first"] = first_whole - head
    taps["last"] = last_whole - 1 + tail
    w_first = np.where(head, ((first_whole - begin) / covered).astype(np.float32), between)
    w_last = np.where(
        tail, (np.minimum(np.minimum(end - last_whole, 1.0), covered) / covered).astype(np.float32), between
    )
    taps["w_first"], taps["w_between"], taps["w_last"] = w_first, between, w_last
    return taps
