"""What the heads should say about a sample, on the grid of cells.

Cell (i, j) covers pixels 4 i .. 4 i + 3, its middle is (4 i + 1.5, 4 j + 1.5) in pixel-index coordinates. The
middle of an instance is the mass centre of its visible pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drive_seg.network.codes import SETS, VOID
from drive_seg.network.samples import UNKNOWN_INSTANCE, Sample

CELL = 4
MIN_PIXELS = 24
"""Visible pixels below which an instance is left out instead of asked for."""


@dataclass(frozen=True)
class Targets:
    """h = H / 4, w = W / 4.

    codes: uint8 (16, h, w), sub-pixel s of a cell as in ``RawMaps``. heat: float32 (T, h, w), a Gaussian
    around every middle, exactly 1 in its cell. known: bool (T, h, w), where ``heat`` may be asked for.
    offsets: float32 (2, h, w) pixels (dy, dx); pixels: int32 (h, w), visible pixels of the known instance that a cell
    belongs to, 0 in cells of none.
    """

    codes: NDArray[np.uint8]
    heat: NDArray[np.float32]
    known: NDArray[np.bool_]
    offsets: NDArray[np.float32]
    pixels: NDArray[np.int32]


def possible_classes(classes: int) -> NDArray[np.bool_]:
    """bool (256, classes): which classes a pixel with this code may have; all of them for ``VOID``."""
    table = np.zeros((256, classes), np.bool_)
    table[np.arange(classes), np.arange(classes)] = True
    for code, members in SETS.items():
        table[code, list(members)] = True
    table[VOID] = True
    return table


def make_targets(sample: Sample, things: tuple[int, ...], possible: NDArray[np.bool_]) -> Targets:
    """Targets of a sample whose height and width are multiples of 4. ``possible`` is
    ``possible_classes``'s.
    """
    height, width = sample.codes.shape
    h, w = height // CELL, width // CELL
    codes = sample.codes.reshape(h, CELL, w, CELL).transpose(1, 3, 0, 2).reshape(CELL * CELL, h, w)
    cell_codes = sample.codes[1::CELL, 1::CELL]
    counts, middles = _middles(sample.instances, len(sample.classes))
    usable = counts >= MIN_PIXELS
    usable[0] = False
    number = _cell_instances(sample.instances, usable)
    member = number > 0

    cell_class = sample.classes[number]
    known = np.zeros((len(things), h, w), np.bool_)
    for channel, thing in enumerate(things):
        known[channel] = ~possible[cell_codes, thing] | (member & (cell_class == thing))
    heat = np.zeros((len(things), h, w), np.float32)
    for instance in np.flatnonzero(usable):
        if sample.classes[instance] in things:
            channel = things.index(int(sample.classes[instance]))
            _draw_peak(heat[channel], known[channel], middles[instance], int(counts[instance]))

    grid = np.mgrid[0:h, 0:w].astype(np.float32) * CELL + (CELL - 1) / 2
    offsets = (middles[number].transpose(2, 0, 1) - grid) * member
    pixels = np.where(member, counts[number], 0).astype(np.int32)
    return Targets(np.ascontiguousarray(codes), heat, known, offsets.astype(np.float32), pixels)


_SAMPLED = ((1, 1), (2, 2), (0, 3), (3, 0), (0, 0), (3, 3))
"""Pixels of a cell that are looked at, the middle first. At inference every thing pixel asks its cell: one of which an
instance has only a corner must answer as well."""


def _cell_instances(instances: NDArray[np.uint16], usable: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """(H / 4, W / 4) the instance that a cell belongs to, 0 where none of ``usable`` is seen in it."""
    found = np.zeros((instances.shape[0] // CELL, instances.shape[1] // CELL), np.uint16)
    for row, column in _SAMPLED:
        here = instances[row::CELL, column::CELL]
        here = np.where(here == UNKNOWN_INSTANCE, 0, here)
        np.copyto(found, here, where=(found == 0) & usable[here])
    return found


def _middles(instances: NDArray[np.uint16], size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Visible pixels, (size,), and mass centre (y, x), (size, 2), of every instance."""
    rows, columns = np.nonzero((instances > 0) & (instances != UNKNOWN_INSTANCE))
    number = instances[rows, columns]
    counts = np.bincount(number, minlength=size)
    divisor = np.maximum(counts, 1)
    y = np.bincount(number, rows, size) / divisor
    x = np.bincount(number, columns, size) / divisor
    return counts, np.stack((y, x), axis=1).astype(np.float32)


def _draw_peak(heat: NDArray[np.float32], known: NDArray[np.bool_], middle: NDArray[np.float32], pixels: int) -> None:
    """Draw one Gaussian, wider for larger instances; where several overlap the higher value stays."""
    row, column = (int(v) for v in np.clip((middle + 0.5) // CELL, 0, np.array(heat.shape) - 1))
    sigma = max(0.8, float(np.sqrt(pixels)) / CELL / 6)
    reach = int(np.ceil(3 * sigma))
    top, left = max(row - reach, 0), max(column - reach, 0)
    ys = np.arange(top, min(row + reach + 1, heat.shape[0])) - row
    xs = np.arange(left, min(column + reach + 1, heat.shape[1])) - column
    bell = np.exp(-(ys[:, None] ** 2 + xs[None] ** 2) / (2 * sigma**2)).astype(np.float32)
    window = heat[top : top + len(ys), left : left + len(xs)]
    np.maximum(window, bell, out=window)
    known[row, column] = True
