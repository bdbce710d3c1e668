"""A batch on a device, pretended or real: what an engine does around the kernels, for tests."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from cuda_on_cpu import IN_TURN, EmulatedMemory, Order
from numpy.typing import NDArray

from drive_seg.engines import kernels
from drive_seg.frame import CameraImage, RawOutputs
from drive_seg.labels import LabelSet
from drive_seg.letterbox import Geometry
from drive_seg.postprocess import FusionOptions


class Memory(Protocol):
    """Some allocations on a device, given back together."""

    def take(self, name: str, nbytes: int) -> int: ...
    def put(self, name: str, array: NDArray[np.generic]) -> int: ...
    def fetch(self, address: int, nbytes: int) -> NDArray[np.uint8]: ...
    def launch(
        self, kernel: kernels.Kernel, frames: NDArray[np.void], extent: kernels.Extent, order: Order
    ) -> None: ...
    def check(self) -> None: ...
    def free(self) -> None: ...


@dataclass(frozen=True)
class Answer:
    """What the kernels made of one image."""

    input: NDArray[np.uint8]
    outcome: kernels.Outcome
    overlay: NDArray[np.uint8]


@dataclass(frozen=True)
class _Place:
    """Where one image of the batch lies."""

    image: CameraImage
    out: tuple[int, int]
    layout: kernels.Layout
    results: int
    input: int
    overlay: int


class Slot:
    """Scratch is allocated once; everything else anew for every batch, so that guards lie around it.

    Args:
        memory: makes the device's memory.
    """

    def __init__(
        self, sizes: kernels.Sizes, labels: LabelSet, memory: Callable[[], Memory] = EmulatedMemory, most: int = 4
    ) -> None:
        self.sizes, self.labels, self._memory = sizes, labels, memory
        self._tables = kernels.label_tables(labels)
        self._workspace = kernels.workspace(sizes)
        mine = memory()
        self._scratch = [mine.take("scratch", self._workspace.nbytes) for _ in range(most)]
        weakref.finalize(self, mine.free)

    def run(
        self,
        images: list[CameraImage],
        raw: RawOutputs,
        options: FusionOptions,
        order: Order = IN_TURN,
        only: tuple[kernels.Kernel, ...] = kernels.FRAME_KERNELS,
    ) -> list[Answer]:
        """Go through the kernels ``only`` with a batch."""
        memory = self._memory()
        frames = np.zeros(len(images), kernels.FRAME)
        labels = self._tables.layout.addresses(memory.put("labels", self._tables.blob))
        places = [
            self._place(memory, frames[index], image, raw, index, options, labels) for index, image in enumerate(images)
        ]
        extent = kernels.Extent(
            self.sizes,
            len(images),
            _largest([(image.width, image.height) for image in images]),
            _largest([place.out for place in places]),
        )
        for kernel in only:
            memory.launch(kernel, frames, extent, order)
        memory.check()
        answers = [self._answer(memory, place) for place in places]
        memory.free()
        return answers

    def _place(
        self,
        memory: Memory,
        frame: np.void,
        image: CameraImage,
        raw: RawOutputs,
        index: int,
        options: FusionOptions,
        labels: dict[str, int],
    ) -> _Place:
        geometry = Geometry.letterbox((image.width, image.height), self.sizes.network)
        tables = kernels.geometry_tables(geometry, self.sizes, options.output_resolution)
        out = tables.numbers["out_w"], tables.numbers["out_h"]
        layout = kernels.results(*out, options.confidence)
        garbage = np.full(3 * self.sizes.network[0] * self.sizes.network[1], 77, np.uint8)
        place = _Place(
            image,
            out,
            layout,
            memory.take("results", layout.nbytes),
            memory.put("input", garbage),
            memory.take("overlay", 3 * image.width * image.height),
        )
        own = {
            "raw": memory.put("raw", image.data),
            "input": place.input,
            "overlay": place.overlay,
            "semantic": memory.put("semantic", raw.semantic[index]),
            "confidence": memory.put("confidence", raw.confidence[index]),
            "centers": memory.put("centers", raw.centers[index]),
            "offsets": memory.put("offsets", raw.offsets[index]),
        }
        addresses = [
            own,
            labels,
            tables.layout.addresses(memory.put("tables", tables.blob)),
            self._workspace.addresses(self._scratch[index]),
            layout.addresses(place.results),
        ]
        kernels.bind(frame, addresses, [kernels.image_numbers(image), tables.numbers, self._tables.numbers])
        kernels.set_options(frame, options)
        return place

    def _answer(self, memory: Memory, place: _Place) -> Answer:
        block = memory.fetch(place.results, place.layout.usual_bytes)
        needed = kernels.needed_bytes(block, place.layout)
        if needed > block.size:
            block = memory.fetch(place.results, needed)
        width, height = self.sizes.network
        image = place.image
        return Answer(
            memory.fetch(place.input, 3 * width * height).reshape(height, width, 3),
            kernels.read(block, place.layout, *place.out, self.labels),
            memory.fetch(place.overlay, 3 * image.width * image.height).reshape(image.height, image.width, 3),
        )


def no_outputs(batch: int, sizes: kernels.Sizes) -> RawOutputs:
    """What a network that sees nothing says."""
    (map_w, map_h), (cell_w, cell_h) = sizes.maps, sizes.cells
    maps = np.zeros((batch, map_h, map_w), np.uint8)
    cells = np.zeros((batch, sizes.channels + 2, cell_h, cell_w), np.float32)
    return RawOutputs(maps, maps, cells[:, 2:], cells[:, :2])


def _largest(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    return max(width for width, _ in sizes), max(height for _, height in sizes)
