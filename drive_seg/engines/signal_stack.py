"""The stack on which a thread takes signals, kept from a library that puts its own in its place."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """stack_t of Linux, by sigaltstack(2)."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give the calling thread back the stack that it took signals on before.

    OpenVINO's CPU plugin sets one of its own while it loads, large enough for AMX' registers, and takes it back when it
    is unloaded: but not if another engine was opened meanwhile, or in another thread. The thread is left with memory
    that is gone, and the next signal, Ctrl-C say, is a segmentation fault. What Python has is large enough.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    libc, before = ctypes.CDLL(None), _Stack()
    known = libc.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            libc.sigaltstack(ctypes.byref(before), None)
