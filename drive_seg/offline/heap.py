"""Memory that one frame frees is there for the next."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEPT = 256 << 20
_LARGEST = 32 << 20
"""Bytes: the most that glibc takes; larger blocks, images beyond 10 megapixels, are mapped one by one as ever."""


def keep_freed_memory() -> None:
    """Ask glibc to keep what this process frees, up to 256 MiB an arena, instead of giving it back to the system.

    Images and maps are read in one thread and freed in another, where glibc hands megabytes back and takes them again
    with every frame: a thousand page faults, or 3 ms of processor time for a 1280x720 camera. Does nothing under
    another C library, and where the environment says how malloc is to behave.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST)
    mallopt(_TRIM_THRESHOLD, _KEPT)
