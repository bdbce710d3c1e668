"""The kernels on a real GPU, through nothing but the driver: what ``kernel_slot.Slot`` needs, and their times."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from cuda_on_cpu import Order
from numpy.typing import NDArray

from drive_seg.engines import kernels
from drive_seg.engines.driver import Gpu, find_gpu

LIBRARY = "libcuda.so.1"


@dataclass(frozen=True)
class Device:
    """One GPU's primary context, current on this thread, with the kernels loaded."""

    gpu: Gpu
    cuda: Any
    functions: dict[str, ctypes.c_void_p]

    @classmethod
    def open(cls, index: int = 0, library: str = LIBRARY) -> Device:
        """Compile and load the kernels for a GPU.

        Raises:
            EngineError: no driver, no GPU, or no compiler.
        """
        gpu = find_gpu(index, library)
        code = kernels.cubin(gpu.capability)
        cuda = ctypes.CDLL(library)
        context, module = ctypes.c_void_p(), ctypes.c_void_p()
        _check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), index))
        _check(cuda.cuCtxSetCurrent(context))
        _check(cuda.cuModuleLoadData(ctypes.byref(module), code))
        functions = {}
        for kernel in kernels.FRAME_KERNELS:
            functions[kernel.name] = ctypes.c_void_p()
            _check(cuda.cuModuleGetFunction(ctypes.byref(functions[kernel.name]), module, kernel.name.encode()))
        return cls(gpu, cuda, functions)

    def launch(self, kernel: kernels.Kernel, frames: int, extent: kernels.Extent) -> None:
        """Start one kernel on the default stream."""
        address = ctypes.c_uint64(frames)
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(address))
        function = self.functions[kernel.name]
        _check(self.cuda.cuLaunchKernel(function, *kernel.grid(extent), *kernel.block, 0, None, arguments, None))

    def wait(self) -> None:
        """Until all is done; a fault in a kernel shows here."""
        _check(self.cuda.cuCtxSynchronize())

    def milliseconds(self, work: Callable[[], None]) -> float:
        """How long the GPU is busy with what ``work`` starts."""
        begin, end = ctypes.c_void_p(), ctypes.c_void_p()
        for event in (begin, end):
            _check(self.cuda.cuEventCreate(ctypes.byref(event), 0))
        _check(self.cuda.cuEventRecord(begin, None))
        work()
        _check(self.cuda.cuEventRecord(end, None))
        _check(self.cuda.cuEventSynchronize(end))
        passed = ctypes.c_float()
        _check(self.cuda.cuEventElapsedTime(ctypes.byref(passed), begin, end))
        for event in (begin, end):
            _check(self.cuda.cuEventDestroy_v2(event))
        return passed.value


class GpuMemory:
    """Allocations on a GPU. ``launch`` waits, so that a fault names its kernel; the order is the GPU's own."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._parts: list[ctypes.c_uint64] = []

    def take(self, name: str, nbytes: int) -> int:
        """Address of zeroed memory."""
        cuda, address = self._device.cuda, ctypes.c_uint64()
        _check(cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(nbytes)))
        self._parts.append(address)
        _check(cuda.cuMemsetD8_v2(address, ctypes.c_ubyte(0), ctypes.c_size_t(nbytes)))
        return address.value

    def put(self, name: str, array: NDArray[np.generic]) -> int:
        """Copy an array in; its address."""
        own = np.ascontiguousarray(array)
        address = self.take(name, own.nbytes)
        pointer = ctypes.c_void_p(own.ctypes.data)
        _check(self._device.cuda.cuMemcpyHtoD_v2(ctypes.c_uint64(address), pointer, ctypes.c_size_t(own.nbytes)))
        return address

    def fetch(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """uint8 (nbytes,) of what lies at an address."""
        out = np.empty(nbytes, np.uint8)
        pointer = ctypes.c_void_p(out.ctypes.data)
        _check(self._device.cuda.cuMemcpyDtoH_v2(pointer, ctypes.c_uint64(address), ctypes.c_size_t(nbytes)))
        return out

    def launch(self, kernel: kernels.Kernel, frames: NDArray[np.void], extent: kernels.Extent, order: Order) -> None:
        """Run one kernel to its end."""
        self._device.launch(kernel, self.put("frames", frames), extent)
        self._device.wait()

    def check(self) -> None:
        """Kernels that write beside their memory are for compute-sanitizer to find."""

    def free(self) -> None:
        """Give everything back."""
        for address in self._parts:
            _check(self._device.cuda.cuMemFree_v2(address))
        self._parts.clear()


def _check(code: int) -> None:
    if code != 0:
        raise RuntimeError(f"CUDA error {code}")
