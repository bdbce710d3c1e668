"""pycuda behind a few names: one GPU's primary context, and an arena of everything an engine allocates in it.

The primary context is the one that the CUDA runtime uses, so TensorRT, torch and we share it. It is retained once per
GPU and process and never given back: CUDA cannot be sure to start again in the same process. It is made current only
for the length of a call (``Arena.active``), on whichever thread that is, and the thread's former context comes back
afterwards; so an engine may be opened on one thread and used on another, and torch finds its own context as it was.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import clear_frames
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.engines.driver import find_gpu
from drive_seg.engines.trt_library import INSTALL
from drive_seg.errors import EngineError, EngineLost, MissingDependency

_NON_BLOCKING_STREAM = 1  # CU_STREAM_NON_BLOCKING: does not wait for torch's or anyone's default stream

_log = logging.getLogger(__name__)
_contexts: dict[int, Any] = {}
_opening = threading.Lock()


def load_pycuda(gpu_id: int) -> tuple[Any, Any]:
    """``pycuda.driver`` and the primary context of a GPU, retained for the rest of the process.

    Raises:
        EngineError: no driver, no such GPU, or pycuda does not fit the driver.
        MissingDependency: pycuda is not installed.
    """
    find_gpu(gpu_id)
    try:
        import pycuda.driver as driver
    except ModuleNotFoundError as error:
        raise MissingDependency("pycuda", "backend tensorrt", INSTALL) from error
    except ImportError as error:  # a driver older than the CUDA that pycuda was built with
        raise EngineError(f"pycuda does not load: {error}; build it again with this machine's CUDA") from error
    try:
        with _opening:
            if gpu_id not in _contexts:
                driver.init()
                _contexts[gpu_id] = _for_ever(driver.Device(gpu_id).retain_primary_context())
            return driver, _contexts[gpu_id]
    except driver.Error as error:
        raise EngineError(f"GPU {gpu_id} cannot be opened: {error}") from error


def _for_ever(thing: Any) -> Any:
    """Never destroyed, also not when the process ends: pycuda's destructor takes a primary context for one that it
    made, and what it then asks of the driver fails with a warning on the console."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing


class Arena:
    """Everything an engine has on one GPU: made through this, freed by ``close``, unless the device is lost by then.

    pycuda destroys a stream, an event or a module with its last reference, and only where the context is current: on
    any other thread than the one that opened the GPU it warns and leaks. So whoever keeps one forgets it while the GPU
    is current, before ``close`` or by ``on_close``.

    Args:
        gpu_id: CUDA device number.
    """

    def __init__(self, gpu_id: int) -> None:
        self.driver, self._context = load_pycuda(gpu_id)
        self._gpu_id = gpu_id
        self._memory: dict[int, Any] = {}
        self._pinned: list[NDArray[np.uint8]] = []
        self._forget: list[Callable[[], None]] = []
        self._sizes: dict[int, int] = {}
        self._made: weakref.WeakSet[Any] = weakref.WeakSet()
        self._is_lost = False
        self._own: Any = None
        self.closed = False

    @property
    def allocated(self) -> int:
        """Bytes of device memory that were asked for and not freed."""
        return sum(self._sizes.values())

    @contextmanager
    def active(self, doing: str) -> Iterator[None]:
        """Make the GPU current on this thread; what the driver raises becomes ours.

        Args:
            doing: for the message, as in ``cannot DOING``.

        Raises:
            EngineLost: the context is beyond repair (the GPU fell off the bus, a kernel crashed).
            EngineError: anything else, for example that memory is short.
        """
        try:
            self._context.push()
        except self.driver.Error as error:
            raise self._lost(doing, error) from error
        try:
            with _frames_cleared():
                yield
        except self.driver.MemoryError as error:
            raise EngineError(f"cannot {doing}: GPU {self._gpu_id} is out of memory ({self._room()}): {error}") from (
                error
            )
        except self.driver.Error as error:
            if self._works():
                raise EngineError(f"cannot {doing}: {error}") from error
            raise self._lost(doing, error) from error
        finally:
            self._leave()

    def _leave(self) -> None:
        try:
            self._context.pop()
        except self.driver.Error as error:
            _log.warning("GPU %d: cannot leave its context: %s", self._gpu_id, error)

    def _works(self) -> bool:
        """Whether the context still does; errors that break it come back from every later call.

        One stream is asked: waiting for the whole context is an error while any thread captures a graph in it.
        """
        try:
            self._set_up().synchronize()
        except self.driver.Error:
            return False
        return True

    def _lost(self, doing: str, error: Exception) -> EngineLost:
        """What to raise. From now on nothing of ours is freed: pycuda warns on the console of every single thing that
        cannot be, and ends the process where it cannot even make the context current for it."""
        if not self._is_lost:
            self._is_lost = True
            for thing in (*self._made, *self._memory.values(), *(array.base for array in self._pinned)):
                _for_ever(thing)
        return EngineLost(
            f"GPU {self._gpu_id} is lost: cannot {doing}: {error}; CUDA does not recover from this within a process: "
            "restart it (the kernel's log has the Xid)"
        )

    def _room(self) -> str:
        try:
            free, total = self.driver.mem_get_info()
        except self.driver.Error:
            return "free memory unknown"
        return f"{free >> 20} of {total >> 20} MiB free, {self.allocated >> 20} of them ours"

    def _set_up(self) -> Any:
        """The stream of what is done before and between frames."""
        if self._own is None:
            self._own = self.stream()
        return self._own

    def on_close(self, forget: Callable[[], None]) -> None:
        """``close`` calls ``forget``, with the GPU current, before anything is freed.

        It must not know the arena: what nobody closes could not go with its last reference.
        """
        self._forget.append(forget)

    def stream(self) -> Any:
        """A stream that waits for no other by itself."""
        return self._noted(self.driver.Stream(_NON_BLOCKING_STREAM))

    def event(self, wait_asleep: bool = False) -> Any:
        """An event with a time; ``wait_asleep``: whoever waits for it on the host sleeps instead of spinning."""
        flags = self.driver.event_flags
        return self._noted(self.driver.Event(flags.BLOCKING_SYNC if wait_asleep else flags.DEFAULT))

    def module(self, cubin: bytes) -> Any:
        """Compiled kernels."""
        return self._noted(self.driver.module_from_buffer(cubin))

    def _noted(self, made: Any) -> Any:
        self._made.add(made)
        return made

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """Page-locked host memory, uint8 (nbytes,): the only kind that is copied while the host goes on."""
        array = self.driver.pagelocked_empty(max(nbytes, 1), np.uint8)
        self._pinned.append(array)
        return np.asarray(array)

    def memory(self, nbytes: int) -> int:
        """Device memory, zeroed; its address, a multiple of 256."""
        allocation = self.driver.mem_alloc(max(nbytes, 1))
        address = int(allocation)
        self._memory[address], self._sizes[address] = allocation, nbytes
        self.clear(address, max(nbytes, 1))
        return address

    def clear(self, address: int, nbytes: int) -> None:
        """Zero device memory; it is done when this returns. For set-up: the host waits."""
        stream = self._set_up()
        self.driver.memset_d8_async(address, 0, nbytes, stream)
        stream.synchronize()

    def upload(self, array: NDArray[np.uint8]) -> int:
        """A copy of ``array`` in new device memory; it is there when this returns. For set-up, as ``clear``."""
        address, stream = self.memory(array.size), self._set_up()
        self.driver.memcpy_htod_async(address, array, stream)
        stream.synchronize()
        return address

    def free(self, address: int) -> None:
        """Give device memory back before ``close``."""
        self._memory.pop(address).free()
        del self._sizes[address]

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        """Give page-locked memory back before ``close``; ``array`` as ``pinned`` gave it."""
        number = next(n for n, kept in enumerate(self._pinned) if kept.ctypes.data == array.ctypes.data)
        self._pinned[number].base.free()  # type: ignore[union-attr]
        del self._pinned[number]

    def close(self) -> None:
        """Free everything; of a lost device it is only forgotten. A second call does nothing."""
        if self.closed:
            return
        self.closed = True
        try:
            with self.active("free what the engine had"):
                self._free_all()
        except EngineError as error:
            _log.warning("%s", error)  # there is nothing left to free on a lost device

    def _free_all(self) -> None:
        while self._forget:
            self._forget.pop()()  # what was made last may need what was made first
        self._own = None
        if self._is_lost:
            return
        for array in self._pinned:
            array.base.free()  # type: ignore[union-attr] # pycuda's allocation
        self._pinned.clear()
        while self._memory:
            address, allocation = self._memory.popitem()
            del self._sizes[address]
            allocation.free()


@contextmanager
def _frames_cleared() -> Iterator[None]:
    """An exception keeps the frames that it came through, and they what they were working with: streams, contexts."""
    try:
        yield
    except BaseException as error:
        clear_frames(error.__traceback__)
        raise
