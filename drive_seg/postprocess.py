"""Panoptic fusion: semantic map + centres + offsets -> panoptic ids and instances in native pixels.

The grouping is that of Panoptic-DeepLab (Cheng et al., CVPR 2020, section 3.2), class by class: a thing pixel
votes for the place its cell's offset points to and joins the nearest centre of its own class. A connected component
none of whose cells votes near a centre, as where its class has none, is a segment of its own and scores as the lowest
centre there could be: a few wrong pixels far away would otherwise become part of an object and stretch its box to them.

All sums run over *runs* (maximal horizontal stretches of one segment) with the native pixels that each network pixel
stands for: areas, boxes and cores are exact in native pixels without touching the native maps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.cores import cores_of, sums_before
from drive_seg.errors import ConfigError, EngineError
from drive_seg.frame import Frame, Instance, PanopticResult, RawOutputs
from drive_seg.labels import (
    MAX_INSTANCES_PER_CLASS,
    PANOPTIC_DIVISOR,
    PANOPTIC_UNLABELLED,
    UNLABELLED,
    LabelSet,
)
from drive_seg.lanes import LaneFinder
from drive_seg.letterbox import Geometry
from drive_seg.outlines import Outlines, are_moved
from drive_seg.places import places
from drive_seg.ranges import check_number

NEAR_PX, NEAR_SHARE = 16.0, 0.5
"""A vote is near a centre within so many network pixels, or where the object is large within so much of the offset's
length: root of the sum of the squares."""


@dataclass(frozen=True)
class FusionOptions:
    """Thresholds of the fusion.

    Attributes:
        score_threshold: instances whose score is below it become unlabelled. The score is (heat of the centre
            * mean confidence of the segment's pixels) ** 0.75, 0..1: where it is 0.3, objects begin to be right.
        min_instance_area: instances with fewer native pixels become unlabelled.
        output_resolution: ``native`` (camera pixels) or ``network`` (network pixels without the letterbox bars).
        center_threshold: peaks below it are no centres; a connected component far from any scores as this heat.
        max_centers: at most so many of the strongest peaks are used.
        confidence: whether results carry the confidence map.
        lanes: whether results carry the lane boundaries.

    Raises:
        ConfigError: a value is of another kind or out of range.
    """

    score_threshold: float = 0.3
    min_instance_area: int = 64
    output_resolution: str = "native"
    center_threshold: float = 0.3
    max_centers: int = 128
    confidence: bool = False
    lanes: bool = False

    def __post_init__(self) -> None:
        check_number("score_threshold", self.score_threshold, 0, 1)
        check_number("min_instance_area", self.min_instance_area, 0, whole=True)
        check_number("center_threshold", self.center_threshold, 0, 1)
        check_number("max_centers", self.max_centers, 0, whole=True)
        if self.output_resolution not in ("native", "network"):
            raise ConfigError(f"output_resolution must be native or network, got {self.output_resolution!r:.80}")


@dataclass(frozen=True)
class Segments:
    """Thing segments before filtering, numbered from 1; row 0 of every array is 'no segment'.

    Attributes:
        grid: int32 (T * h * w,) segment of each (thing class, cell), 0 where none was needed.
        channel: int (S,) index among the thing classes.
        heat: float32 (S,) heat of the centre, or the centre threshold for a connected component.
    """

    grid: NDArray[np.int32]
    channel: NDArray[np.intp]
    heat: NDArray[np.float32]


class _Tables:
    """What depends only on the image geometry and the maps' strides; made once per camera size."""

    def __init__(
        self,
        geometry: Geometry,
        network: tuple[int, int],
        maps: tuple[int, int],
        cells: tuple[int, int],
        stuff: NDArray[np.bool_],
    ) -> None:
        (width, height), (map_w, map_h), (cell_w, cell_h) = network, maps, cells
        self.geometry = geometry
        self.stride = width // map_w
        across, down = geometry.axes(self.stride)
        self.outlines = Outlines(geometry, self.stride, stuff) if are_moved(geometry, self.stride) else None
        self.extent = geometry.in_cells(self.stride)
        self.content = (down.window, across.window)
        self.row_weight = down.weights
        self.columns_before = across.starts  # native columns left of each map column: a run's width is a difference
        self.column_sums_before, self.row_sums = sums_before(across.starts), np.diff(sums_before(down.starts))
        self.inside = np.zeros((map_h, map_w), np.uint8)
        self.inside[self.content] = 255
        y, x = np.mgrid[:map_h, :map_w]
        self.cell = ((y * cell_h // map_h) * cell_w + x * cell_w // map_w).astype(np.int32).ravel()
        stride_y, stride_x = height / cell_h, width / cell_w
        cy, cx = np.mgrid[:cell_h, :cell_w]
        self.middle_y = ((cy + 0.5) * stride_y - 0.5).astype(np.float32).ravel()
        self.middle_x = ((cx + 0.5) * stride_x - 0.5).astype(np.float32).ravel()


def group(
    needed: NDArray[np.bool_],
    centers: NDArray[np.float32],
    offsets: NDArray[np.float32],
    middle_y: NDArray[np.float32],
    middle_x: NDArray[np.float32],
    options: FusionOptions,
) -> Segments:
    """Assign every needed (class, cell) to the nearest centre of that class, or to its component where none is near.

    Args:
        needed: (T, h * w) cells in which a pixel of the class lies.
        centers: (T, h, w) heat, 0 where there is no peak.
        offsets: (2, h, w) (dy, dx) in network pixels.
        middle_y, middle_x: (h * w,) network coordinates of the cells' middles.
    """
    channels, height, width = centers.shape
    heat = centers.reshape(channels, -1)
    peak_channel, peak_cell = np.nonzero(heat >= options.center_threshold)
    peak_heat = heat[peak_channel, peak_cell]
    if peak_heat.size > options.max_centers:
        keep = np.sort(np.argsort(-peak_heat, kind="stable")[: options.max_centers])
        peak_channel, peak_cell, peak_heat = peak_channel[keep], peak_cell[keep], peak_heat[keep]
    grid = np.zeros((channels, height * width), np.int32)
    segment_channel: list[NDArray[np.intp]] = [np.zeros(1, np.intp), peak_channel]
    segment_heat: list[NDArray[np.float32]] = [np.zeros(1, np.float32), peak_heat]
    count = 1 + peak_heat.size
    offset_y, offset_x = offsets.reshape(2, -1)
    for channel in range(channels):
        cells = np.flatnonzero(needed[channel])
        if not cells.size:
            continue
        peaks = np.flatnonzero(peak_channel == channel)
        near = np.zeros(cells.size, np.bool_)
        if peaks.size:
            to_y, to_x = offset_y[cells], offset_x[cells]
            dy = (middle_y[cells] + to_y)[:, None] - middle_y[peak_cell[peaks]]
            dx = (middle_x[cells] + to_x)[:, None] - middle_x[peak_cell[peaks]]
            away = dy * dy + dx * dx
            nearest = np.argmin(away, axis=1)
            grid[channel, cells] = 1 + peaks[nearest]
            reach = np.float32(NEAR_PX**2) + np.float32(NEAR_SHARE**2) * (to_y * to_y + to_x * to_x)
            near = away[np.arange(cells.size), nearest] <= reach
            if near.all():
                continue
        image = needed[channel].reshape(height, width).view(np.uint8)
        found, components = cv2.connectedComponents(image, connectivity=8, ltype=cv2.CV_32S)
        component = components.reshape(-1)[cells]
        alone = np.ones(found, np.bool_)
        alone[0] = False
        alone[component[near]] = False
        left = alone[component]
        grid[channel, cells[left]] = (np.cumsum(alone) + (count - 1))[component[left]]
        new = int(np.count_nonzero(alone))
        segment_channel.append(np.full(new, channel, np.intp))
        segment_heat.append(np.full(new, options.center_threshold, np.float32))
        count += new
    return Segments(grid.reshape(-1), np.concatenate(segment_channel), np.concatenate(segment_heat))


class PostProcessor:
    """Raw network maps of one image in, PanopticResult out.

    Args:
        labels: the classes.
        network_size: (width, height) of the network input.
        options: thresholds; may be replaced between frames.
        allocate: ``allocate(frame, name, shape, dtype)`` gives the array a result is written into.
    """

    def __init__(
        self,
        labels: LabelSet,
        network_size: tuple[int, int],
        options: FusionOptions,
        allocate: Callable[[Frame, str, tuple[int, int], Any], NDArray[Any]],
    ) -> None:
        self.options = options
        self._labels = labels
        self._network = network_size
        self._allocate = allocate
        self._find_lanes = LaneFinder(labels)
        self._tables: dict[tuple[Geometry, tuple[int, int], tuple[int, ...]], _Tables] = {}
        ids = np.arange(256)
        known = ids < len(labels)
        self._thing_lut = np.where(labels.is_thing, 255, 0).astype(np.uint8)
        self._mask_lut = np.where(known, ids, UNLABELLED).astype(np.uint8)
        self._panoptic_lut = np.where(known, ids, PANOPTIC_UNLABELLED).astype(np.uint16)
        self._channel_of = np.zeros(256, np.int32)
        self._stuff = known & ~labels.is_thing
        self._thing_ids = np.array([label.id for label in labels.things], np.intp)
        self._channel_of[self._thing_ids] = np.arange(self._thing_ids.size)

    def __call__(self, frame: Frame, raw: RawOutputs, index: int, geometry: Geometry) -> PanopticResult:
        """Fuse image ``index`` of a batch and bring it back to the camera's pixels.

        Raises:
            EngineError: the maps are not of this network size, or not of these classes.
        """
        options, tables = self.options, self._tables_for(geometry, raw)
        native = options.output_resolution == "native"
        semantic = raw.semantic[index]
        if int(semantic.max()) < len(self._labels):  # as almost always: tables take ten times as long
            mask, panoptic = semantic.copy(), semantic.astype(np.uint16, order="C")
        else:
            mask = np.asarray(cv2.LUT(semantic, self._mask_lut), np.uint8)
            panoptic = np.asarray(cv2.LUT(semantic, self._panoptic_lut), np.uint16)
        instances = self._fuse_things(mask, panoptic, raw, index, tables)
        maps = self._output(frame, "mask", mask, tables), self._output(frame, "panoptic", panoptic, tables)
        if native and tables.outlines:
            at, classes = tables.outlines(semantic, raw.confidence[index])
            for whole in maps:
                whole.reshape(-1)[at] = classes
        return PanopticResult(
            frame=frame,
            mask=maps[0],
            panoptic=maps[1],
            instances=instances,
            native_size=geometry.native,
            confidence=self._output(frame, "confidence", raw.confidence[index], tables) if options.confidence else None,
            lanes=self._find_lanes(mask[tables.content], geometry.native, tables.extent) if options.lanes else None,
            extent=None if native else tables.extent,
        )

    def _fuse_things(
        self, mask: NDArray[np.uint8], panoptic: NDArray[np.uint16], raw: RawOutputs, index: int, tables: _Tables
    ) -> tuple[Instance, ...]:
        """Write instance ids into ``panoptic`` and 255/65535 where a thing is given up; both at map size."""
        thing = np.asarray(cv2.bitwise_and(cv2.LUT(mask, self._thing_lut), tables.inside), np.uint8)
        pixels = places(thing)
        if not pixels.size:
            return ()
        segments, segment = self._segments(mask, pixels, raw, index, tables)
        count = segments.heat.size
        runs = _Runs.of(pixels, segment, mask.shape[1], tables)

        area = np.bincount(runs.segment, runs.native, count)
        size = np.bincount(runs.segment, runs.last - runs.first + 1, count)
        certainty = np.add.reduceat(raw.confidence[index].reshape(-1)[pixels], runs.starts, dtype=np.uint32)
        mean_confidence = np.bincount(runs.segment, certainty, count) / (255.0 * np.maximum(size, 1))
        root = np.sqrt(np.clip(segments.heat, 0.0, 1.0) * mean_confidence)
        score = root * np.sqrt(root)
        kept = (area >= max(self.options.min_instance_area, 1)) & (score >= self.options.score_threshold)

        values = np.full(count, PANOPTIC_UNLABELLED, np.uint16)
        boxes, first_run = _extents(runs, count)
        ordered = self._number(values, kept, segments.channel, score, first_run)
        sums = np.stack([np.bincount(runs.segment, part, count)[ordered] for part in runs.sums(tables)])
        cores = cores_of(area[ordered], sums)
        panoptic.reshape(-1)[pixels] = values[segment]
        if not kept[runs.segment].all():
            mask.reshape(-1)[pixels[~kept[segment]]] = UNLABELLED
        found = []
        for s, core in zip(ordered, cores, strict=True):
            label = self._labels[int(values[s]) // PANOPTIC_DIVISOR]
            left, right, top, bottom = (int(edge) for edge in boxes[s])
            box = tables.geometry.native_box(left, right, top, bottom, tables.stride)
            found.append(Instance(int(values[s]), label.id, label.name, float(score[s]), box, int(area[s]), core=core))
        return tuple(found)

    def _segments(
        self, mask: NDArray[np.uint8], pixels: NDArray[np.intp], raw: RawOutputs, index: int, tables: _Tables
    ) -> tuple[Segments, NDArray[np.int32]]:
        """The segments of the thing pixels, and which of them each pixel belongs to."""
        channels, cell_h, cell_w = raw.centers.shape[1:]
        cell_count = cell_h * cell_w
        key = self._channel_of[mask.reshape(-1)[pixels]] * cell_count + tables.cell[pixels]
        needed = np.zeros((channels, cell_count), np.bool_)
        needed.reshape(-1)[key] = True
        centers, offsets = raw.centers[index], raw.offsets[index]
        segments = group(needed, centers, offsets, tables.middle_y, tables.middle_x, self.options)
        return segments, segments.grid[key]

    def _number(
        self,
        values: NDArray[np.uint16],
        kept: NDArray[np.bool_],
        channel_of: NDArray[np.intp],
        score: NDArray[np.float64],
        first_run: NDArray[np.intp],
    ) -> list[int]:
        """Give the kept segments their panoptic ids and return them in id order.

        k counts within the class, best score first; of equals the one that comes first in raster order.
        """
        ordered: list[int] = []
        for channel, class_id in enumerate(self._thing_ids):
            mine = np.flatnonzero(kept & (channel_of == channel))
            mine = mine[np.lexsort((first_run[mine], -score[mine]))]
            kept[mine[MAX_INSTANCES_PER_CLASS:]] = False
            mine = mine[:MAX_INSTANCES_PER_CLASS]
            values[mine] = class_id * PANOPTIC_DIVISOR + 1 + np.arange(mine.size)
            ordered.extend(int(s) for s in mine)
        return ordered

    def _output(self, frame: Frame, name: str, small: NDArray[Any], tables: _Tables) -> NDArray[Any]:
        if self.options.output_resolution == "native":
            width, height = tables.geometry.native
            return tables.geometry.restore(small, self._allocate(frame, name, (height, width), small.dtype))
        content = small[tables.content]
        out = self._allocate(frame, name, content.shape, small.dtype)
        np.copyto(out, content)
        return out

    def _tables_for(self, geometry: Geometry, raw: RawOutputs) -> _Tables:
        map_h, map_w = raw.semantic.shape[1:]
        cell_h, cell_w = raw.centers.shape[2:]
        key = (geometry, (map_w, map_h), raw.centers.shape[1:])
        tables = self._tables.get(key)
        if tables is None:
            self._check(raw)
            if len(self._tables) >= 16:  # cameras have few sizes; a folder of photographs has many
                self._tables.clear()
            tables = _Tables(geometry, self._network, (map_w, map_h), (cell_w, cell_h), self._stuff)
            self._tables[key] = tables
        return tables

    def _check(self, raw: RawOutputs) -> None:
        """See that maps fit: an engine that ``open_engine`` did not open may answer anything."""
        (width, height), (map_h, map_w), things = self._network, raw.semantic.shape[1:], self._thing_ids.size
        stride = height // map_h if map_h else 0
        if not stride or (map_w * stride, map_h * stride) != (width, height):
            raise EngineError(f"semantic must be {width}x{height} or a whole fraction of it, got {map_w}x{map_h}")
        if raw.centers.shape[1] != things or 0 in raw.centers.shape[2:]:
            raise EngineError(f"centers must be (N, {things}, h, w), a map per thing class, got {raw.centers.shape}")


@dataclass(frozen=True)
class _Runs:
    """Maximal horizontal stretches of one segment, in raster order.

    Attributes:
        starts: intp (R,) where each begins among the thing pixels.
        segment, row, first, last: int (R,) its segment, and its row and columns (inclusive) in the map.
        native: int (R,) how many native pixels it stands for; 0 for some where the camera is smaller than the network.
    """

    starts: NDArray[np.intp]
    segment: NDArray[np.int32]
    row: NDArray[np.intp]
    first: NDArray[np.intp]
    last: NDArray[np.intp]
    native: NDArray[np.int32]

    @classmethod
    def of(cls, pixels: NDArray[np.intp], segment: NDArray[np.int32], width: int, tables: _Tables) -> _Runs:
        """Of ascending flat ``pixels`` of a map so wide, each of its ``segment``."""
        row = pixels // width
        new = np.empty(pixels.size, np.bool_)  # after a gap, in a new row, or of another segment
        new[0] = True
        np.not_equal(pixels[1:], pixels[:-1] + 1, out=new[1:])
        new[1:] |= segment[1:] != segment[:-1]
        new[1:] |= row[1:] != row[:-1]
        starts = np.flatnonzero(new)
        rows = row[starts]
        first = pixels[starts] - rows * width
        last = first + np.diff(np.append(starts, pixels.size)) - 1
        native = tables.row_weight[rows] * (tables.columns_before[last + 1] - tables.columns_before[first])
        return cls(starts, segment[starts], rows, first, last, native)

    def sums(self, tables: _Tables) -> NDArray[np.float64]:
        """float64 (4, R): ``cores.SUMS`` of the native pixels of each."""
        before, after = self.first, self.last + 1
        columns = tables.column_sums_before[:, after] - tables.column_sums_before[:, before]
        width = tables.columns_before[after] - tables.columns_before[before]
        return np.concatenate((columns * tables.row_weight[self.row], tables.row_sums[:, self.row] * width))


def _extents(runs: _Runs, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each of ``count`` segments lies, as far as native pixels show it.

    Returns:
        (count, 4) first column, last column, first row, last row (inclusive, map pixels), and (count,) the index of
        its first run in raster order. Rows of segments without runs are 0.
    """
    seen = runs.native > 0
    segment, first, last, row = (values[seen] for values in (runs.segment, runs.first, runs.last, runs.row))
    boxes = np.zeros((count, 4), np.intp)
    first_run = np.zeros(count, np.intp)
    key = segment.astype(np.uint16) if count <= 1 << 16 else segment  # numpy's radix sort is for 16 bits, 8 x faster
    order = np.argsort(key, kind="stable")
    present, starts = np.unique(segment[order], return_index=True)
    first_run[present] = order[starts]
    for column, (reduce, values) in enumerate(
        ((np.minimum, first), (np.maximum, last), (np.minimum, row), (np.maximum, row))
    ):
        boxes[present, column] = reduce.reduceat(values[order], starts)
    return boxes, first_run
