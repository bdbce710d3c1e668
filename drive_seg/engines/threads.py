"""How many CPU threads an engine may use, and how batches in flight share them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from drive_seg.engines.protocol import EngineOptions


@dataclass(frozen=True)
class CpuShare:
    """``threads`` in all, for ``streams`` batches computed side by side, of ``slots`` that may be in flight."""

    threads: int
    streams: int
    slots: int


def cpu_threads(asked: int = 0) -> int:
    """``asked`` or, when 0, the cores this process may run on (cgroup CPU sets and taskset respected)."""
    if asked > 0:
        return asked
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_share(options: EngineOptions) -> CpuShare:
    """What ``options`` come to on this machine; see ``EngineOptions``."""
    threads = cpu_threads(options.threads)
    streams = min(options.streams, threads) if options.streams > 0 else threads
    return CpuShare(threads, streams, options.slots if streams == 1 else max(options.slots, streams + 1))
