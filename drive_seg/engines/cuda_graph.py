"""CUDA graphs: what was put on a stream once is launched again as one piece. pycuda has none, so through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from drive_seg.errors import EngineError

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile


class CudaGraph:
    """A captured piece of work. Everything it touches (addresses, contexts) must outlive it.

    Args:
        stream: CUstream handle; idle, and used by nobody else during the capture.
        enqueue: puts the work on that stream.
        library: the driver.

    Raises:
        EngineError: the work cannot be captured; the stream is as it was, and the work was not done.
    """

    def __init__(self, stream: int, enqueue: Callable[[], None], library: str = "libcuda.so.1") -> None:
        self._cuda: Any = ctypes.CDLL(library)
        self._executable = ctypes.c_void_p()
        if not hasattr(self._cuda, "cuGraphInstantiateWithFlags"):
            raise EngineError("CUDA graph: the driver is older than CUDA 11.4")
        graph = ctypes.c_void_p()
        self._check(self._cuda.cuStreamBeginCapture_v2(ctypes.c_void_p(stream), _THREAD_LOCAL), "begin a capture")
        try:
            enqueue()
        except BaseException:  # also Ctrl-C: a stream that goes on capturing is of no use to anyone
            self._cuda.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph))
            if graph:
                self._cuda.cuGraphDestroy(graph)
            raise
        code = self._cuda.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph))
        self._check(code, "capture this work")
        try:
            executable = ctypes.byref(self._executable)
            self._check(self._cuda.cuGraphInstantiateWithFlags(executable, graph, ctypes.c_ulonglong(0)), "make it")
        finally:
            self._cuda.cuGraphDestroy(graph)

    def launch(self, stream: int) -> None:
        """Put it on a stream.

        Raises:
            EngineError: the driver refused.
        """
        self._check(self._cuda.cuGraphLaunch(self._executable, ctypes.c_void_p(stream)), "launch it")

    def close(self) -> None:
        """Destroy it; a second call does nothing."""
        if self._executable:
            self._cuda.cuGraphExecDestroy(self._executable)
            self._executable = ctypes.c_void_p()

    @staticmethod
    def _check(code: int, what: str) -> None:
        if code:
            raise EngineError(f"CUDA graph: cannot {what} (CUDA error {code})")
