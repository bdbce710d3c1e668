"""What the processor can do that decides which arithmetic is the fastest."""

from __future__ import annotations

import functools
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_VNNI = {"avx512_vnni", "avx_vnni"}


@functools.cache
def has_vnni(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether there are instructions for sums of 8-bit products (VNNI: x86 of about 2019 on).

    Without them such sums saturate at 16 bits, so that int8 is neither much faster nor as right. False where the system
    does not tell.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _VNNI.isdisjoint(flags.split())
