"""The letterbox: where a camera image lies in the network's input, and the exact way back.

Both axes are independent, so the way back is two tables: for every native column and row, the network column
and row it is sampled from. Everything else (areas, boxes, the fast ``restore``) is derived from these two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.frame import Box, Extent

Pixel = TypeVar("Pixel", np.uint8, np.uint16)

SHARES = 16
"""Parts of a cell in which ``Axis.shares`` says where a pixel is in it."""


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of the way back, in cells of ``stride`` network pixels.

    Attributes:
        cells: int32 (native,) the cell each native column (or row) is sampled from; never decreasing.
        starts: int32 (network / stride + 1,): those sampled from cell c are the native columns ``starts[c]``
            up to but excluding ``starts[c + 1]``.
        weights: int32 (network / stride,) how many native columns that is; 0 in the padding.
        shares: int8 (native,) how far the middle of each native column is from the middle of its cell, -8..8 parts of
            the cell, of which it has ``SHARES``.
    """

    cells: NDArray[np.int32]
    starts: NDArray[np.int32]
    weights: NDArray[np.int32]
    shares: NDArray[np.int8]

    @cached_property
    def window(self) -> slice:
        """The cells that any native column is sampled from."""
        return slice(int(self.cells[0]), int(self.cells[-1]) + 1)

    @cached_property
    def gather(self) -> NDArray[np.intp]:
        """``cells`` counted from the start of ``window``."""
        return self.cells.astype(np.intp) - int(self.cells[0])

    @cached_property
    def is_resize(self) -> bool:
        """Whether cv2's resize of ``window`` gathers precisely ``cells``; else it is done by table."""
        found = nearest(self.window.stop - self.window.start, len(self.cells))
        return np.array_equal(found, self.gather)


@dataclass(frozen=True)
class Geometry:
    """How one native image size sits in one network size. Build it with ``Geometry.letterbox``.

    Attributes:
        native: (width, height) of the camera image.
        network: (width, height) of the network's input.
        x0, y0: network column and row of the content's first pixel.
        content_width, content_height: size of the scaled image inside the network's input.
    """

    native: tuple[int, int]
    network: tuple[int, int]
    x0: int
    y0: int
    content_width: int
    content_height: int
    _axes: dict[int, tuple[Axis, Axis]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @staticmethod
    def letterbox(native: tuple[int, int], network: tuple[int, int]) -> Geometry:
        """Scale to fit with the aspect kept, centred, at least one pixel each way. Cached by the arguments.

        Raises:
            ValueError: a size is not positive.
        """
        return _letterbox(native, network)

    def axes(self, stride: int = 1) -> tuple[Axis, Axis]:
        """The horizontal and the vertical axis in cells of ``stride`` network pixels.

        Raises:
            ValueError: ``stride`` does not divide the network's size.
        """
        found = self._axes.get(stride)
        if found is None:
            if stride < 1 or self.network[0] % stride or self.network[1] % stride:
                raise ValueError(f"stride must divide the network size {self.network}, got {stride}")
            (width, height), (net_width, net_height) = self.native, self.network
            found = (
                _axis(self.x0, self.content_width, width, stride, net_width // stride),
                _axis(self.y0, self.content_height, height, stride, net_height // stride),
            )
            self._axes[stride] = found
        return found

    def in_cells(self, stride: int) -> Extent:
        """Where the content lies in the cells that hold it: at cells of several pixels, seldom from edge to edge."""
        across, down = self.axes(stride)
        x, y = self.x0 / stride - across.window.start, self.y0 / stride - down.window.start
        return Extent(x, y, self.content_width / stride, self.content_height / stride)

    def native_box(self, col_first: int, col_last: int, row_first: int, row_last: int, stride: int = 1) -> Box:
        """The native pixels sampled from an inclusive range of cells: exact, O(1).

        Width or height is 0 where there are none: in the padding, and in some cells where the camera is
        smaller than the network.
        """
        across, down = self.axes(stride)
        x, y = int(across.starts[col_first]), int(down.starts[row_first])
        return Box(x, y, int(across.starts[col_last + 1]) - x, int(down.starts[row_last + 1]) - y)

    def restore(self, network_map: NDArray[Pixel], out: NDArray[Pixel] | None = None) -> NDArray[Pixel]:
        """Bring a network map to native size: ``result[y, x] == network_map[down.cells[y], across.cells[x]]``, by the
        axes ``axes(k)``.

        Args:
            network_map: uint8 or uint16 (H_net / k, W_net / k), k whole.
            out: (H, W) of the same dtype, written and returned; allocated when None.

        Raises:
            ValueError: shape or dtype of a map does not fit.
        """
        across, down = self.axes(self._stride_of(network_map))
        width, height = self.native
        if out is not None and (out.shape != (height, width) or out.dtype != network_map.dtype):
            raise ValueError(f"out must be {network_map.dtype} {height, width}, got {out.dtype} {out.shape}")
        content = network_map[down.window, across.window]
        # Columns first: they are the dear part, and there are fewer rows before the rows are repeated.
        if across.is_resize:
            wide = np.empty((content.shape[0], width), network_map.dtype)
            cv2.resize(content, (width, content.shape[0]), dst=wide, interpolation=cv2.INTER_NEAREST_EXACT)
        else:
            wide = np.take(content, across.gather, axis=1, mode="clip")
        return np.take(wide, down.gather, axis=0, out=out, mode="clip")  # "clip" writes to out without a copy

    def _stride_of(self, network_map: NDArray[Any]) -> int:
        width, height = self.network
        if network_map.ndim == 2 and network_map.dtype in (np.uint8, np.uint16) and network_map.size:
            stride: int = height // network_map.shape[0]
            if network_map.shape == (height / stride, width / stride):
                return stride
        raise ValueError(
            f"a network map must be uint8 or uint16 of shape {height, width} or a whole fraction of it, "
            f"got {network_map.dtype} {network_map.shape}"
        )


@lru_cache(maxsize=64)
def _letterbox(native: tuple[int, int], network: tuple[int, int]) -> Geometry:
    (width, height), (net_width, net_height) = native, network
    if min(width, height, net_width, net_height) < 1:
        raise ValueError(f"sizes must be positive, got native {native}, network {network}")
    if width * net_height >= height * net_width:
        content_width, content_height = net_width, max(1, (2 * height * net_width + width) // (2 * width))
    else:
        content_width, content_height = max(1, (2 * width * net_height + height) // (2 * height)), net_height
    x0, y0 = (net_width - content_width) // 2, (net_height - content_height) // 2
    return Geometry(native, network, x0, y0, content_width, content_height)


def nearest(source: int, size: int) -> NDArray[np.int32]:
    """int32 (size,): which of ``source`` pixels each of ``size`` takes, by the operation ``restore`` uses."""
    positions = np.arange(source, dtype=np.uint16)[np.newaxis]
    taken = cv2.resize(positions, (size, 1), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(taken[0], np.int32)


def shown(start: float, length: float, cells: int, native: int) -> NDArray[np.int32]:
    """int32 (native,): which of ``cells`` the middle of each pixel lies in, of an image that begins at ``start`` and is
    ``length`` cells long, as ``Extent`` says; where it fills them, ``nearest``."""
    if (start, length) == (0, cells):
        return nearest(cells, native)
    middles = start + (np.arange(native) + 0.5) * (length / native)
    taken: NDArray[np.int32] = np.clip(middles, 0, cells - 1).astype(np.int32)
    return taken


def _axis(begin: int, content: int, native: int, stride: int, count: int) -> Axis:
    """Of ``native`` pixels over ``content`` network pixels from ``begin`` on, in ``count`` cells."""
    cells = (begin + nearest(content, native)) // stride
    starts = np.searchsorted(cells, np.arange(count + 1, dtype=np.int32)).astype(np.int32)
    weights = np.diff(starts)
    # In whole numbers: of floats, what lies in the middle between two parts would fall to either.
    beyond = (2 * np.arange(native) + 1) * content + (2 * (begin - stride * cells.astype(np.int64)) - stride) * native
    half = SHARES // 2
    shares = np.clip(np.rint(SHARES * beyond / (2 * native * stride)), -half, half).astype(np.int8)
    for table in (cells, starts, weights, shares):
        table.setflags(write=False)  # shared through the cache
    return Axis(cells, starts, weights, shares)
