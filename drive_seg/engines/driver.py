"""The NVIDIA driver, asked through ctypes before anything of TensorRT or pycuda is touched.

TensorRT's ``Runtime`` ends the whole process where there is no driver, and pycuda cannot even be imported; so the
question "is there a GPU" must be answered without either.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from drive_seg.errors import EngineError

_LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR, _MULTIPROCESSORS, _INTEGRATED = 75, 76, 16, 18
"""CUdevice_attribute: compute capability, number of multiprocessors, memory shared with the host."""


@dataclass(frozen=True)
class Gpu:
    """One CUDA device.

    Attributes:
        capability: compute capability, (9, 0) for Hopper.
        integrated: it shares the host's memory (Jetson).
        driver: CUDA version of the driver, ``13.0``.
        pci: its PCI bus id, ``0000:41:00.0``, by which other libraries know it.
    """

    index: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory_mb: int
    integrated: bool
    driver: str
    pci: str = ""

    @property
    def architecture(self) -> str:
        """What compilers call it: ``sm_90``."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


def find_gpu(index: int = 0, library: str = _LIBRARY) -> Gpu:
    """The device ``index``; creates no context.

    Raises:
        EngineError: no driver, no such device; the message says which and what to do.
    """
    cuda = _driver(library)
    count = ctypes.c_int()
    _check(cuda, cuda.cuDeviceGetCount(ctypes.byref(count)), "count the GPUs")
    if not 0 <= index < count.value:
        have = f"this machine has {count.value}, numbered from 0" if count.value else "this machine has none"
        raise EngineError(f"there is no GPU {index}: {have}; set gpu_id")
    device = ctypes.c_int()
    _check(cuda, cuda.cuDeviceGet(ctypes.byref(device), index), f"open GPU {index}")
    name = ctypes.create_string_buffer(256)
    _check(cuda, cuda.cuDeviceGetName(name, len(name), device), f"name GPU {index}")
    pci = ctypes.create_string_buffer(32)
    _check(cuda, cuda.cuDeviceGetPCIBusId(pci, len(pci), device), f"find GPU {index}'s place")
    memory = ctypes.c_size_t()
    _check(cuda, cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device), f"measure GPU {index}")

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        _check(cuda, cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device), f"question GPU {index}")
        return value.value

    version = ctypes.c_int()
    _check(cuda, cuda.cuDriverGetVersion(ctypes.byref(version)), "ask the driver for its version")
    return Gpu(
        index=index,
        name=name.value.decode(errors="replace"),
        capability=(attribute(_MAJOR), attribute(_MINOR)),
        multiprocessors=attribute(_MULTIPROCESSORS),
        memory_mb=memory.value >> 20,
        integrated=bool(attribute(_INTEGRATED)),
        driver=f"{version.value // 1000}.{version.value % 1000 // 10}",
        pci=pci.value.decode(errors="replace"),
    )


def find_gpus(library: str = _LIBRARY) -> list[Gpu]:
    """Every device.

    Raises:
        EngineError: no driver.
    """
    cuda = _driver(library)
    count = ctypes.c_int()
    _check(cuda, cuda.cuDeviceGetCount(ctypes.byref(count)), "count the GPUs")
    return [find_gpu(index, library) for index in range(count.value)]


def _driver(library: str) -> Any:
    try:
        cuda = ctypes.CDLL(library)
    except OSError as error:
        raise EngineError(f"no NVIDIA driver ({error}); install it, or use a CPU backend") from error
    code = cuda.cuInit(0)
    if code:
        raise EngineError(f"the NVIDIA driver does not start: {_name(cuda, code)}; is there a GPU?")
    return cuda


def _check(cuda: Any, code: int, what: str) -> None:
    if code:
        raise EngineError(f"cannot {what}: {_name(cuda, code)}")


def _name(cuda: Any, code: int) -> str:
    text = ctypes.c_char_p()
    if cuda.cuGetErrorName(code, ctypes.byref(text)) == 0 and text.value:
        return text.value.decode(errors="replace")
    return f"CUDA error {code}"
