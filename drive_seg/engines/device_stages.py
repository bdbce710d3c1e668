"""Letterbox and fusion on the GPU: a camera's bytes go up, finished maps and a few records come down.

The stages of a TensorRT engine (see ``drive_seg.stages``), with the kernels of ``drive_seg.engines.kernels``. One frame
is one copy up (its bytes), one copy down (its results). Of the network's own maps only the classes leave the GPU, where
lane boundaries are asked for, and all of them where the kernels' fixed limits do not hold: the CPU does that frame.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.engines import kernels
from drive_seg.engines.cuda import Arena
from drive_seg.engines.trt import TrtSlot
from drive_seg.engines.trt_network import Network
from drive_seg.errors import EngineError
from drive_seg.frame import CameraImage, Frame, GpuTimes, Lane, PanopticResult
from drive_seg.labels import LabelSet
from drive_seg.lanes import LaneFinder
from drive_seg.letterbox import Geometry
from drive_seg.postprocess import FusionOptions, PostProcessor
from drive_seg.stages import Allocator

_KEPT_GEOMETRIES = 16
"""Cameras have few sizes; a folder of photographs has many."""


class Place:
    """Memory of one image of a slot: the camera's bytes, scratch, results. It grows to the largest that comes by."""

    def __init__(self, arena: Arena, scratch: kernels.Layout) -> None:
        self._arena = arena
        self.scratch = arena.memory(scratch.nbytes)
        self._scratch_bytes = scratch.nbytes
        self._up: NDArray[np.uint8] | None = None
        self._kept: NDArray[np.uint8] | None = None
        self._down: NDArray[np.uint8] | None = None
        self.raw = self.results = 0
        self.pixels = np.empty(0, np.uint8)
        self.answer = np.empty(0, np.uint8)
        self.classes: NDArray[np.uint8] | None = None
        self.layout = kernels.Layout({}, 0)
        self.native = self.out = (0, 0)
        self.bound: tuple[object, ...] | None = None
        """What the record of this image is filled with, but for memory of this place and thresholds: the same for every
        frame of a camera."""

    def take(self, image: CameraImage) -> None:
        """Copy the camera's bytes into page-locked memory."""
        size = image.data.size
        if self._up is None or self._up.size < size:
            old, self._up = self._up, None  # it is gone also where there is no memory for the new one
            self._up, self.raw = self._grown(old, self.raw, size, size)
        self.pixels = self._up[:size]
        np.copyto(self.pixels, image.data)

    def make_room(self, layout: kernels.Layout) -> None:
        """Room for results of this layout."""
        if self._down is None or self._down.size < layout.usual_bytes:
            old, self._down = self._down, None
            self._down, self.results = self._grown(old, self.results, layout.usual_bytes, layout.nbytes)
        self.layout = layout
        self.answer = self._down[: layout.usual_bytes]

    def keep_classes(self, shape: tuple[int, int] | None) -> None:
        """Room for the network's own map of classes, or none."""
        if shape is not None and self._kept is None:
            self._kept = self._arena.pinned(shape[0] * shape[1]).reshape(shape)
        self.classes = self._kept if shape is not None else None

    def _grown(
        self, old: NDArray[np.uint8] | None, address: int, host: int, device: int
    ) -> tuple[NDArray[np.uint8], int]:
        self.bound = None
        if old is not None:
            self._arena.free_pinned(old)
            self._arena.free(address)
        grown = self._arena.memory(device)
        try:
            return self._arena.pinned(host), grown
        except BaseException:
            self._arena.free(grown)
            raise

    def reset(self) -> None:
        """Zero the scratch, as the kernels want it after a frame that failed."""
        self._arena.clear(self.scratch, self._scratch_bytes)


@dataclass(frozen=True)
class Fused:
    """A batch that is done: the slot it lies in, what it took, and the network's maps once somebody needs them."""

    slot: TrtSlot
    places: Sequence[Place]
    count: int
    times: GpuTimes | None


def load_kernels(arena: Arena, cubin: bytes) -> Mapping[str, Any]:
    """The functions of compiled kernels, by name; none are left once the arena is closed.

    Raises:
        EngineError: they do not load on this GPU.
    """
    functions: dict[str, Any] = {}
    arena.on_close(functions.clear)  # each of them keeps the module
    with arena.active("load the kernels"):
        _load(arena.module(cubin), functions)
    return functions


def _load(module: Any, functions: dict[str, Any]) -> None:
    for kernel in kernels.FRAME_KERNELS:
        functions[kernel.name] = module.get_function(kernel.name)
        functions[kernel.name].prepare("P")


class DeviceStages:
    """The stages of one pipeline on a TensorRT engine. Owned by the engine, whose arena holds its memory.

    Args:
        functions: the kernels, see ``load_kernels``.

    Raises:
        EngineError: memory is short, or the network is larger than the kernels take.
    """

    def __init__(
        self,
        network: Network,
        slots: Sequence[TrtSlot],
        labels: LabelSet,
        options: FusionOptions,
        allocate: Allocator,
        functions: Mapping[str, Any],
    ) -> None:
        self.options = options
        self._network, self._arena = network, network.arena
        self._labels, self._allocate, self._functions = labels, allocate, functions
        image, semantic, _, centers, _ = network.tensors
        size = image.shape[2], image.shape[1]
        channels, cell_h, cell_w = centers.shape[1:]
        try:
            self._sizes = kernels.Sizes(size, (semantic.shape[2], semantic.shape[1]), (cell_w, cell_h), channels)
        except ValueError as error:
            raise EngineError(f"{error}; a CPU backend takes this model") from error
        self._find_lanes = LaneFinder(labels)
        self._on_host = PostProcessor(labels, size, options, allocate)
        self._tables: OrderedDict[tuple[Geometry, str], tuple[dict[str, int], Mapping[str, float], int]] = OrderedDict()
        with self._arena.active("prepare the kernels"):
            shared = kernels.label_tables(labels)
            self._labels_at = shared.layout.addresses(self._arena.upload(shared.blob))
            self._label_numbers = shared.numbers
            scratch = kernels.workspace(self._sizes)
            self._slots = {id(slot): self._batch(scratch) for slot in slots}

    def _batch(self, scratch: kernels.Layout) -> Batch:
        places = [Place(self._arena, scratch) for _ in range(self._network.max_batch)]
        nbytes = kernels.FRAME.itemsize * len(places)
        return Batch(places, self._arena.pinned(nbytes).view(kernels.FRAME), self._arena.memory(nbytes))

    def load(self, image: CameraImage, slot: TrtSlot, index: int) -> Geometry:
        """Copy the camera's bytes into the slot and say what the kernels are to do with them."""
        geometry = Geometry.letterbox((image.width, image.height), self._sizes.network)
        batch = self._slots[id(slot)]
        place, frame, options = batch.places[index], batch.frames[index], self.options
        with self._arena.active("load an image"):
            addresses, numbers = self._geometry(geometry, options.output_resolution)
            place.native, place.out = geometry.native, (int(numbers["out_w"]), int(numbers["out_h"]))
            place.make_room(kernels.results(*place.out, options.confidence))
            place.keep_classes(
                self._sizes.maps[::-1] if options.lanes and options.output_resolution == "native" else None
            )
            place.take(image)
        packed = kernels.image_numbers(image)
        bound = (packed, addresses, numbers, options.confidence)
        if place.bound != bound:
            place.bound = None
            network = {
                name: slot.addresses[tensor.name] + index * tensor.image_nbytes
                for name, tensor in zip(_TENSORS, self._network.tensors, strict=True)
            }
            frame["out_confidence"] = 0
            kernels.bind(
                frame,
                [
                    kernels.workspace(self._sizes).addresses(place.scratch),
                    place.layout.addresses(place.results),
                    addresses,
                    self._labels_at,
                    network,
                    {"raw": place.raw},
                ],
                [packed, numbers, self._label_numbers],
            )
            place.bound = bound
        try:
            kernels.set_options(frame, options)
        except ValueError as error:
            raise EngineError(str(error)) from error
        return geometry

    def _geometry(self, geometry: Geometry, resolution: str) -> tuple[dict[str, int], Mapping[str, float]]:
        """Addresses and numbers of the tables of one camera size, on the GPU; made at its first frame."""
        key = (geometry, resolution)
        found = self._tables.get(key)
        if found is None:
            if len(self._tables) >= max(_KEPT_GEOMETRIES, 2 * self._network.max_batch):
                self._network.drain()  # a batch in flight may use the oldest
                _, (_, _, oldest) = self._tables.popitem(last=False)
                self._arena.free(oldest)
            try:
                tables = kernels.geometry_tables(geometry, self._sizes, resolution)
            except ValueError as error:
                raise EngineError(f"{error}; a CPU backend takes such images") from error
            base = self._arena.upload(tables.blob)
            found = self._tables[key] = (tables.layout.addresses(base), tables.numbers, base)
        self._tables.move_to_end(key)
        return found[0], found[1]

    def start(self, slot: TrtSlot, count: int) -> None:
        """Copies up, letterbox, network, fusion, copies down."""
        batch, driver = self._slots[id(slot)], self._arena.driver
        places = batch.places[:count]
        extent = kernels.Extent(
            self._sizes,
            count,
            _largest([place.native for place in places]),
            _largest([place.out for place in places]),
        )

        def upload(stream: Any) -> None:
            for place in places:
                driver.memcpy_htod_async(place.raw, place.pixels, stream)
            driver.memcpy_htod_async(batch.on_device, batch.frames[:count].view(np.uint8), stream)

        def letterbox(stream: Any) -> None:
            self._launch(kernels.LETTERBOX, extent, batch, stream)

        def fuse(stream: Any) -> None:
            for kernel in kernels.FUSION:
                self._launch(kernel, extent, batch, stream)

        def download(stream: Any) -> None:
            for place, frame in zip(places, batch.frames, strict=False):
                driver.memcpy_dtoh_async(place.answer, place.results, stream)
                if place.classes is not None:
                    driver.memcpy_dtoh_async(place.classes, int(frame["semantic"]), stream)

        try:
            slot.launch(count, upload, letterbox, fuse, download)
        except BaseException:
            self._reset(places)
            raise

    def _launch(self, kernel: kernels.Kernel, extent: kernels.Extent, batch: Batch, stream: Any) -> None:
        function = self._functions[kernel.name]
        function.prepared_async_call(kernel.grid(extent), kernel.block, stream, batch.on_device)

    def collect(self, slot: TrtSlot) -> Fused:
        """Wait for the batch."""
        places = self._slots[id(slot)].places
        try:
            count = slot.finish()
        except BaseException:
            self._reset(places)
            raise
        return Fused(slot, places, count, slot.times)

    def _reset(self, places: Sequence[Place]) -> None:
        if self._arena.closed:  # the memory may be somebody else's by now, and zeros would be wrong pixels there
            return
        with self._arena.active("clear the scratch memory"):
            for place in places:
                place.reset()

    def finish(
        self, frame: Frame, outputs: Fused, index: int, geometry: Geometry, options: FusionOptions
    ) -> PanopticResult:
        """Copy the maps into the allocator's arrays and read the records."""
        place = outputs.places[index]
        outcome = kernels.read(self._whole(place), place.layout, *place.out, self._labels)
        if outcome.flags:  # more peaks or segments than the kernels have room for: fuse the network's own maps here
            self._on_host.options = options
            return self._on_host(frame, outputs.slot.fetch(outputs.count), index, geometry)

        def kept(name: str, pinned: NDArray[Any]) -> NDArray[Any]:
            array = self._allocate(frame, name, (pinned.shape[0], pinned.shape[1]), pinned.dtype)
            np.copyto(array, pinned)
            return array

        mask = kept("mask", outcome.mask)
        return PanopticResult(
            frame=frame,
            mask=mask,
            panoptic=kept("panoptic", outcome.panoptic),
            instances=outcome.instances,
            native_size=geometry.native,
            confidence=None if outcome.confidence is None else kept("confidence", outcome.confidence),
            lanes=self._lanes_of(mask if place.classes is None else place.classes, geometry) if options.lanes else None,
            extent=None if options.output_resolution == "native" else geometry.in_cells(self._stride),
        )

    @property
    def _stride(self) -> int:
        return self._sizes.network[0] // self._sizes.maps[0]

    def _lanes_of(self, classes: NDArray[np.uint8], geometry: Geometry) -> tuple[Lane, ...]:
        """In the network's own cells: the whole map, or the content alone."""
        across, down = geometry.axes(self._stride)
        if classes.shape == self._sizes.maps[::-1]:
            classes = classes[down.window, across.window]
        return self._find_lanes(classes, geometry.native, geometry.in_cells(self._stride))

    def _whole(self, place: Place) -> NDArray[np.uint8]:
        """The results as they came; of an image with very many instances, fetched again with all of them."""
        needed = kernels.needed_bytes(place.answer, place.layout)
        if needed <= place.answer.size:
            return place.answer
        whole = np.empty(needed, np.uint8)
        with self._arena.active("fetch the instances"):
            self._arena.driver.memcpy_dtoh(whole, place.results)
        return whole

    def gpu_times(self, outputs: Fused) -> GpuTimes | None:
        """By CUDA events."""
        return outputs.times


@dataclass(frozen=True)
class Batch:
    """What the kernels need of one slot: its places and their FRAME records, here (page-locked) and on the GPU."""

    places: list[Place]
    frames: NDArray[Any]
    on_device: int


_TENSORS = ("input", "semantic", "confidence", "centers", "offsets")


def _largest(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return max(width for width, _ in sizes), max(height for _, height in sizes)
