"""How many CPU threads an engine may use."""

from __future__ import annotations

import os


def cpu_threads(asked: int = 0) -> int:
    """``asked`` or, when 0, the cores this process may run on (cgroup CPU sets and taskset respected)."""
    if asked > 0:
        return asked
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
