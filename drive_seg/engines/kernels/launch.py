"""Which kernels a frame goes through, in which order and in how many threads.

All have one signature, ``NAME(const Frame* frames)``, and take image n of the batch as ``blockIdx.z``, so that a launch
depends on the sizes alone and can be captured into a CUDA graph. Nothing between them waits for the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from drive_seg.engines.kernels.layout import FRAME, SEGMENTS, Sizes
from drive_seg.postprocess import FusionOptions

Dim3 = tuple[int, int, int]

STRIP = 16
"""Pixels of a map row that one thread of ``measure`` goes through."""


@dataclass(frozen=True)
class Extent:
    """What decides how many threads there are.

    Attributes:
        sizes: the network's.
        batch: images.
        native: the largest camera's (width, height).
        out: the largest result's (width, height).
    """

    sizes: Sizes
    batch: int
    native: tuple[int, int]
    out: tuple[int, int]


@dataclass(frozen=True)
class Kernel:
    """One launch.

    Attributes:
        name: the entry point.
        block: threads of a block.
        grid: blocks, given the extent.
    """

    name: str
    block: Dim3
    grid: Callable[[Extent], Dim3]


def _image(width: int, height: int, batch: int, block: Dim3, per_thread: int) -> Dim3:
    return _blocks(width, block[0] * per_thread), _blocks(height, block[1]), batch


def _blocks(items: int, per_block: int) -> int:
    return max(1, -(-items // per_block))


def _cells(extent: Extent) -> Dim3:
    width, height = extent.sizes.cells
    return _blocks(width * height * extent.sizes.channels, 256), 1, extent.batch


def _strips(extent: Extent) -> Dim3:
    width, height = extent.sizes.maps
    return _blocks(_blocks(width, STRIP) * height, 256), 1, extent.batch


LETTERBOX = Kernel("letterbox", (32, 8, 1), lambda e: _image(*e.sizes.network, e.batch, (32, 8, 1), 4))
"""Camera bytes to the network's input: runs before the network."""

FUSION = (
    Kernel("find_centers", (256, 1, 1), _cells),
    Kernel("assign_cells", (256, 1, 1), _cells),
    Kernel("claim_components", (256, 1, 1), _cells),
    Kernel("number_components", (256, 1, 1), _cells),
    Kernel("measure", (256, 1, 1), _strips),
    Kernel("write_maps", (32, 8, 1), lambda e: _image(*e.out, e.batch, (32, 8, 1), 4)),
)
"""Network outputs to finished maps and instances, in this order on one stream."""

OVERLAY = Kernel("draw_overlay", (32, 8, 1), lambda e: _image(*e.native, e.batch, (32, 8, 1), 1))
"""The overlay's colours, after the fusion and only when asked for."""

FRAME_KERNELS = (LETTERBOX, *FUSION, OVERLAY)
"""All of them in the order of a frame; the network runs after the first."""


def bind(frame: Any, addresses: Iterable[Mapping[str, int]], numbers: Iterable[Mapping[str, float]]) -> None:
    """Fill one record of ``FRAME``.

    Args:
        frame: ``frames[n]`` of an array of dtype ``FRAME``.
        addresses: device addresses by field: ``Layout.addresses`` of workspace, results and tables; and ``raw``,
            ``input``, ``semantic``, ``confidence``, ``centers``, ``offsets``, and ``overlay`` where one is drawn.
        numbers: ``image_numbers(image)`` and the ``numbers`` of both tables.

    Raises:
        KeyError: a name is no field of ``FRAME``.
    """
    known = FRAME.names or ()
    for part in (*addresses, *numbers):
        for name, value in part.items():
            if name not in known:
                raise KeyError(f"FRAME has no field '{name}'")
            frame[name] = value


def set_options(frame: Any, options: FusionOptions) -> None:
    """Write the thresholds into one record of ``FRAME``.

    Raises:
        ValueError: more centres are asked for than the kernels keep.
    """
    if not 0 <= options.max_centers < SEGMENTS:
        raise ValueError(f"max_centers must be below {SEGMENTS} on the GPU, got {options.max_centers}")
    frame["score_threshold"] = options.score_threshold
    frame["center_threshold"] = np.float32(options.center_threshold)
    frame["min_area"] = max(options.min_instance_area, 1)
    frame["max_centers"] = options.max_centers
