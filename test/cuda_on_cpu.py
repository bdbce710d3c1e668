"""The CUDA kernels without a GPU: compiled by g++ over ``cuda_on_cpu.h`` and run on NumPy arrays."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from drive_seg.engines import kernels
from drive_seg.engines.kernels import layout
from drive_seg.frame import CameraImage, RawOutputs
from drive_seg.labels import LabelSet
from drive_seg.letterbox import Geometry
from drive_seg.postprocess import FusionOptions

COMPILER = shutil.which("g++")
STRUCTS = {
    "Frame": layout.FRAME,
    "Segment": layout.SEGMENT,
    "State": layout.STATE,
    "Instance": layout.INSTANCE,
    "Header": layout.HEADER,
    "Tap": layout.TAP,
}
GUARD = 64
GUARD_BYTE = 0xA5


@dataclass(frozen=True)
class Order:
    """In which order the threads run. ``seed`` 0: one after the other; else drawn, on ``workers`` OS threads, with
    ``pauses`` of 1024 atomics letting another thread go first."""

    seed: int = 0
    workers: int = 1
    pauses: int = 0


@dataclass(frozen=True)
class Answer:
    """What the kernels made of one image."""

    input: NDArray[np.uint8]
    outcome: kernels.Outcome
    overlay: NDArray[np.uint8]


@lru_cache(maxsize=1)
def emulator() -> Emulator:
    """The kernels, compiled once per test run; the test is skipped where there is no compiler."""
    if COMPILER is None:
        pytest.skip("the CUDA kernels are tried on the CPU with g++, which is not installed")
    with tempfile.TemporaryDirectory() as folder:  # a loaded library outlives its file
        return Emulator.build(Path(folder))


class Emulator:
    """The compiled kernels; ``build`` takes a few seconds."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    @classmethod
    def build(cls, folder: Path, *flags: str) -> Emulator:
        """Compile in ``folder``."""
        source = folder / "kernels.cpp"
        source.write_text('#include "cuda_on_cpu.h"\n#include "kernels.cu"\n' + _exports(), encoding="utf-8")
        library = folder / "kernels.so"
        includes = [f"-I{Path(__file__).parent}", f"-I{Path(kernels.__file__).parent}"]
        command = [str(COMPILER), "-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
        command += ["-Wno-unknown-pragmas", "-Wno-parentheses", "-Wno-comment", *flags]
        command += ["-shared", "-fPIC", "-pthread", *includes, str(source), "-o", str(library)]
        subprocess.run(command, check=True)
        return cls(library)

    def launch(
        self, kernel: kernels.Kernel, frames: NDArray[np.void], extent: kernels.Extent, order: Order = Order()
    ) -> None:
        """Run one kernel as it would be launched."""
        grid, block = ((ctypes.c_uint * 3)(*size) for size in (kernel.grid(extent), kernel.block))
        address = ctypes.c_void_p(frames.ctypes.data)
        broken = getattr(self._library, f"run_{kernel.name}")(
            address, grid, block, order.seed, order.workers, order.pauses
        )
        assert broken == 0, f"{kernel.name}: threads of a block did not all reach a barrier"

    def fields(self, struct: str) -> list[int]:
        """Offset of every field of a struct, then its size, as the compiler lays it out."""
        array = (ctypes.c_size_t * (len(STRUCTS[struct].names or ()) + 1)).in_dll(self._library, f"fields_{struct}")
        return list(array)

    def constant(self, name: str) -> int:
        """A constant of ``frame.cuh``."""
        return ctypes.c_int.in_dll(self._library, f"constant_{name}").value


CONSTANTS = ("SEGMENTS", "CANDIDATES", "CHANNELS", "MAX_HALVINGS", "STRIP", "TOO_MANY_CANDIDATES", "TOO_MANY_SEGMENTS")
_ALONE = ("letterbox", "write_maps", "draw_overlay")  # neither barriers nor atomics


def _exports() -> str:
    lines = ['extern "C" {']
    for kernel in kernels.FRAME_KERNELS:
        fibers = "false" if kernel.name in _ALONE else "true"
        lines.append(
            f"int run_{kernel.name}(const Frame* f, const unsigned* grid, const unsigned* block, unsigned seed, "
            "unsigned workers, unsigned pauses) { return gpu::launch([](const void* p) { "
            f"{kernel.name}(static_cast<const Frame*>(p)); }}, f, grid, block, {fibers}, seed, workers, pauses); }}"
        )
    for struct, dtype in STRUCTS.items():
        offsets = ", ".join(f"offsetof({struct}, {name})" for name in dtype.names or ())
        lines.append(f"size_t fields_{struct}[] = {{{offsets}, sizeof({struct})}};")
    lines += [f"int constant_{name} = {name};" for name in CONSTANTS]
    return "\n".join([*lines, "}", ""])


class Memory:
    """Allocations as a device has them, with guards that show what was written beside them."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, NDArray[np.uint8]]] = []

    def take(self, name: str, nbytes: int) -> NDArray[np.uint8]:
        """uint8 (nbytes,), zeroed, its address a multiple of 256."""
        memory = np.full(nbytes + 2 * GUARD + 256, GUARD_BYTE, np.uint8)
        begin = -(memory.ctypes.data + GUARD) % 256 + GUARD
        guarded = memory[begin - GUARD : begin + nbytes + GUARD]
        self._parts.append((name, guarded))
        inner = guarded[GUARD : GUARD + nbytes]
        inner[:] = 0
        return inner

    def put(self, name: str, array: NDArray[np.generic]) -> int:
        """Copy an array in; its address."""
        inner = self.take(name, array.nbytes)
        inner[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return int(inner.ctypes.data)

    def check(self) -> None:
        """Nothing was written outside of the parts."""
        for name, guarded in self._parts:
            beside = np.concatenate([guarded[:GUARD], guarded[-GUARD:]])
            assert (beside == GUARD_BYTE).all(), f"written beside {name}"


@dataclass
class Slot:
    """A batch on the pretended device: allocated once, then any number of frames."""

    sizes: kernels.Sizes
    labels: LabelSet

    def __post_init__(self) -> None:
        self._labels = kernels.label_tables(self.labels)
        self._scratch: list[NDArray[np.uint8]] = []

    def run(
        self,
        images: list[CameraImage],
        raw: RawOutputs,
        options: FusionOptions,
        order: Order = Order(),
        only: tuple[kernels.Kernel, ...] = kernels.FRAME_KERNELS,
    ) -> list[Answer]:
        """The whole chain over a batch, scratch reused from the frames before."""
        memory = Memory()
        frames = np.zeros(len(images), kernels.FRAME)
        results: list[tuple[NDArray[np.uint8], kernels.Layout, NDArray[np.uint8], NDArray[np.uint8]]] = []
        workspace = kernels.workspace(self.sizes)
        while len(self._scratch) < len(images):
            self._scratch.append(np.zeros(workspace.nbytes, np.uint8))
        labels = self._labels.layout.addresses(memory.put("labels", self._labels.blob))
        extents = []
        for index, image in enumerate(images):
            geometry = Geometry.letterbox((image.width, image.height), self.sizes.network)
            tables = kernels.geometry_tables(geometry, self.sizes, options.output_resolution)
            out = tables.numbers["out_w"], tables.numbers["out_h"]
            extents.append((geometry.native, out))
            result_layout = kernels.results(*out, options.confidence)
            result = memory.take("results", result_layout.nbytes)
            network_input = memory.take("input", 3 * self.sizes.network[0] * self.sizes.network[1])
            network_input[:] = 77
            overlay = memory.take("overlay", 3 * image.width * image.height)
            results.append((result, result_layout, network_input, overlay))
            own = {
                "raw": memory.put("raw", image.data),
                "input": network_input.ctypes.data,
                "overlay": overlay.ctypes.data,
                "semantic": memory.put("semantic", raw.semantic[index]),
                "confidence": memory.put("confidence", raw.confidence[index]),
                "centers": memory.put("centers", raw.centers[index]),
                "offsets": memory.put("offsets", raw.offsets[index]),
            }
            kernels.bind(
                frames[index],
                [
                    own,
                    labels,
                    tables.layout.addresses(memory.put("tables", tables.blob)),
                    workspace.addresses(self._scratch[index].ctypes.data),
                    result_layout.addresses(result.ctypes.data),
                ],
                [kernels.image_numbers(image), tables.numbers, self._labels.numbers],
            )
            kernels.set_options(frames[index], options)
        natives, outs = zip(*extents, strict=True)
        extent = kernels.Extent(self.sizes, len(images), _largest(natives), _largest(outs))
        for kernel in only:
            emulator().launch(kernel, frames, extent, order)
        memory.check()
        return [
            self._answer(image, *result, frame) for image, result, frame in zip(images, results, frames, strict=True)
        ]

    def _answer(
        self,
        image: CameraImage,
        result: NDArray[np.uint8],
        layout_of: kernels.Layout,
        network_input: NDArray[np.uint8],
        overlay: NDArray[np.uint8],
        frame: np.void,
    ) -> Answer:
        usual = result[: layout_of.usual_bytes]
        block = result[: kernels.needed_bytes(usual, layout_of)]
        width, height = self.sizes.network
        return Answer(
            network_input.reshape(height, width, 3),
            kernels.read(block, layout_of, int(frame["out_w"]), int(frame["out_h"]), self.labels),
            overlay.reshape(image.height, image.width, 3),
        )


def no_outputs(batch: int, sizes: kernels.Sizes) -> RawOutputs:
    """What a network that sees nothing says."""
    (map_w, map_h), (cell_w, cell_h) = sizes.maps, sizes.cells
    maps = np.zeros((batch, map_h, map_w), np.uint8)
    cells = np.zeros((batch, sizes.channels + 2, cell_h, cell_w), np.float32)
    return RawOutputs(maps, maps, cells[:, 2:], cells[:, :2])


def _largest(sizes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    return max(width for width, _ in sizes), max(height for _, height in sizes)
