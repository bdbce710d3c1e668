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


IN_TURN = Order()


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
        self, kernel: kernels.Kernel, frames: NDArray[np.void], extent: kernels.Extent, order: Order = IN_TURN
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


CONSTANTS = (
    *("SEGMENTS", "CANDIDATES", "CHANNELS", "MAX_HALVINGS", "SHARES", "STRIP"),
    *("TOO_MANY_CANDIDATES", "TOO_MANY_SEGMENTS"),
)
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


class EmulatedMemory:
    """Allocations as a device has them, with guards that show what was written beside them."""

    def __init__(self) -> None:
        self._parts: dict[int, tuple[str, NDArray[np.uint8]]] = {}

    def take(self, name: str, nbytes: int) -> int:
        """Address of zeroed memory, a multiple of 256."""
        memory = np.full(nbytes + 2 * GUARD + 256, GUARD_BYTE, np.uint8)
        begin = -(memory.ctypes.data + GUARD) % 256 + GUARD
        guarded = memory[begin - GUARD : begin + nbytes + GUARD]
        guarded[GUARD : GUARD + nbytes] = 0
        address = int(guarded.ctypes.data) + GUARD
        self._parts[address] = name, guarded
        return address

    def put(self, name: str, array: NDArray[np.generic]) -> int:
        """Copy an array in; its address."""
        address = self.take(name, array.nbytes)
        self._inner(address)[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return address

    def fetch(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """uint8 (nbytes,) of what lies at the address of a part."""
        return self._inner(address)[:nbytes]

    def launch(self, kernel: kernels.Kernel, frames: NDArray[np.void], extent: kernels.Extent, order: Order) -> None:
        """Run one kernel."""
        emulator().launch(kernel, frames, extent, order)

    def check(self) -> None:
        """Nothing was written outside of the parts."""
        for name, guarded in self._parts.values():
            beside = np.concatenate([guarded[:GUARD], guarded[-GUARD:]])
            assert (beside == GUARD_BYTE).all(), f"written beside {name}"

    def free(self) -> None:
        """Give everything back."""
        self._parts.clear()

    def _inner(self, address: int) -> NDArray[np.uint8]:
        return self._parts[address][1][GUARD:-GUARD]
