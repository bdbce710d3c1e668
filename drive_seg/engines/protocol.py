"""What the pipeline knows of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drive_seg.frame import RawOutputs
from drive_seg.ranges import check_kind, check_number


@dataclass(frozen=True)
class EngineOptions:
    """How to open an engine.

    Attributes:
        precision: ``auto``, ``fp32``, ``fp16`` or ``int8``.
        max_batch: most images in one submit (the number of cameras).
        slots: batches that may be in flight or held at once; several streams have at least three more than there are
            streams, so that each has work while results are taken.
        threads: CPU threads, 0 = one per core this process may use.
        streams: batches that are computed side by side, each by its share of the threads, 0 = one per thread. One
            answers soonest; one per thread needs the least processor time per frame, for whoever has many frames. Of
            several the threads give way to the rest of the process.
        gpu_id: CUDA device.
        cache_dir: where compiled engines are kept; None = no cache.
        build: whether an engine that has to be compiled for minutes (TensorRT) and is not in the cache is compiled.

    Raises:
        ConfigError: a number is negative or not whole, or ``cache_dir`` no path.
    """

    precision: str = "auto"
    max_batch: int = 1
    slots: int = 2
    threads: int = 0
    streams: int = 1
    gpu_id: int = 0
    cache_dir: Path | None = None
    build: bool = True

    def __post_init__(self) -> None:
        for name, least in (("max_batch", 1), ("slots", 1), ("threads", 0), ("streams", 0), ("gpu_id", 0)):
            check_number(name, getattr(self, name), least, whole=True)
        if self.cache_dir is not None:
            check_kind("cache_dir", self.cache_dir, Path)


@dataclass(frozen=True)
class EngineInfo:
    """What was opened.

    Attributes:
        precision: the arithmetic really used (``bf16`` too).
        reason: why it was picked.
        key: of a compiled engine, everything it depends on.
        on_gpu: the CPU has nothing to do while a batch is computed.
    """

    backend: str
    precision: str
    device: str
    version: str
    reason: str = ""
    key: str = ""
    on_gpu: bool = False


class Slot(Protocol):
    """One batch in an engine's hands."""

    @property
    def input(self) -> NDArray[np.uint8]:
        """uint8 (max_batch, H, W, 3) RGB, written by the caller before ``submit``."""
        ...

    def submit(self, count: int) -> None:
        """Start inference on the first ``count`` images; returns without waiting where the backend can."""
        ...

    def wait(self) -> RawOutputs:
        """Block until done; the maps of the ``count`` images, valid until the next ``submit`` of this slot.

        Raises:
            EngineError: the backend failed; the slot may be submitted again.
        """
        ...


class Engine(Protocol):
    """A loaded network. Used by one thread at a time."""

    info: EngineInfo
    """What was opened."""

    @property
    def slots(self) -> Sequence[Slot]:
        """The slots; ``slots[0].input.shape`` tells batch and network size."""
        ...

    def close(self) -> None:
        """Release everything. Slots and their arrays must not be used afterwards; a second call does nothing."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
