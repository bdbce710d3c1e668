"""What a GPU that serves says of itself: memory, load, temperature, power, and what slows it down (NVML).

A GPU that is too hot halves its clock without a word to CUDA; all that is seen of it is latency.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from drive_seg.engines.driver import find_gpu
from drive_seg.errors import EngineError, MissingDependency, pip_install

_Value = TypeVar("_Value")

_SLOWED = {
    0x08: "the hardware",
    0x20: "heat",
    0x40: "heat",
    0x80: "the power supply",
}
"""nvmlClocksEventReasons that should not be; the power limit (0x04) belongs to many a board's full load."""


@dataclass(frozen=True)
class GpuState:
    """One look at a GPU. What its driver does not tell (NVML on Jetson, shares of a GPU) is None.

    Attributes:
        memory_used_mb, memory_total_mb: device memory, of all processes.
        load_percent: share of the last second or less in which a kernel ran.
        slowed_by: why its clock is lower than it could be; empty where it is not, or nobody knows.
    """

    memory_used_mb: int | None
    memory_total_mb: int | None
    load_percent: int | None
    temperature_c: int | None
    power_w: float | None
    slowed_by: tuple[str, ...] = ()


class GpuWatch:
    """Looks at one GPU; a look takes about a millisecond and no CUDA context.

    Args:
        gpu_id: CUDA device number, which need not be NVML's.

    Raises:
        EngineError: no driver, no such GPU, or NVML does not know it.
        MissingDependency: nvidia-ml-py is not installed.
    """

    def __init__(self, gpu_id: int) -> None:
        self.gpu = find_gpu(gpu_id)
        try:
            import pynvml as nvml
        except ImportError as error:
            raise MissingDependency("nvidia-ml-py", "watching the GPU", pip_install("nvidia-ml-py")) from error
        self._nvml = nvml
        try:
            nvml.nvmlInit()
            self._handle = nvml.nvmlDeviceGetHandleByPciBusId(self.gpu.pci)
        except nvml.NVMLError as error:
            raise EngineError(f"NVML does not know GPU {gpu_id} ({self.gpu.pci}): {error}") from error

    def look(self) -> GpuState:
        """The GPU now.

        Raises:
            EngineError: the driver says that the GPU is lost or must be reset.
        """
        nvml, handle = self._nvml, self._handle
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        load = self._ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        power = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
        reasons = self._ask(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
        if reasons is None:  # its name before driver 535
            reasons = self._ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
        return GpuState(
            memory_used_mb=None if memory is None else memory.used >> 20,
            memory_total_mb=None if memory is None else memory.total >> 20,
            load_percent=None if load is None else load.gpu,
            temperature_c=self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            power_w=None if power is None else power / 1000,
            slowed_by=tuple(dict.fromkeys(name for bit, name in _SLOWED.items() if (reasons or 0) & bit)),
        )

    def _ask(self, question: Callable[..., _Value], *about: Any) -> _Value | None:
        nvml = self._nvml
        try:
            return question(*about)
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED):
                raise EngineError(f"GPU {self.gpu.index}: {error}; the kernel's log has the Xid") from error
            return None
