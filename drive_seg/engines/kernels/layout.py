"""What the kernels are told and what they answer, as numpy records: the C structs of ``frame.cuh``, byte for byte.

No GPU is needed here: addresses are integers that whoever owns the device puts in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.cores import SUMS, cores_of
from drive_seg.frame import Box, Instance, RawOutputs
from drive_seg.labels import PANOPTIC_DIVISOR, LabelSet

SEGMENTS = 4096
"""Peaks and connected components one image may have; more raise ``TOO_MANY_SEGMENTS``."""
CANDIDATES = 4096
"""Cells that may reach the centre threshold in one image; more raise ``TOO_MANY_CANDIDATES``."""
CHANNELS = 64
"""Thing classes a label set may have."""
USUAL_INSTANCES = 256
"""Records that travel with the maps in one copy; the rest are fetched when the header counts more."""
TOO_MANY_CANDIDATES, TOO_MANY_SEGMENTS = 1, 2
"""Bits of ``Header.flags``. Such a frame's maps are not to be used: the CPU's PostProcessor has no such limits."""

TAP = np.dtype(
    [("first", np.int32), ("last", np.int32)] + [(name, np.float32) for name in ("w_first", "w_between", "w_last")]
)
STATE = np.dtype(
    [(name, np.uint32) for name in ("candidates", "find_ticket", "measure_ticket", "segments", "flags")]
    + [("first_peak", np.uint32, (CHANNELS + 1,))]
)
SEGMENT = np.dtype(
    [("size_and_certainty", np.uint64), ("area", np.uint32), ("first", np.uint32)]
    + [(name, np.int32) for name in ("x_begin", "x_end", "y_begin", "y_end")]
    + [(name, np.uint64) for name in SUMS]
    + [("heat", np.float32), ("channel", np.int32), ("value", np.uint32), ("padding", np.uint32)]
    + [("score", np.float64)]
)
INSTANCE = np.dtype(
    [("panoptic_id", np.uint32), ("area", np.uint32)]
    + [(name, np.int32) for name in ("x", "y", "width", "height")]
    + [("score", np.float64)]
    + [(name, np.uint64) for name in SUMS]
)
HEADER = np.dtype(
    [
        ("instances", np.uint32),
        ("flags", np.uint32),
        ("first_instance", np.uint32, (CHANNELS + 1,)),
        ("padding", np.uint32),
    ]
)

_ADDRESSES = (
    *("raw", "input", "taps_x", "taps_y", "semantic", "confidence", "centers", "offsets"),
    *("x_starts", "y_starts", "column_cell", "row_cell", "cell_columns", "cell_rows", "middle_x", "middle_y"),
    *("out_columns", "out_rows", "view_columns", "view_rows", "class_channel", "channel_class", "colors", "shades"),
    *("leads", "state", "candidates", "segments", "peak_x", "peak_y", "grid", "parent", "claimed", "order"),
    *("mask", "panoptic", "out_confidence", "header", "instances", "overlay"),
)
_NUMBERS = (
    *("packing", "raw_w", "raw_h", "raw_step", "pixel_bytes", "at0", "at1", "at2"),
    *("net_w", "net_h", "x0", "y0", "content_w", "content_h", "halvings", "interpolated", "mean_of"),
    *("map_w", "map_h", "win_x", "win_y", "win_w", "win_h", "cell_w", "cell_h", "channels", "labels"),
    *("out_w", "out_h", "moved", "outline", "background"),
)
FRAME = np.dtype(
    [(name, np.uint64) for name in _ADDRESSES]
    + [("score_threshold", np.float64), ("center_threshold", np.float32), ("min_area", np.uint32)]
    + [("max_centers", np.int32)]
    + [(name, np.int32) for name in _NUMBERS],
    align=True,
)
"""One image of a batch. ``np.zeros(batch, FRAME)`` is the argument of every kernel once it is on the device."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a network, which fix what is allocated.

    Attributes:
        network: (width, height) of the input.
        maps: (width, height) of semantic and confidence.
        cells: (width, height) of centers and offsets.
        channels: thing classes.
    """

    network: tuple[int, int]
    maps: tuple[int, int]
    cells: tuple[int, int]
    channels: int

    def __post_init__(self) -> None:
        if not 0 <= self.channels <= CHANNELS:
            raise ValueError(f"the kernels take at most {CHANNELS} thing classes, got {self.channels}")
        width, height = self.maps
        if width * height >= 1 << 24:
            raise ValueError(f"the kernels take maps of less than {1 << 24} pixels, got {width}x{height}")

    @classmethod
    def of(cls, network: tuple[int, int], raw: RawOutputs) -> Sizes:
        """The sizes of what an engine returned."""
        (map_h, map_w), (channels, cell_h, cell_w) = raw.semantic.shape[1:], raw.centers.shape[1:]
        return cls(network, (map_w, map_h), (cell_w, cell_h), channels)


@dataclass(frozen=True)
class Layout:
    """Named parts of one allocation.

    Attributes:
        offsets: byte offset of every part, a multiple of 256.
        nbytes: size of the allocation.
        usual_bytes: how much of it one copy to the host takes.
    """

    offsets: dict[str, int]
    nbytes: int
    usual_bytes: int = 0

    def addresses(self, base: int) -> dict[str, int]:
        """The address of every part in an allocation at ``base``."""
        return {name: base + offset for name, offset in self.offsets.items()}


def lay_out(sizes: dict[str, int]) -> Layout:
    """Parts of so many bytes, one behind the other, each at a multiple of 256 as every vector access wants it."""
    offsets, end = {}, 0
    for name, nbytes in sizes.items():
        offsets[name] = end
        end += -(-nbytes // 256) * 256
    return Layout(offsets, max(end, 256))


def workspace(sizes: Sizes) -> Layout:
    """Scratch of one image. It must be zeroed once when allocated, and again after a frame that failed."""
    cells = sizes.cells[0] * sizes.cells[1] * sizes.channels
    return lay_out(
        {
            "state": STATE.itemsize,
            "candidates": CANDIDATES * 8,
            "segments": SEGMENTS * SEGMENT.itemsize,
            "peak_x": SEGMENTS * 4,
            "peak_y": SEGMENTS * 4,
            "grid": cells * 4,
            "parent": cells * 4,
            "claimed": cells,
            "order": SEGMENTS * 4,
        }
    )


@lru_cache(maxsize=64)
def results(width: int, height: int, confidence: bool) -> Layout:
    """The answer for one image of ``out`` size: ``mask``, ``panoptic``, ``out_confidence``, ``header``, ``instances``.

    The first ``usual_bytes`` hold everything but the records from ``USUAL_INSTANCES`` on.
    """
    parts = {"mask": width * height, "panoptic": 2 * width * height}
    if confidence:
        parts["out_confidence"] = width * height
    layout = lay_out({**parts, "header": HEADER.itemsize, "instances": SEGMENTS * INSTANCE.itemsize})
    usual = layout.offsets["instances"] + USUAL_INSTANCES * INSTANCE.itemsize
    return Layout(layout.offsets, layout.nbytes, usual)


@dataclass(frozen=True)
class Outcome:
    """One image's results on the host; the maps are views of the block they were read from.

    Attributes:
        mask: uint8 (H, W).
        panoptic: uint16 (H, W).
        confidence: uint8 (H, W), or None when it was not asked for.
        instances: in the order of their ids.
        flags: not 0 where the kernels' limits were exceeded; the rest is then not to be used.
    """

    mask: NDArray[np.uint8]
    panoptic: NDArray[np.uint16]
    confidence: NDArray[np.uint8] | None
    instances: tuple[Instance, ...]
    flags: int


def needed_bytes(block: NDArray[np.uint8], layout: Layout) -> int:
    """How many bytes of the results an image's answer takes, by its header: seldom more than ``usual_bytes``.

    Args:
        block: uint8, the first ``usual_bytes`` of the results.
        layout: ``results(...)``.
    """
    return max(layout.usual_bytes, layout.offsets["instances"] + int(_header(block, layout)[0]) * INSTANCE.itemsize)


def read(block: NDArray[np.uint8], layout: Layout, width: int, height: int, labels: LabelSet) -> Outcome:
    """Take the results of one image apart.

    Args:
        block: uint8 (at least ``needed_bytes``,), the beginning of the results.
        layout: ``results(width, height, ...)``.
        width, height: of the maps.
        labels: the classes.

    Raises:
        ValueError: there are more instances than the block has records.
    """
    count, flags = _header(block, layout)
    needed = needed_bytes(block, layout)
    if block.size < needed:
        raise ValueError(f"{count} instances take {needed} bytes of results, got {block.size}")

    def pixels(name: str, dtype: type[np.generic]) -> NDArray[Any]:
        begin = layout.offsets[name]
        nbytes = width * height * np.dtype(dtype).itemsize
        return block[begin : begin + nbytes].view(dtype).reshape(height, width)

    begin = layout.offsets["instances"]
    records = block[begin : begin + count * INSTANCE.itemsize].view(INSTANCE)
    return Outcome(
        mask=pixels("mask", np.uint8),
        panoptic=pixels("panoptic", np.uint16),
        confidence=pixels("out_confidence", np.uint8) if "out_confidence" in layout.offsets else None,
        instances=_instances(records, labels) if flags == 0 else (),
        flags=flags,
    )


def _header(block: NDArray[np.uint8], layout: Layout) -> tuple[int, int]:
    begin = layout.offsets["header"]
    header = block[begin : begin + HEADER.itemsize].view(HEADER)[0]
    return int(header["instances"]), int(header["flags"])


def _instances(records: NDArray[np.void], labels: LabelSet) -> tuple[Instance, ...]:
    cores = cores_of(records["area"].astype(np.float64), np.stack([records[name].astype(np.float64) for name in SUMS]))
    return tuple(
        Instance(
            panoptic_id=ident,
            class_id=ident // PANOPTIC_DIVISOR,
            class_name=labels[ident // PANOPTIC_DIVISOR].name,
            score=score,
            box=Box(x, y, width, height),
            area=area,
            core=core,
        )
        for (ident, area, x, y, width, height, score, *_), core in zip(records.tolist(), cores, strict=True)
    )
